/* Losses: one pass over memory, shared by a team. */
#include "fastrnn.h"

#include "kernels/kernels.h"
#include "runtime/team.h"

typedef struct {
    const fastrnn_isa *isa;
    fastrnn_dtype dtype;
    ptrdiff_t N, C; /* rows of C numbers; of the squared error, blocks of so many numbers, of `all` in all */
    ptrdiff_t all;
    const char *prediction, *target;
    const int64_t *targets;
    double scale;
    char *d;
    double *losses; /* of each row */
} rows;

static void cross_entropy_share(const void *context, const fastrnn_member *me)
{
    const rows *work = context;
    const fastrnn_range share = fastrnn_share(work->N, me);
    for (ptrdiff_t n = share.from; n < share.to; n++) {
        const size_t at = (size_t)(n * work->C) * fastrnn_element_bytes(work->dtype);
        const void *z = work->prediction + at;
        void *d = work->d + at;
        work->losses[n] = work->dtype == FASTRNN_F32
                              ? work->isa->f32->softmax_cross_entropy(work->C, z, work->targets[n], work->scale, d)
                              : work->isa->f64->softmax_cross_entropy(work->C, z, work->targets[n], work->scale, d);
    }
}

static void squared_error_share(const void *context, const fastrnn_member *me)
{
    const rows *work = context;
    const fastrnn_range share = fastrnn_share(work->N, me);
    for (ptrdiff_t n = share.from; n < share.to; n++) {
        const ptrdiff_t first = n * work->C, count = work->all - first < work->C ? work->all - first : work->C;
        const size_t at = (size_t)first * fastrnn_element_bytes(work->dtype);
        const void *p = work->prediction + at, *t = work->target + at;
        void *d = work->d + at;
        work->losses[n] = work->dtype == FASTRNN_F32 ? work->isa->f32->squared_error(count, p, t, work->scale, d)
                                                     : work->isa->f64->squared_error(count, p, t, work->scale, d);
    }
}

/* Runs the job, of about `ns` nanoseconds on one thread, and returns the sum of the losses. */
static double run(fastrnn_job *job, const rows *work, double ns, int threads)
{
    const double fewest = 50e3;
    fastrnn_team team;
    threads = ns < fewest ? 1 : fastrnn_team_threads(threads);
    fastrnn_team_open(&team, threads, ns, NULL);
    fastrnn_team_phase(&team, threads, 10 * ns, job, work, 0);
    double sum = 0; /* in the team's floating-point mode */
    for (ptrdiff_t n = 0; n < work->N; n++) sum += work->losses[n];
    fastrnn_team_close(&team);
    return sum;
}

double fastrnn_softmax_cross_entropy(const fastrnn_isa *isa, fastrnn_dtype dtype, ptrdiff_t N, ptrdiff_t C,
                                     const void *logits, const int64_t *targets, double scale, void *d, double *losses,
                                     int threads)
{
    const rows work = {.isa = isa,
                       .dtype = dtype,
                       .N = N,
                       .C = C,
                       .prediction = logits,
                       .targets = targets,
                       .scale = scale,
                       .d = d,
                       .losses = losses};
    const double ns_of_a_row = 30, ns_of_a_number = 1;
    return run(cross_entropy_share, &work, (double)N * (ns_of_a_row + ns_of_a_number * (double)C), threads);
}

double fastrnn_squared_error(const fastrnn_isa *isa, fastrnn_dtype dtype, ptrdiff_t n, const void *prediction,
                             const void *target, double scale, void *d, double *sums, int threads)
{
    const ptrdiff_t block = FASTRNN_SQUARES_BLOCK;
    const rows work = {.isa = isa,
                       .dtype = dtype,
                       .N = n / block + (n % block != 0),
                       .C = block,
                       .all = n,
                       .prediction = prediction,
                       .target = target,
                       .scale = scale,
                       .d = d,
                       .losses = sums};
    return run(squared_error_share, &work, 0.5 * (double)n, threads);
}
