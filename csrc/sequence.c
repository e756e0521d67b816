/* The time loop, the split of the work over the team, and the workspace of a call. */
#include "fastrnn.h"

#include <assert.h>
#include <string.h>

#include "kernels.h"
#include "memory.h"
#include "packed.h"
#include "team.h"

/* Workspace of one call. Gates and copied inputs of a chunk: enough rows for a product at full speed, few enough to
 * stay in the caches. */
enum { CHUNK_BYTES = 1 << 20, BACKWARD_CHUNK_BYTES = 16 << 20 };

/* What one chunk of the projection may take. Each chunk goes through all of weight_ih: where that does not stay in the
 * second cache, more rows at a time are worth more than that they do. */
static double projection_bytes(ptrdiff_t I, ptrdiff_t H, size_t element)
{
    enum { LARGE_WEIGHTS = 4 << 20, ROWS = 256, MOST = 16 << 20 };
    const double row = 4.0 * (double)H * (double)element;
    if (row * (double)I <= LARGE_WEIGHTS || ROWS * row <= CHUNK_BYTES) return CHUNK_BYTES;
    return ROWS * row < MOST ? ROWS * row : MOST;
}

/* Steps of (B, columns) numbers that fit in `bytes`: at least 1, at most T, and nothing that could overflow. */
static ptrdiff_t chunk_steps(ptrdiff_t T, double bytes, ptrdiff_t B, ptrdiff_t columns, size_t element)
{
    double steps = bytes / ((double)B * (double)columns * (double)element + 1);
    return steps < 1 ? 1 : steps < (double)T ? (ptrdiff_t)steps : T > 0 ? T : 1;
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
    int split_rows; /* members share the batch, else the hidden units */
} plan;

/* Of n hidden units shared in blocks, the most that one of `members` gets. */
static ptrdiff_t largest_share(ptrdiff_t n, ptrdiff_t block, int members)
{
    ptrdiff_t most = 0;
    for (int k = 0; k < members; k++) {
        const fastrnn_member member = {k, members, NULL};
        const fastrnn_range part = fastrnn_share(fastrnn_panels(n, block), &member);
        const ptrdiff_t units = (part.to * block < n ? part.to * block : n) - part.from * block;
        if (units > most) most = units;
    }
    return most;
}

/* How many threads, and what they share: the least estimated time. Sharing hidden units keeps a slice of weight_hh in
 * each core's caches and costs a barrier a step; sharing the batch needs none, but every core reads all weights in
 * every step, weight_ih too, because what a core projects it should also use: so it takes some rows to be worth that.
 */
enum { FEWEST_ROWS = 4 };
static plan plan_steps(ptrdiff_t T, ptrdiff_t B, ptrdiff_t I, ptrdiff_t H, size_t element, int width, int block,
                       int threads)
{
    const double lanes = width / 2;
    const double barrier = 400, start = 5000, cell = 25; /* ns: a barrier, a team, the cell on one vector */
    const double transfer = 8;                           /* bytes per ns, of h_t to the other cores */
    const double speed = 10 * lanes;                     /* flop per ns and core */
    const ptrdiff_t blocks = fastrnn_panels(H, block);
    plan best = {1, 0};
    double least = 0;
    if (8.0 * T * B * H * (I + H) < 200e3) return best; /* some microseconds at most: not worth a team */
    for (int n = 1; n <= threads && (n <= B / FEWEST_ROWS || n <= blocks); n++)
        for (int split_rows = 0; split_rows <= (n > 1); split_rows++) {
            if (split_rows ? n > B / FEWEST_ROWS : n > blocks) continue;
            double rows = split_rows ? (double)fastrnn_panels(B, n) : (double)B;
            double units = split_rows ? (double)H : (double)largest_share(H, block, n);
            double weights = 4 * units * (split_rows ? H + I : H); /* numbers read each step */
            double bytes = weights * element;
            double bandwidth = bytes < 40e3 ? 200 : bytes < 1e6 ? 100 : bytes < 4e6 ? 50 : 20; /* per ns */
            double product = 2 * rows * weights / speed, reading = bytes / bandwidth;
            double step = (product > reading ? product : reading) + cell * rows * units / lanes;
            if (n > 1 && !split_rows) step += barrier + (double)B * H * element / transfer;
            double input = split_rows ? 0 : 2 * rows * I * 4 * units / speed;
            double time = T * (step + input) + (n > 1 ? start : 0);
            if (n > 1) time *= 1.1; /* a team has more to lose where others want its cores */
            if (n == 1 || time < least) {
                least = time;
                best.threads = n;
                best.split_rows = split_rows;
            }
        }
    return best;
}

#define real float
#define SUFFIX f32
#include "sequence.inc.h"
#undef real
#undef SUFFIX

#define real double
#define SUFFIX f64
#include "sequence.inc.h"
#undef real
#undef SUFFIX

fastrnn_status fastrnn_lstm_forward(const fastrnn_lstm_forward_args *args, fastrnn_workspace *workspace, int threads)
{
    const fastrnn_packed *packed = args->packed;
    assert(args->T >= 0 && args->B >= 0 && !args->c == !args->gates && packed->pass == FASTRNN_FORWARD);
    return packed->dtype == FASTRNN_F32 ? lstm_forward_f32(args, workspace, threads)
                                        : lstm_forward_f64(args, workspace, threads);
}

fastrnn_status fastrnn_lstm_backward(const fastrnn_lstm_backward_args *args, fastrnn_workspace *workspace, int threads)
{
    const fastrnn_packed *packed = args->packed;
    assert(args->T >= 0 && args->B >= 0 && packed->pass == FASTRNN_BACKWARD);
    return packed->dtype == FASTRNN_F32 ? lstm_backward_f32(args, workspace, threads)
                                        : lstm_backward_f64(args, workspace, threads);
}

int fastrnn_has_openmp(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
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
