/* The time loop, the split of the work over the team, and the workspace of a call. */
#include "fastrnn.h"

#include <assert.h>
#include <string.h>

#include "kernels.h"
#include "memory.h"
#include "team.h"

/* Workspace of one call. Gates of a chunk: enough rows for a product at full speed, few enough to stay in the caches.
 */
enum { GATES_CHUNK_BYTES = 1 << 20, BACKWARD_CHUNK_BYTES = 16 << 20 };

static ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) { return a / b + (a % b != 0); }

/* Steps of (B, columns) numbers that fit in `bytes`: at least 1, at most T, and nothing that could overflow. */
static ptrdiff_t chunk_steps(ptrdiff_t T, double bytes, ptrdiff_t B, ptrdiff_t columns, size_t element)
{
    double steps = bytes / ((double)B * (double)columns * (double)element + 1);
    return steps < 1 ? 1 : steps < (double)T ? (ptrdiff_t)steps : T > 0 ? T : 1;
}

/* to[n, m] = from, or 0 where from is NULL. */
static void copy_bytes(void *to, const void *from, ptrdiff_t n, ptrdiff_t m, size_t element)
{
    const size_t bytes = (size_t)n * (size_t)m * element;
    if (bytes == 0) return;
    if (from)
        memcpy(to, from, bytes);
    else
        memset(to, 0, bytes);
}

typedef struct {
    int threads;
    int split_rows; /* members share the batch, else the hidden units */
} plan;

/* How many threads, and what they share: the least estimated time. Sharing hidden units keeps a slice of weight_hh in
 * each core's caches and costs a barrier a step; sharing the batch needs none, but every core reads all of weight_hh.
 */
static plan plan_steps(ptrdiff_t T, ptrdiff_t B, ptrdiff_t I, ptrdiff_t H, size_t element, int width, int threads)
{
    const double barrier = 200, start = 3000, cell = 25; /* ns: a barrier, a team, the cell on one vector */
    const double vectors = ceil_div(H, width) * 2.0, lanes = width / 2;
    const double speed = 10 * lanes; /* flop per ns and core */
    plan best = {1, 0};
    double least = 0;
    for (int n = 1; n <= threads && (n <= B || n <= ceil_div(H, width)); n++)
        for (int split_rows = 0; split_rows <= (n > 1); split_rows++) {
            if (split_rows ? n > B : n > ceil_div(H, width)) continue;
            double rows = split_rows ? (double)ceil_div(B, n) : (double)B;
            double units = split_rows ? vectors : ceil_div(ceil_div(H, width), n) * 2.0; /* in vectors */
            double weights = 4 * units * lanes * H;                                      /* numbers read each step */
            double bytes = weights * element;
            double bandwidth = bytes < 40e3 ? 200 : bytes < 900e3 ? 60 : 20; /* per ns */
            double product = 2 * rows * weights / speed, reading = bytes / bandwidth;
            double step = (product > reading ? product : reading) + cell * rows * units;
            if (n > 1 && !split_rows) step += barrier;
            double input = 2.0 * B * I * 4 * vectors * lanes / (speed * n);
            double time = T * (step + input) + (n > 1 ? start : 0);
            if (n == 1 || time < least) {
                least = time;
                best.threads = n;
                best.split_rows = split_rows;
            }
        }
    return best;
}

struct fastrnn_packed {
    const fastrnn_isa *isa;
    fastrnn_dtype dtype;
    ptrdiff_t I, H;
    void *panels_ih, *panels_hh; /* weight_ih (4H, I) and weight_hh (4H, H): [panel of columns][4H][width] */
};

void fastrnn_packed_free(fastrnn_packed *packed) { fastrnn_free(packed); }

static fastrnn_packed *snapshot_create(const fastrnn_isa *isa, fastrnn_dtype dtype, size_t element, ptrdiff_t width,
                                       ptrdiff_t I, ptrdiff_t H)
{
    fastrnn_layout layout = {0};
    fastrnn_reserve(&layout, sizeof(fastrnn_packed), 1, 1, 1);
    size_t panels_ih = fastrnn_reserve(&layout, element, ceil_div(I, width) * width, 4, H);
    size_t panels_hh = fastrnn_reserve(&layout, element, ceil_div(H, width) * width, 4, H);
    char *memory = fastrnn_allocate(&layout);
    fastrnn_packed *packed = (fastrnn_packed *)memory;
    if (packed) {
        packed->isa = isa;
        packed->dtype = dtype;
        packed->I = I;
        packed->H = H;
        packed->panels_ih = memory + panels_ih;
        packed->panels_hh = memory + panels_hh;
    }
    return packed;
}

#define snapshot_create_f32(isa, kernel, I, H) snapshot_create(isa, FASTRNN_F32, sizeof(float), (kernel)->width, I, H)
#define snapshot_create_f64(isa, kernel, I, H) snapshot_create(isa, FASTRNN_F64, sizeof(double), (kernel)->width, I, H)

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

fastrnn_status fastrnn_lstm_forward(const fastrnn_isa *isa, fastrnn_dtype dtype, const fastrnn_lstm_forward_args *args,
                                    fastrnn_workspace *workspace, int threads)
{
    assert(args->T >= 0 && args->B >= 0 && args->I >= 0 && args->H > 0);
    assert(!args->c == !args->gates && !args->c == !args->snapshot);
    return dtype == FASTRNN_F32 ? lstm_forward_f32(isa, isa->f32, args, workspace, threads)
                                : lstm_forward_f64(isa, isa->f64, args, workspace, threads);
}

fastrnn_status fastrnn_lstm_backward(const fastrnn_lstm_backward_args *args, fastrnn_workspace *workspace, int threads)
{
    const fastrnn_packed *snapshot = args->snapshot;
    assert(snapshot->I == args->I && snapshot->H == args->H);
    return snapshot->dtype == FASTRNN_F32 ? lstm_backward_f32(snapshot->isa->f32, args, workspace, threads)
                                          : lstm_backward_f64(snapshot->isa->f64, args, workspace, threads);
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
