/* Runs every arrangement of a team, for ThreadSanitizer (`make tsan`): no access may race, and several threads must
 * give the bits of one thread, with permanent and with changing helpers, with borrowed ones, and with several callers.
 * Linked with the library's sources, except sequence.c, which is included here, because only its plans show that every
 * arrangement occurs. */
#define _GNU_SOURCE
#include "layer/sequence.c"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct {
    const char *name;
    const char *cell;
    int count, stacked;
    ptrdiff_t T, B, I, H, projection;
    int ragged, peephole, resets;
} example;

static const example examples[] = {
    {"units shared", "lstm", 1, 0, 6, 4, 32, 128, 0, 0, 1, 0},
    {"units shared, projected", "lstm", 1, 0, 6, 4, 32, 128, 48, 0, 1, 1},
    {"units shared, ragged", "gru", 1, 0, 6, 5, 32, 128, 0, 1, 0, 1},
    {"units shared, two parts", "gru_reset_before", 1, 0, 6, 5, 32, 128, 0, 1, 0, 1},
    {"sequences shared", "lstm", 1, 0, 5, 64, 16, 16, 0, 0, 0, 0},
    {"sequences shared, projected", "lstm", 1, 0, 5, 64, 16, 16, 9, 0, 1, 0},
    {"sequences shared, ragged", "rnn_tanh", 1, 0, 6, 96, 32, 32, 0, 1, 0, 1},
    {"sequences shared, two parts", "gru_reset_before", 1, 0, 5, 64, 16, 32, 0, 0, 0, 0},
    {"products shared", "lstm", 1, 0, 40, 1, 200, 16, 0, 0, 1, 0},
    {"products shared, ragged", "gru", 1, 0, 40, 3, 300, 24, 0, 1, 0, 1},
    {"directions", "gru", 2, 0, 20, 4, 48, 48, 0, 0, 0, 0},
    {"directions, ragged", "lstm", 2, 0, 20, 5, 48, 48, 0, 1, 0, 1},
    {"two layers", "lstm", 2, 1, 40, 2, 32, 32, 0, 0, 0, 0},
    {"two layers, ragged", "rnn_relu", 2, 1, 40, 5, 64, 64, 0, 1, 0, 0},
    {"two layers, projected", "lstm", 2, 1, 40, 2, 40, 40, 12, 0, 1, 1},
    {"three layers", "gru", 3, 1, 12, 8, 64, 64, 0, 0, 0, 0},
    {"five layers, ragged", "lstm", 5, 1, 12, 12, 64, 64, 0, 1, 0, 0},
};
/* Long enough to be asked in. */
static const example interrupted[] = {
    {"interrupted, units shared", "lstm", 1, 0, 30, 16, 128, 128, 0, 0, 0, 0},
    {"interrupted, sequences shared", "gru", 1, 0, 30, 400, 32, 32, 0, 0, 0, 0},
    {"interrupted, directions", "gru", 2, 0, 30, 16, 128, 128, 0, 0, 0, 0},
    {"interrupted, three layers", "lstm", 3, 1, 30, 8, 128, 128, 0, 0, 0, 0},
};
enum {
    EXAMPLES = sizeof examples / sizeof examples[0],
    INTERRUPTED = sizeof interrupted / sizeof interrupted[0],
    MOST_THREADS = 4,
    MOST_STEPS = 40,
    MEMORY = 64 << 20,
};

/* Arrangements: one call whose units, rows or products are shared; calls of one thread; several, of which some are
 * shared. */
enum { UNITS_SHARED, ROWS_SHARED, PRODUCTS_SHARED, ALONE, IN_TURN, SIDE_BY_SIDE, ARRANGEMENTS };

/* Arrays are allocated one after the other: first the inputs, then the outputs. */
typedef struct {
    char *at;
    size_t element;
    unsigned random;
} memory;

static void *take(memory *m, ptrdiff_t a, ptrdiff_t b)
{
    void *array = m->at;
    m->at += ((size_t)(a * b) * m->element + 63) / 64 * 64;
    return array;
}

static void *draw(memory *m, ptrdiff_t a, ptrdiff_t b)
{
    void *array = take(m, a, b);
    for (ptrdiff_t k = 0; k < a * b; k++) {
        m->random = m->random * 1664525u + 1013904223u;
        const double value = (double)(m->random >> 8) / (1 << 24) - 0.5;
        if (m->element == sizeof(float))
            ((float *)array)[k] = (float)value;
        else
            ((double *)array)[k] = value;
    }
    return array;
}

static void check(int holds, const char *what, const example *e, int threads)
{
    if (holds) return;
    fprintf(stderr, "%s, %d threads: %s\n", e->name, threads, what);
    exit(1);
}

static fastrnn_plan plan_of(const steps *s, const fastrnn_packed *packed, int threads)
{
    const fastrnn_shape shape = packed->dtype == FASTRNN_F32 ? shape_of_f32(*s, packed, FASTRNN_FORWARD)
                                                             : shape_of_f64(*s, packed, FASTRNN_FORWARD);
    const fastrnn_machine machine = fastrnn_machine_with(fastrnn_team_empty_phase());
    return fastrnn_plan_call(&shape, &machine, threads);
}

/* Runs forward and backward; their outputs are [*from, *to) of the arena. */
static fastrnn_status run(const example *e, fastrnn_dtype dtype, const fastrnn_isa *isa, int threads,
                          const fastrnn_interruption *interruption, char *arena, char **from, char **to,
                          atomic_int *met)
{
    memory m = {arena, dtype == FASTRNN_F32 ? sizeof(float) : sizeof(double), 1};
    const ptrdiff_t T = e->T, B = e->B, H = e->H, P = e->projection ? e->projection : H;
    const fastrnn_cell cell = fastrnn_find_cell(e->cell);
    const fastrnn_cell_properties properties = fastrnn_cell_at(cell);
    const ptrdiff_t G = properties.gates * H;
    ptrdiff_t offsets[MOST_STEPS + 1] = {0};
    for (ptrdiff_t t = 0; t < T; t++) offsets[t + 1] = offsets[t] + (e->ragged ? B - t * (B - 1) / T : B);
    const ptrdiff_t N = offsets[T];
    uint8_t resets[1024];
    for (ptrdiff_t r = 0; r < N && r < 1024; r++) resets[r] = r % 7 == 3;
    const steps s = {T, B, e->ragged ? offsets : NULL, e->resets ? resets : NULL};
    fastrnn_packed *forward_packed[FASTRNN_MOST_CALLS] = {0}, *backward_packed[FASTRNN_MOST_CALLS] = {0};
    fastrnn_forward_args forward[FASTRNN_MOST_CALLS] = {0};
    fastrnn_backward_args backward[FASTRNN_MOST_CALLS] = {0};
    fastrnn_plan plans[FASTRNN_MOST_CALLS];
    const void *x = draw(&m, N, e->I), *d_output = draw(&m, N, P);
    fastrnn_status status = FASTRNN_OK;

    for (int k = 0; k < e->count && status == FASTRNN_OK; k++) {
        const ptrdiff_t I = k && e->stacked ? P : e->I;
        const fastrnn_weights weights = {
            .cell = cell,
            .I = I,
            .H = H,
            .P = P,
            .weight_ih = draw(&m, G, I),
            .weight_hh = draw(&m, G, P),
            .bias_ih = draw(&m, G, 1),
            .bias_hh = draw(&m, G, 1),
            .weight_hr = e->projection ? draw(&m, P, H) : NULL,
            .peephole = e->peephole ? draw(&m, properties.peepholes, H) : NULL,
        };
        status = fastrnn_pack(isa, dtype, FASTRNN_FORWARD, &weights, interruption, threads, &forward_packed[k]);
        if (status == FASTRNN_OK)
            status = fastrnn_pack(isa, dtype, FASTRNN_BACKWARD, &weights, interruption, threads, &backward_packed[k]);
        for (int n = 0; n < properties.states; n++) forward[k].state_0[n] = draw(&m, B, n ? H : P);
        if (status == FASTRNN_OK) plans[k] = plan_of(&s, forward_packed[k], threads);
    }
    *from = m.at;
    for (int k = 0; k < e->count; k++) {
        fastrnn_forward_args *f = &forward[k];
        f->T = T, f->B = B, f->offsets = s.offsets, f->resets = s.resets, f->packed = forward_packed[k];
        f->x = k && e->stacked ? forward[k - 1].output : x;
        f->output = take(&m, N, P);
        for (int n = 0; n < properties.states; n++) f->state_n[n] = take(&m, B, n ? H : P);
        const size_t bytes = fastrnn_tape_layout(dtype, cell, N, H, e->projection).bytes;
        f->tape = take(&m, 1, (ptrdiff_t)(bytes / m.element));
    }
    for (int j = 0; j < e->count; j++) { /* of a stack, the top first */
        const int k = e->stacked ? e->count - 1 - j : j;
        const fastrnn_forward_args *f = &forward[k];
        const ptrdiff_t I = k && e->stacked ? P : e->I;
        backward[j] = (fastrnn_backward_args){
            .T = T,
            .B = B,
            .offsets = s.offsets,
            .resets = s.resets,
            .packed = backward_packed[k],
            .x = f->x,
            .tape = f->tape,
            .d_output = j && e->stacked ? backward[j - 1].d_x : d_output,
            .d_x = take(&m, N, I),
            .d_weight_ih = take(&m, G, I),
            .d_weight_hh = take(&m, G, P),
            .d_bias_ih = take(&m, G, 1),
            .d_bias_hh = take(&m, G, 1),
            .d_weight_hr = e->projection ? take(&m, P, H) : NULL,
            .d_peephole = e->peephole ? take(&m, properties.peepholes, H) : NULL,
        };
        for (int n = 0; n < properties.states; n++) {
            backward[j].state_0[n] = f->state_0[n];
            backward[j].d_state_0[n] = take(&m, B, n ? H : P);
        }
    }
    *to = m.at;
    check(m.at <= arena + MEMORY, "more memory is needed", e, threads);
    memset(*from, 0xff, (size_t)(*to - *from)); /* clears the outputs of the previous run */

    fastrnn_workspace *workspace = fastrnn_workspace_create();
    if (status == FASTRNN_OK) {
        const fastrnn_arrangement how =
            fastrnn_arrange(plans, &fastrnn_usual_machine, e->count, e->stacked, T, threads);
        met[how.side_by_side ? SIDE_BY_SIDE : how.members < 2 ? ALONE : e->count > 1 ? IN_TURN : plans->sharing]++;
        status = fastrnn_forward(forward, e->count, e->stacked, workspace, interruption, threads);
    }
    if (status == FASTRNN_OK)
        status = fastrnn_backward(backward, e->count, e->stacked, workspace, interruption, threads);
    fastrnn_workspace_free(workspace);
    for (int k = 0; k < e->count; k++) {
        fastrnn_packed_free(forward_packed[k]);
        fastrnn_packed_free(backward_packed[k]);
    }
    return status;
}

/* Returns 1 after a number of polls. */
static int after(void *times) { return --*(int *)times < 0; }

/* One caller of several, with its own memory: every example, or every second from `first` on; with one thread and then
 * with `fewest` to `most`. */
typedef struct {
    const fastrnn_isa *isa;
    fastrnn_dtype dtype;
    atomic_int *met;
    int first, step, fewest, most, borrows;
    atomic_int *ended;
    pthread_t thread;
} caller;

static void *call_all(void *argument)
{
    const caller *me = argument;
    fastrnn_borrow_threads(me->borrows);
    char *arena = malloc(MEMORY), *expected = malloc(MEMORY), *from, *to;
    if (!arena || !expected) exit(1);
    for (const example *e = examples + me->first; e < examples + EXAMPLES; e += me->step)
        for (int threads = 1; threads <= me->most; threads = threads == 1 ? me->fewest : threads + 1) {
            const fastrnn_status status = run(e, me->dtype, me->isa, threads, NULL, arena, &from, &to, me->met);
            check(status == FASTRNN_OK, "failed", e, threads);
            if (threads == 1) memcpy(expected, from, (size_t)(to - from));
            check(memcmp(expected, from, (size_t)(to - from)) == 0, "other bits than with one thread", e, threads);
        }
    free(expected);
    free(arena);
    if (me->ended) ++*me->ended;
    fastrnn_borrow_threads(0);
    return NULL;
}

/* A pool of threads in the manner of OpenMP's: they spin between regions, and a region ends when all have run. */
enum { LENT = 2 };
static struct {
    atomic_int region, left;
    void (*job)(void *);
    void *context;
} lent;

static void *run_regions(void *nothing)
{
    for (int region = 0;;) {
        while (atomic_load(&lent.region) == region) sched_yield();
        region = atomic_load(&lent.region);
        lent.job(lent.context);
        atomic_fetch_sub(&lent.left, 1);
    }
    return nothing;
}
static void begin_region(void (*job)(void *), void *context, unsigned threads)
{
    (void)threads;
    lent.job = job;
    lent.context = context;
    atomic_store(&lent.left, LENT);
    atomic_fetch_add(&lent.region, 1);
}
static void end_region(void)
{
    while (atomic_load(&lent.left)) sched_yield();
}
static int most_threads(void) { return LENT + 1; }

static void lend(void)
{
    const fastrnn_lender lender = {begin_region, end_region, most_threads};
    for (int k = 0; k < LENT; k++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, run_regions, NULL)) exit(1);
        pthread_detach(thread);
    }
    fastrnn_set_lender(&lender);
}

/* Callers start and end while the policy changes. */
static void call_at_once(const fastrnn_isa *isa, fastrnn_dtype dtype, atomic_int *met)
{
    enum { CALLERS = 8 };
    const struct timespec pause = {0, 500000};
    caller callers[CALLERS];
    for (int wave = 0; wave < 2; wave++) {
        atomic_int ended = 0;
        for (int k = 0; k < CALLERS; k++) {
            const int threads = 2 + k % 3;
            callers[k] = (caller){isa, dtype, met, (k + wave) % 2, 2, threads, threads, k % 3 > 0, &ended, 0};
            if (pthread_create(&callers[k].thread, NULL, call_all, &callers[k])) exit(1);
        }
        for (int k = 0; ended < CALLERS; k++) {
            fastrnn_team_policy(k % 3 == 2 ? FASTRNN_ADAPTIVE : FASTRNN_ERRATIC);
            nanosleep(&pause, NULL);
        }
        for (int k = 0; k < CALLERS; k++) pthread_join(callers[k].thread, NULL);
    }
}

static int interrupt_all(const caller *me)
{
    char *arena = malloc(MEMORY), *from, *to;
    int ended = 0;
    if (!arena) exit(1);
    for (const example *e = interrupted; e < interrupted + INTERRUPTED; e++)
        for (int times = 0; times < 2; times++) {
            int left = times;
            const fastrnn_interruption interruption = {after, &left};
            ended += run(e, me->dtype, me->isa, 2 + 2 * times, &interruption, arena, &from, &to, me->met) ==
                     FASTRNN_INTERRUPTED;
        }
    free(arena);
    return ended;
}

/* The argument: an instruction set by name, which has to be supported. Default: generic, because ThreadSanitizer sees
 * nothing of the others' vectors. */
int main(int argc, char **argv)
{
    const fastrnn_isa *isa = fastrnn_isa_at(0);
    for (int k = 0; argc > 1 && strcmp(fastrnn_isa_name(isa), argv[1]) != 0; k++)
        if (!(isa = fastrnn_isa_at(k))) return 2;
    for (fastrnn_dtype dtype = FASTRNN_F32; dtype <= FASTRNN_F64; dtype++) {
        atomic_int met[ARRANGEMENTS] = {0};
        int ended = 0, all = 1;
        const caller alone = {.isa = isa, .dtype = dtype, .met = met, .step = 1, .fewest = 2, .most = MOST_THREADS};
        for (fastrnn_policy policy = FASTRNN_ADAPTIVE; policy <= FASTRNN_ERRATIC; policy++) {
            fastrnn_team_policy(policy);
            call_all((void *)&alone);
            ended += interrupt_all(&alone);
        }
        if (dtype == FASTRNN_F32) lend();
        caller borrower = alone;
        borrower.borrows = 1;
        call_all(&borrower);
        call_at_once(isa, dtype, met);
        printf("%s: alone %d, units shared %d, rows shared %d, products shared %d, in turn %d, side by side %d; "
               "%d interrupted\n",
               dtype == FASTRNN_F32 ? "float32" : "float64", met[ALONE], met[UNITS_SHARED], met[ROWS_SHARED],
               met[PRODUCTS_SHARED], met[IN_TURN], met[SIDE_BY_SIDE], ended);
        for (int k = 0; k < ARRANGEMENTS; k++) all &= met[k] > 0;
        all &= fastrnn_borrowed_shares() > 0;
        if (!all || (argc < 2 && !ended)) {
            fputs("not all that is to be seen has happened: the examples need other sizes\n", stderr);
            return 1;
        }
    }
    return 0;
}
