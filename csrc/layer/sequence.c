/* The time loop, the split of the work over the team, and the workspace of a call. */
#include "fastrnn.h"

#include <assert.h>
#include <string.h>

#include "kernels/kernels.h"
#include "runtime/memory.h"
#include "layer/packed.h"
#include "layer/sums.h"
#include "runtime/team.h"

/* Workspace of one call. Gates and copied inputs of a chunk: enough rows for a product at full speed, few enough to
 * stay in the caches. */
enum { CHUNK_BYTES = 1 << 20, BACKWARD_CHUNK_BYTES = 16 << 20 };

/* The steps of a call and their rows, as fastrnn.h tells. */
typedef struct {
    ptrdiff_t T, B;
    const ptrdiff_t *offsets;
} steps;

static ptrdiff_t first_row(const steps *s, ptrdiff_t t) { return s->offsets ? s->offsets[t] : t * s->B; }
static ptrdiff_t rows_of_step(const steps *s, ptrdiff_t t)
{
    return t >= s->T ? 0 : s->offsets ? s->offsets[t + 1] - s->offsets[t] : s->B;
}

/* What one chunk of the projection may take. Each chunk goes through all of weight_ih: where that does not stay in the
 * second cache, more rows at a time are worth more than that they do. */
static double projection_bytes(ptrdiff_t I, ptrdiff_t G, size_t element)
{
    enum { LARGE_WEIGHTS = 4 << 20, ROWS = 256, MOST = 16 << 20 };
    const double row = (double)G * (double)element;
    if (row * (double)I <= LARGE_WEIGHTS || ROWS * row <= CHUNK_BYTES) return CHUNK_BYTES;
    return ROWS * row < MOST ? ROWS * row : MOST;
}

/* Rows of a chunk of steps that has so many columns in so many bytes: at least those of one step. */
static ptrdiff_t chunk_rows(const steps *s, double bytes, ptrdiff_t columns, size_t element)
{
    const ptrdiff_t all = first_row(s, s->T), least = rows_of_step(s, 0);
    double rows = bytes / ((double)columns * (double)element);
    if (rows > (double)all) rows = (double)all;
    return rows <= (double)least ? least : (ptrdiff_t)rows;
}
static ptrdiff_t end_of_chunk(const steps *s, ptrdiff_t t0, ptrdiff_t rows)
{
    ptrdiff_t t1 = t0 + 1;
    if (!s->offsets) return s->T - t0 < rows / s->B ? s->T : t0 + rows / s->B;
    while (t1 < s->T && s->offsets[t1 + 1] - s->offsets[t0] <= rows) t1++;
    return t1;
}
static ptrdiff_t start_of_chunk(const steps *s, ptrdiff_t t1, ptrdiff_t rows)
{
    ptrdiff_t t0 = t1 - 1;
    if (!s->offsets) return t1 < rows / s->B ? 0 : t1 - rows / s->B;
    while (t0 > 0 && s->offsets[t1] - s->offsets[t0 - 1] <= rows) t0--;
    return t0;
}

/* The part of a range before `end`, or from `start` on; it may be empty. */
static fastrnn_range first_of(fastrnn_range range, ptrdiff_t end)
{
    if (range.to > end) range.to = end;
    if (range.from > range.to) range.from = range.to;
    return range;
}
static fastrnn_range from_row(fastrnn_range range, ptrdiff_t start)
{
    if (range.from < start) range.from = start;
    if (range.to < range.from) range.to = range.from;
    return range;
}

/* Rows of the first n sequences. */
static ptrdiff_t rows_of_first(const steps *s, ptrdiff_t n)
{
    ptrdiff_t rows = 0;
    for (ptrdiff_t t = 0; t < s->T; t++) rows += rows_of_step(s, t) < n ? rows_of_step(s, t) : n;
    return rows;
}

/* The first sequence of member `index`: as nearly as can be, as many rows come before it as before the first of n items
 * of a share. */
static ptrdiff_t first_sequence(const steps *s, int index, int size)
{
    const fastrnn_member member = {index, size, NULL, 0, 0};
    const ptrdiff_t before = fastrnn_share(first_row(s, s->T), &member).from;
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

/* A member's share of the sequences, by the rows that they have. */
static fastrnn_range share_rows(const steps *s, const fastrnn_member *me)
{
    if (!s->offsets) return fastrnn_share(s->B, me);
    const ptrdiff_t to = me->index == me->size - 1 ? s->B : first_sequence(s, me->index + 1, me->size);
    return (fastrnn_range){first_sequence(s, me->index, me->size), to};
}

/* The distance between rows of n numbers: they start on a cache line, but not all in the same few sets of a cache. */
static ptrdiff_t padded_row(ptrdiff_t n, size_t element)
{
    const ptrdiff_t line = 64 / (ptrdiff_t)element;
    const ptrdiff_t row = fastrnn_panels(n, line) * line;
    return row % (16 * line) == 0 ? row + line : row;
}

/* Whether rows of n numbers, one after the other, all start in the same set of the first-level cache. A product reads
 * as many rows at a time as its tile has, more than such a set holds. */
static int rows_collide(ptrdiff_t n, size_t element) { return n > 0 && n * (ptrdiff_t)element % 4096 == 0; }

/* to[n, m] = from, or 0 where from is NULL. */
static void copy_bytes(void *to, const void *from, ptrdiff_t n, ptrdiff_t m, size_t element)
{
    const size_t bytes = (size_t)n * (size_t)m * element;
    if (bytes == 0 || from == to) return;
    if (from)
        memcpy(to, from, bytes);
    else
        memset(to, 0, bytes);
}

typedef struct {
    int threads;
    int split_rows;     /* members share the batch, else the hidden units */
    double time, alone; /* the estimate, and that for one thread, ns */
} plan;

/* Of n hidden units shared in blocks, the most that one of `members` gets. */
static ptrdiff_t largest_share(ptrdiff_t n, ptrdiff_t block, int members)
{
    ptrdiff_t most = 0;
    for (int k = 0; k < members; k++) {
        const fastrnn_member member = {k, members, NULL, 0, 0};
        const fastrnn_range part = fastrnn_share(fastrnn_panels(n, block), &member);
        const ptrdiff_t units = (part.to * block < n ? part.to * block : n) - part.from * block;
        if (units > most) most = units;
    }
    return most;
}

/* Operations of a call's products, and how many are worth more than one thread: some microseconds of them. */
static double operations_of(const steps *s, const fastrnn_packed *packed)
{
    const double G = packed->isa->f32->cells[packed->cell]->gates * (double)packed->H;
    return 2 * G * (double)first_row(s, s->T) * (double)(packed->I + packed->P);
}
enum { FEWEST_OPERATIONS = 200000, FEWEST_ROWS = 4 };

/* How many threads, and what they share: the least estimated time. Sharing hidden units keeps a slice of weight_hh in
 * each core's caches and costs a phase of the team for each step; sharing the batch needs few, but every core reads all
 * weights in every step, weight_ih too, because what a core projects it should also use: so it takes some rows to be
 * worth that.
 */
static plan plan_steps(const steps *s, ptrdiff_t I, ptrdiff_t H, ptrdiff_t P, int gates, size_t element, int width,
                       int block, int threads)
{
    const double lanes = width / 2;
    const double start = 1000, phase = 400, cell = 6.0 * gates; /* ns: a team, a phase, the cell on one vector */
    const double transfer = 8;                                  /* bytes per ns, of h_t to the other cores */
    const double speed = 10 * lanes;                            /* flop per ns and core */
    const ptrdiff_t T = s->T, B = T > 0 ? fastrnn_panels(first_row(s, T), T) : 0; /* a step's sequences, on average */
    const ptrdiff_t blocks = fastrnn_panels(H, block);
    plan best = {1, 0, 0, 0};
    if (B == 0) return best;
    for (int n = 1; n <= threads && (n <= B / FEWEST_ROWS || n <= blocks); n++)
        for (int split_rows = 0; split_rows <= (n > 1); split_rows++) {
            if (split_rows ? n > B / FEWEST_ROWS : n > blocks) continue;
            double rows = split_rows ? (double)fastrnn_panels(B, n) : (double)B;
            double units = split_rows ? (double)H : (double)largest_share(H, block, n);
            double weights = gates * units * (split_rows ? P + I : P); /* numbers read each step */
            double bytes = weights * element;
            double bandwidth = bytes < 40e3 ? 200 : bytes < 1e6 ? 100 : bytes < 4e6 ? 50 : 20; /* per ns */
            double product = 2 * rows * weights / speed, reading = bytes / bandwidth;
            double step = (product > reading ? product : reading) + cell * rows * units / lanes;
            if (n > 1 && !split_rows) step += phase + (double)B * P * element / transfer;
            double input = split_rows ? 0 : 2 * rows * I * gates * units / speed;
            double once = split_rows ? 0 : gates * units * I * element / bandwidth / T; /* weight_ih, read once */
            if (once > input) input = once;
            double time = T * (step + input) + (n > 1 ? start : 0);
            if (n > 1) time *= 1.1; /* a team has more to lose where others want its cores */
            if (n == 1 || time < best.time) best = (plan){n, split_rows, time, n == 1 ? time : best.alone};
        }
    return best;
}

/* Pieces of work that takes about so many ns, each `piece` at least, and at most one for each step. */
enum { MOST_PIECES = 16, PIECE = 200000, OWN_PIECE = 20000, STACKED_PIECE = 15000 };
static int pieces_of(double time, double piece, ptrdiff_t n)
{
    double pieces = time / piece;
    if (pieces > MOST_PIECES) pieces = MOST_PIECES;
    if (pieces > (double)n) pieces = (double)n;
    return pieces < 1 ? 1 : (int)pieces;
}

/* Phases that a product is cut into, by its n panels, so that helpers need not wait long to take part. */
static int phases_of(double operations, ptrdiff_t n)
{
    const double most = 5e7;
    double phases = operations / most;
    if (phases > (double)n / 4) phases = (double)n / 4;
    return phases < 1 ? 1 : (int)phases;
}

/* The first step that is not before part k of all rows. */
static ptrdiff_t first_step(const steps *s, int k, int parts)
{
    if (!s->offsets || k == parts) return fastrnn_part(s->T, k, parts).from;
    const ptrdiff_t row = fastrnn_part(first_row(s, s->T), k, parts).from;
    ptrdiff_t t = 0;
    while (first_row(s, t) < row) t++;
    return t;
}

/* A phase for a team, or for one who does all of it alone. */
static int phase_of(fastrnn_team *team, const fastrnn_member *alone, int most, double operations, fastrnn_job *job,
                    const void *context, ptrdiff_t item)
{
    if (!alone) return fastrnn_team_phase(team, most, operations, job, context, item);
    fastrnn_member me = *alone;
    me.item = item;
    job(context, &me);
    return fastrnn_team_go(alone, 0);
}

/* How several calls run: one after the other, each as its plan says; or side by side, each by one member, in `items`
 * pieces of time. A stacked call is one piece behind the call whose result it reads. */
typedef struct {
    int side_by_side, items, members; /* members: the most that any phase has */
    double alone;                     /* the estimate for one thread, ns */
} arrangement;
static arrangement arrange(plan *plans, int count, int stacked, ptrdiff_t T, int threads)
{
    double apart = 0, longest = 0, alone = 0;
    int most = 1;
    for (int k = 0; k < count; k++) {
        apart += plans[k].time;
        alone += plans[k].alone;
        if (plans[k].alone > longest) longest = plans[k].alone;
        if (plans[k].threads > most) most = plans[k].threads;
    }
    const int members = threads < count ? threads : count;
    if (members > 1) {
        const int items = pieces_of(longest, stacked ? STACKED_PIECE : OWN_PIECE, T);
        const double waiting = stacked ? (double)(items + members - 1) / items : 1;
        if (longest * waiting * (double)fastrnn_panels(count, members) < apart) {
            for (int k = 0; k < count; k++) plans[k] = (plan){1, 0, plans[k].alone, plans[k].alone};
            return (arrangement){1, items, members, alone};
        }
    }
    return (arrangement){0, 1, most, alone};
}

/* In phase p each call does piece p, and a stacked one piece p - 1 where the call below does piece p. */
typedef void piece_of_call(const void *calls, const fastrnn_member *, int k, int item, int items);
typedef struct {
    piece_of_call *piece;
    const void *calls;
    int count, stacked, items;
} side_by_side;

static void share_of_calls(const void *context, const fastrnn_member *me)
{
    const side_by_side *all = context;
    const fastrnn_member alone = fastrnn_alone(me);
    for (int k = me->index; k < all->count; k += me->size) {
        const int item = (int)me->item - (all->stacked ? k : 0);
        if (item >= 0 && item < all->items) all->piece(all->calls, &alone, k, item, all->items);
    }
}

static int run_side_by_side(fastrnn_team *team, arrangement how, int count, int stacked, double operations,
                            piece_of_call *piece, const void *calls)
{
    const side_by_side all = {piece, calls, count, stacked, how.items};
    const int phases = how.items + (stacked ? count - 1 : 0);
    for (int k = 0; k < phases; k++)
        if (!fastrnn_team_phase(team, how.members, operations / phases, share_of_calls, &all, k)) return 0;
    return 1;
}

/* Memory that is used by the one after the other. */
static void merge_layout(fastrnn_layout *layout, const fastrnn_layout *other)
{
    if (other->size > layout->size) layout->size = other->size;
    layout->overflow |= other->overflow;
}

/* Numbers of all gradients of weights. */
static ptrdiff_t gradient_numbers(const fastrnn_packed *packed)
{
    const ptrdiff_t H = packed->H, P = packed->P, G = packed->isa->f32->cells[packed->cell]->gates * H;
    return (packed->peephole ? 3 * H : 0) + 2 * G + G * packed->I + G * P + (packed->has_projection ? P * H : 0);
}

#define real float
#define SUFFIX f32
#include "layer/sums.inc.h"
#include "layer/sequence.inc.h"
#undef real
#undef SUFFIX

#define real double
#define SUFFIX f64
#include "layer/sums.inc.h"
#include "layer/sequence.inc.h"
#undef real
#undef SUFFIX

fastrnn_status fastrnn_forward(const fastrnn_forward_args *args, int count, int stacked, fastrnn_workspace *workspace,
                               const fastrnn_interruption *interruption, int threads)
{
    assert(count > 0 && count <= FASTRNN_MOST_CALLS && args->T >= 0 && args->B >= 0);
    return args->packed->dtype == FASTRNN_F32 ? run_forward_f32(args, count, stacked, workspace, interruption, threads)
                                              : run_forward_f64(args, count, stacked, workspace, interruption, threads);
}

fastrnn_status fastrnn_backward(const fastrnn_backward_args *args, int count, int stacked, fastrnn_workspace *workspace,
                                const fastrnn_interruption *interruption, int threads)
{
    assert(count > 0 && count <= FASTRNN_MOST_CALLS && args->T >= 0 && args->B >= 0);
    return args->packed->dtype == FASTRNN_F32
               ? run_backward_f32(args, count, stacked, workspace, interruption, threads)
               : run_backward_f64(args, count, stacked, workspace, interruption, threads);
}

size_t fastrnn_sums_bytes(const fastrnn_packed *packed, ptrdiff_t rows)
{
    const size_t element = packed->dtype == FASTRNN_F32 ? sizeof(float) : sizeof(double);
    fastrnn_layout layout = {0};
    fastrnn_reserve(&layout, element, fastrnn_sum_levels(rows), gradient_numbers(packed), 1);
    return layout.overflow ? SIZE_MAX : layout.size;
}

const char *fastrnn_compiler(void)
{
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#else
    return "unknown";
#endif
}
