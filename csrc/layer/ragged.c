/* Ragged batches: the packed layout, and from padded to packed layout and back. */
#include <string.h>

#include "fastrnn.h"
#include "runtime/team.h"

/* A counting sort, whose counts are in the memory of `offsets`: first of the sequences of each length, then of the
 * longer ones, which are the place of the next sequence of that length, and at last the sequences of each step. */
void fastrnn_sort_lengths(ptrdiff_t B, ptrdiff_t steps, const ptrdiff_t *lengths, ptrdiff_t *order, ptrdiff_t *sorted,
                          ptrdiff_t *offsets)
{
    memset(offsets, 0, (size_t)(steps + 1) * sizeof *offsets);
    for (ptrdiff_t b = 0; b < B; b++) offsets[lengths[b]]++;
    for (ptrdiff_t t = steps, longer = 0; t >= 0; t--) {
        const ptrdiff_t count = offsets[t];
        offsets[t] = longer;
        longer += count;
    }
    for (ptrdiff_t b = 0; b < B; b++) {
        const ptrdiff_t place = offsets[lengths[b]]++;
        order[place] = b;
        sorted[place] = lengths[b];
    }
    /* Now offsets[t + 1] sequences have a step t. */
    offsets[0] = 0;
    for (ptrdiff_t t = 1; t <= steps; t++) offsets[t] += offsets[t - 1];
}

typedef struct {
    const fastrnn_ragged *rows;
    size_t bytes;
    const char *from;
    char *to;
    ptrdiff_t step, sequence; /* strides of the caller's array, in bytes */
    int parts;
} moving;

static ptrdiff_t first_step_from(const fastrnn_ragged *r, ptrdiff_t row)
{
    ptrdiff_t t = 0;
    while (t < r->steps && r->offsets[t] < row) t++;
    return t;
}

/* The steps whose first row is in the member's share of the rows. */
static fastrnn_range share_of_steps(const moving *m, const fastrnn_member *me)
{
    const fastrnn_ragged *r = m->rows;
    const fastrnn_range rows = fastrnn_share_of_item(r->offsets[r->steps], m->parts, me);
    const fastrnn_range steps = {first_step_from(r, rows.from), first_step_from(r, rows.to)};
    return steps;
}

static double operations_of_a_step(const moving *m) { return (double)m->rows->B * (double)m->bytes; }

static void gather_share(const void *context, const fastrnn_member *me)
{
    const moving *m = context;
    const fastrnn_ragged *r = m->rows;
    const fastrnn_range steps = share_of_steps(m, me);
    for (fastrnn_range piece = fastrnn_no_piece(steps); fastrnn_next_piece(me, steps, operations_of_a_step(m), &piece);)
        for (ptrdiff_t t = piece.from; t < piece.to; t++) {
            char *to = m->to + (size_t)r->offsets[t] * m->bytes;
            for (ptrdiff_t b = 0; b < r->offsets[t + 1] - r->offsets[t]; b++, to += m->bytes)
                memcpy(to, m->from + t * m->step + r->order[b] * m->sequence, m->bytes);
        }
}

static void scatter_share(const void *context, const fastrnn_member *me)
{
    const moving *m = context;
    const fastrnn_ragged *r = m->rows;
    const fastrnn_range steps = fastrnn_share_of_item(r->T, m->parts, me);
    for (fastrnn_range piece = fastrnn_no_piece(steps); fastrnn_next_piece(me, steps, operations_of_a_step(m), &piece);)
        for (ptrdiff_t t = piece.from; t < piece.to; t++) {
            const ptrdiff_t count = t < r->steps ? r->offsets[t + 1] - r->offsets[t] : 0;
            for (ptrdiff_t b = 0; b < r->B; b++) {
                char *to = m->to + t * m->step + r->order[b] * m->sequence;
                if (b < count)
                    memcpy(to, m->from + (size_t)(r->offsets[t] + b) * m->bytes, m->bytes);
                else
                    memset(to, 0, m->bytes);
            }
        }
}

static void reverse_share(const void *context, const fastrnn_member *me)
{
    const moving *m = context;
    const fastrnn_ragged *r = m->rows;
    const fastrnn_range steps = share_of_steps(m, me);
    for (fastrnn_range piece = fastrnn_no_piece(steps); fastrnn_next_piece(me, steps, operations_of_a_step(m), &piece);)
        for (ptrdiff_t t = piece.from; t < piece.to; t++) {
            char *to = m->to + (size_t)r->offsets[t] * m->bytes;
            for (ptrdiff_t b = 0; b < r->offsets[t + 1] - r->offsets[t]; b++, to += m->bytes)
                memcpy(to, m->from + (size_t)(r->offsets[r->lengths[b] - 1 - t] + b) * m->bytes, m->bytes);
        }
}

static fastrnn_status move(fastrnn_job *job, moving *m, const fastrnn_interruption *interruption, int threads)
{
    /* A team pays off from some tens of microseconds on. */
    const double bytes = (double)m->rows->offsets[m->rows->steps] * (double)m->bytes;
    const double fewest = 300e3, of_a_part = 2e6, operations = 1, ns = 0.1; /* for each byte */
    threads = bytes < fewest ? 1 : fastrnn_team_threads(threads);
    m->parts = bytes < 2 * of_a_part ? 1 : bytes < 100 * of_a_part ? (int)(bytes / of_a_part) : 100;
    fastrnn_team team;
    fastrnn_team_open(&team, threads, ns * bytes, interruption);
    for (int k = 0; k < m->parts; k++)
        if (!fastrnn_team_phase(&team, threads, operations * bytes / m->parts, job, m, k)) break;
    return fastrnn_team_close(&team) ? FASTRNN_OK : FASTRNN_INTERRUPTED;
}

fastrnn_status fastrnn_gather(const fastrnn_ragged *rows, size_t bytes, const void *array, ptrdiff_t step,
                              ptrdiff_t sequence, void *to, const fastrnn_interruption *interruption, int threads)
{
    moving m = {rows, bytes, array, to, step, sequence, 1};
    return move(gather_share, &m, interruption, threads);
}

fastrnn_status fastrnn_scatter(const fastrnn_ragged *rows, size_t bytes, const void *from, void *array, ptrdiff_t step,
                               ptrdiff_t sequence, const fastrnn_interruption *interruption, int threads)
{
    moving m = {rows, bytes, from, array, step, sequence, 1};
    return move(scatter_share, &m, interruption, threads);
}

fastrnn_status fastrnn_reverse(const fastrnn_ragged *rows, size_t bytes, const void *from, void *to,
                               const fastrnn_interruption *interruption, int threads)
{
    moving m = {rows, bytes, from, to, 0, 0, 1};
    return move(reverse_share, &m, interruption, threads);
}
