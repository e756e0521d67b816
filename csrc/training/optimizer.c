/* Steps of optimizers: one pass over memory, shared by a team. */
#include "fastrnn.h"

#include "kernels/kernels.h"
#include "runtime/team.h"

/* One pass over n numbers, in blocks. */
typedef struct {
    const fastrnn_isa *isa;
    fastrnn_dtype dtype;
    ptrdiff_t n;
    const void *options;
    char *arrays[4];
    double factor;
    double *sums; /* of each block */
} pass;

enum { BLOCK = FASTRNN_SQUARES_BLOCK };

static ptrdiff_t blocks_of(ptrdiff_t n) { return n / BLOCK + (n % BLOCK != 0); }

/* The numbers of a member's share of the blocks. */
static fastrnn_range numbers_of(const pass *work, fastrnn_range blocks)
{
    const ptrdiff_t to = blocks.to * BLOCK;
    return (fastrnn_range){blocks.from * BLOCK, to < work->n ? to : work->n};
}

/* Array i from number `from` on; NULL for an absent one. */
static void *at(const pass *work, int i, ptrdiff_t from)
{
    return work->arrays[i] ? work->arrays[i] + (size_t)from * fastrnn_element_bytes(work->dtype) : NULL;
}

static void sgd_share(const void *context, const fastrnn_member *me)
{
    const pass *work = context;
    const fastrnn_range part = numbers_of(work, fastrnn_share(blocks_of(work->n), me));
    void *p = at(work, 0, part.from), *g = at(work, 1, part.from), *b = at(work, 2, part.from);
    if (work->dtype == FASTRNN_F32)
        work->isa->f32->sgd(work->options, part.to - part.from, p, g, b);
    else
        work->isa->f64->sgd(work->options, part.to - part.from, p, g, b);
}

static void adam_share(const void *context, const fastrnn_member *me)
{
    const pass *work = context;
    const fastrnn_range part = numbers_of(work, fastrnn_share(blocks_of(work->n), me));
    void *p = at(work, 0, part.from), *g = at(work, 1, part.from);
    void *m = at(work, 2, part.from), *v = at(work, 3, part.from);
    if (work->dtype == FASTRNN_F32)
        work->isa->f32->adam(work->options, part.to - part.from, p, g, m, v);
    else
        work->isa->f64->adam(work->options, part.to - part.from, p, g, m, v);
}

static void scale_share(const void *context, const fastrnn_member *me)
{
    const pass *work = context;
    const fastrnn_range part = numbers_of(work, fastrnn_share(blocks_of(work->n), me));
    if (work->dtype == FASTRNN_F32)
        work->isa->f32->scale(part.to - part.from, work->factor, at(work, 0, part.from));
    else
        work->isa->f64->scale(part.to - part.from, work->factor, at(work, 0, part.from));
}

static void sum_share(const void *context, const fastrnn_member *me)
{
    const pass *work = context;
    const fastrnn_range blocks = fastrnn_share(blocks_of(work->n), me);
    for (ptrdiff_t k = blocks.from; k < blocks.to; k++) {
        const fastrnn_range part = numbers_of(work, (fastrnn_range){k, k + 1});
        const void *a = at(work, 0, part.from);
        work->sums[k] = work->dtype == FASTRNN_F32 ? work->isa->f32->sum_squares(part.to - part.from, a)
                                                   : work->isa->f64->sum_squares(part.to - part.from, a);
    }
}

/* Opens a team for one pass over `streams` arrays, and runs the job. It is not cancelled: half a step would be worse
 * than a late one. */
static void run(fastrnn_team *team, fastrnn_job *job, const pass *work, int streams, int threads)
{
    /* A team pays off from some tens of microseconds on. */
    const double bytes = (double)work->n * (double)fastrnn_element_bytes(work->dtype) * streams;
    const double fewest = 1e6, ns = 0.06; /* for each byte */
    threads = bytes < fewest ? 1 : fastrnn_team_threads(threads);
    fastrnn_team_open(team, threads, ns * bytes, NULL);
    fastrnn_team_phase(team, threads, bytes, job, work, 0);
}

static void pass_over(fastrnn_job *job, const pass *work, int streams, int threads)
{
    fastrnn_team team;
    run(&team, job, work, streams, threads);
    fastrnn_team_close(&team);
}

void fastrnn_sgd_step(const fastrnn_isa *isa, fastrnn_dtype dtype, const fastrnn_sgd *options, ptrdiff_t n, void *p,
                      const void *g, void *buffer, int threads)
{
    const pass work = {isa, dtype, n, options, {p, (char *)g, buffer, NULL}, 0, NULL};
    pass_over(sgd_share, &work, buffer ? 5 : 3, threads);
}

void fastrnn_adam_step(const fastrnn_isa *isa, fastrnn_dtype dtype, const fastrnn_adam *options, ptrdiff_t n, void *p,
                       const void *g, void *m, void *v, int threads)
{
    const pass work = {isa, dtype, n, options, {p, (char *)g, m, v}, 0, NULL};
    pass_over(adam_share, &work, 7, threads);
}

void fastrnn_scale(const fastrnn_isa *isa, fastrnn_dtype dtype, ptrdiff_t n, double factor, void *a, int threads)
{
    const pass work = {isa, dtype, n, NULL, {a, NULL, NULL, NULL}, factor, NULL};
    pass_over(scale_share, &work, 2, threads);
}

double fastrnn_sum_squares(const fastrnn_isa *isa, fastrnn_dtype dtype, ptrdiff_t n, const void *a, double *sums,
                           int threads)
{
    const pass work = {isa, dtype, n, NULL, {(char *)a, NULL, NULL, NULL}, 0, sums};
    fastrnn_team team;
    run(&team, sum_share, &work, 1, threads);
    double sum = 0; /* in the team's floating-point mode */
    for (ptrdiff_t k = 0; k < blocks_of(n); k++) sum += sums[k];
    fastrnn_team_close(&team);
    return sum;
}
