/* The rows of a call: of each step, and of ranges of sequences. */
#ifndef FASTRNN_STEPS_H
#define FASTRNN_STEPS_H

#include <string.h>

#include "layer/packed.h"
#include "runtime/team.h"

/* T steps; offsets and resets as in fastrnn.h. */
typedef struct {
    ptrdiff_t T, B;
    const ptrdiff_t *offsets;
    const uint8_t *resets;
} steps;

static inline ptrdiff_t first_row(const steps *s, ptrdiff_t t) { return s->offsets ? s->offsets[t] : t * s->B; }
static inline ptrdiff_t rows_of_step(const steps *s, ptrdiff_t t)
{
    return t >= s->T ? 0 : s->offsets ? s->offsets[t + 1] - s->offsets[t] : s->B;
}

/* The flags of the rows of step t, or NULL where no sequence is reset before it. */
static inline const uint8_t *resets_of_step(const steps *s, ptrdiff_t t)
{
    const uint8_t *resets = s->resets && t < s->T ? s->resets + first_row(s, t) : NULL;
    return resets && memchr(resets, 1, (size_t)rows_of_step(s, t)) ? resets : NULL;
}

/* Rows of a chunk of steps with so many columns in so many bytes: at least those of one step. */
static inline ptrdiff_t chunk_rows(const steps *s, double bytes, ptrdiff_t columns, size_t element)
{
    const ptrdiff_t all = first_row(s, s->T), least = rows_of_step(s, 0);
    double rows = bytes / ((double)columns * (double)element);
    if (rows > (double)all) rows = (double)all;
    return rows <= (double)least ? least : (ptrdiff_t)rows;
}
static inline ptrdiff_t end_of_chunk(const steps *s, ptrdiff_t t0, ptrdiff_t rows)
{
    ptrdiff_t t1 = t0 + 1;
    if (!s->offsets) return s->T - t0 < rows / s->B ? s->T : t0 + rows / s->B;
    while (t1 < s->T && s->offsets[t1 + 1] - s->offsets[t0] <= rows) t1++;
    return t1;
}
static inline ptrdiff_t start_of_chunk(const steps *s, ptrdiff_t t1, ptrdiff_t rows)
{
    ptrdiff_t t0 = t1 - 1;
    if (!s->offsets) return t1 < rows / s->B ? 0 : t1 - rows / s->B;
    while (t0 > 0 && s->offsets[t1] - s->offsets[t0 - 1] <= rows) t0--;
    return t0;
}

/* The first step that is not before part k of all rows. */
static inline ptrdiff_t first_step(const steps *s, int k, int parts)
{
    if (!s->offsets || k == parts) return fastrnn_part(s->T, k, parts).from;
    const ptrdiff_t row = fastrnn_part(first_row(s, s->T), k, parts).from;
    ptrdiff_t t = 0;
    while (first_row(s, t) < row) t++;
    return t;
}

/* The part of a range before `end`, or from `start` on; it may be empty. */
static inline fastrnn_range first_of(fastrnn_range range, ptrdiff_t end)
{
    if (range.to > end) range.to = end;
    if (range.from > range.to) range.from = range.to;
    return range;
}
static inline fastrnn_range from_row(fastrnn_range range, ptrdiff_t start)
{
    if (range.from < start) range.from = start;
    if (range.to < range.from) range.to = range.from;
    return range;
}

/* Rows of the first n sequences. */
static inline ptrdiff_t rows_of_first(const steps *s, ptrdiff_t n)
{
    ptrdiff_t rows = 0;
    for (ptrdiff_t t = 0; t < s->T; t++) rows += rows_of_step(s, t) < n ? rows_of_step(s, t) : n;
    return rows;
}

/* The first sequence of member `index`: as nearly as can be, as many rows come before it as before the first of n items
 * of a share. */
static inline ptrdiff_t first_sequence(const steps *s, int index, int size)
{
    const ptrdiff_t before = fastrnn_part(first_row(s, s->T), index, size).from;
    ptrdiff_t low = 0, high = s->B; /* the least number of sequences that have so many rows */
    while (low < high) {
        const ptrdiff_t middle = low + (high - low) / 2;
        if (rows_of_first(s, middle) < before)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && before - rows_of_first(s, low - 1) < rows_of_first(s, low) - before ? low - 1 : low;
}

/* A member's share of the sequences, by their rows. */
static inline fastrnn_range share_rows(const steps *s, const fastrnn_member *me)
{
    if (!s->offsets) return fastrnn_share(s->B, me);
    const ptrdiff_t to = me->index == me->size - 1 ? s->B : first_sequence(s, me->index + 1, me->size);
    return (fastrnn_range){first_sequence(s, me->index, me->size), to};
}

/* The leading dimension of rows of n numbers: they start on a cache line, but not all in the same few sets of a cache.
 */
static inline ptrdiff_t padded_row(ptrdiff_t n, size_t element)
{
    const ptrdiff_t line = 64 / (ptrdiff_t)element;
    const ptrdiff_t row = fastrnn_panels(n, line) * line;
    return row % (16 * line) == 0 ? row + line : row;
}

/* Whether rows of n numbers, one after the other, all start in the same set of the first-level cache. A product reads
 * as many rows at a time as its tile has, more than such a set holds. */
static inline int rows_collide(ptrdiff_t n, size_t element) { return n > 0 && n * (ptrdiff_t)element % 4096 == 0; }

/* to (n, m) = from, or 0 where from is NULL. */
static inline void copy_bytes(void *to, const void *from, ptrdiff_t n, ptrdiff_t m, size_t element)
{
    const size_t bytes = (size_t)n * (size_t)m * element;
    if (bytes == 0 || from == to) return;
    if (from)
        memcpy(to, from, bytes);
    else
        memset(to, 0, bytes);
}

/* Sets columns of the flagged rows of an array with leading dimension `row` to zero. resets: of its rows, or NULL. */
static inline void clear_rows(void *array, ptrdiff_t row, const uint8_t *resets, fastrnn_range rows,
                              fastrnn_range columns, size_t element)
{
    for (ptrdiff_t r = rows.from; resets && r < rows.to; r++)
        if (resets[r] && columns.from < columns.to)
            memset((char *)array + (size_t)(r * row + columns.from) * element, 0,
                   (size_t)(columns.to - columns.from) * element);
}

/* Columns of rows (B, n), and zeros for the flagged ones. */
static inline void copy_rows(void *to, const void *from, ptrdiff_t n, const uint8_t *resets, fastrnn_range rows,
                             fastrnn_range columns, size_t element)
{
    for (ptrdiff_t r = rows.from; r < rows.to && columns.from < columns.to; r++) {
        const size_t at = (size_t)(r * n + columns.from) * element;
        memcpy((char *)to + at, (const char *)from + at, (size_t)(columns.to - columns.from) * element);
    }
    clear_rows(to, n, resets, rows, columns, element);
}

#endif
