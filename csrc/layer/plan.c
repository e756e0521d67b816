#include "layer/plan.h"

#include "layer/packed.h"
#include "runtime/team.h"

const fastrnn_machine fastrnn_usual_machine = {
    .start = 1000,
    .phase = 400,
    .flops = 10,
    .step = 60,
    .cell = 6,
    .rounding = 10,
    .transfer = 8,
    .caution = 1.1,
    .memory = {{40e3, 200}, {1e6, 100}, {4e6, 50}, {0, 20}},
    .in_caches = 16e6,
};

/* FEWEST_ROWS: rows of a step for each thread, if threads share the batch. PRODUCTS: phases of a call that shares only
 * products. */
enum { FEWEST_ROWS = 4, PRODUCTS = 3 };

/* A phase of a step costs more than an empty one: the members fetch the context and h_{t-1} from each other's caches,
 * and the slower one is waited for. Measured as 2.5 to 3 times on a Xeon (Sapphire Rapids). */
fastrnn_machine fastrnn_machine_with(double empty_phase)
{
    fastrnn_machine machine = fastrnn_usual_machine;
    if (empty_phase > 0) machine.phase = 2.7 * empty_phase;
    return machine;
}

double fastrnn_operations(const fastrnn_shape *s)
{
    return 2.0 * s->gates * (double)s->H * (double)s->rows * (double)(s->I + s->P);
}

/* The largest share of one of `members`, if n hidden units are shared in blocks. */
static ptrdiff_t largest_share(ptrdiff_t n, ptrdiff_t block, int members)
{
    const ptrdiff_t share = fastrnn_panels(fastrnn_panels(n, block), members) * block;
    return share < n ? share : n;
}

static double bandwidth(const fastrnn_machine *machine, double bytes)
{
    int level = 0;
    while (level < 3 && bytes >= machine->memory[level].below) level++;
    return machine->memory[level].bandwidth;
}

/* The estimated time in ns for n threads. Sharing hidden units keeps a slice of weight_hh in each core's caches and
 * costs a phase of the team for each part of a step. Sharing the batch needs few phases, but every core reads all
 * weights in every step, weight_ih too, because the core that projects a row also uses it: it pays off from some rows
 * on, but if all cores read the same weights from memory, their products wait for it. Sharing only the products of many
 * steps needs the fewest phases, but the caller fetches their results. */
static double estimate(const fastrnn_shape *s, const fastrnn_machine *machine, ptrdiff_t B, int n,
                       fastrnn_sharing sharing)
{
    const int by_rows = sharing == FASTRNN_SHARE_ROWS, by_units = sharing == FASTRNN_SHARE_UNITS;
    const int width = s->width / 2; /* of a vector */
    const double lanes = width, speed = machine->flops * lanes * s->rate, gates = s->gates;
    const double rows = by_rows ? (double)fastrnn_panels(B, n) : (double)B;
    const ptrdiff_t units = by_units ? largest_share(s->H, s->block, n) : s->H;
    const double vectors = (double)fastrnn_panels(units, width);                    /* of units, in the step */
    const double columns = lanes * (double)fastrnn_panels(s->gates * units, width); /* of the input projection */
    const double weights = gates * (double)units * (by_rows ? s->P + s->I : s->P);  /* numbers read each step */
    const double bytes = weights * s->weight, speed_of_reading = bandwidth(machine, bytes);
    const double recurrent = 2 * rows * gates * vectors * lanes * s->P / speed;
    double input = 2 * rows * columns * s->I / speed;
    const double product = by_rows ? recurrent + input : recurrent, reading = bytes / speed_of_reading;
    const double longer = product > reading ? product : reading;
    const int waits = n > 1 && by_rows && bytes > machine->in_caches;
    double step = machine->step + (waits ? product + reading : longer) + machine->cell * gates * rows * vectors;
    step += rows * s->rounded * machine->rounding;
    if (n > 1 && by_units) step += s->parts * machine->phase + (double)B * s->P * s->element / machine->transfer;
    const double once = gates * (double)units * s->I * s->weight / speed_of_reading / s->T; /* weight_ih */
    if (sharing == FASTRNN_SHARE_PRODUCTS) input /= n;
    if (once > input) input = once;
    if (by_rows) input = 0;
    if (sharing == FASTRNN_SHARE_PRODUCTS)
        input += PRODUCTS * machine->phase / s->T + rows * gates * s->H * s->element * (n - 1) / n / machine->transfer;
    const double sums = 2 * B * s->sums * gates * s->H / (machine->flops * lanes) / n;
    const double time = s->T * (step + input + sums) + (n > 1 ? machine->start : 0);
    return n > 1 ? machine->caution * time : time;
}

/* Whether the work is enough for n members. Products of many steps are shared by rows if there are enough, else by
 * blocks of hidden units. */
static int can_share(const fastrnn_shape *s, ptrdiff_t B, int n, fastrnn_sharing sharing)
{
    const ptrdiff_t blocks = fastrnn_panels(s->H, s->block);
    if (sharing == FASTRNN_SHARE_UNITS) return n <= blocks;
    if (sharing == FASTRNN_SHARE_ROWS) return n <= B / FEWEST_ROWS;
    return n > 1 && (n <= blocks || fastrnn_shares_rows(s->rows, n));
}

fastrnn_plan fastrnn_plan_call(const fastrnn_shape *s, const fastrnn_machine *machine, int threads)
{
    const ptrdiff_t B = s->T > 0 ? fastrnn_panels(s->rows, s->T) : 0; /* the average number of sequences of a step */
    fastrnn_plan best = {.threads = 1};
    if (B == 0) return best;
    best.time = best.alone = estimate(s, machine, B, 1, FASTRNN_SHARE_UNITS);
    for (int n = 2; n <= threads; n++)
        for (fastrnn_sharing sharing = FASTRNN_SHARE_UNITS; sharing <= FASTRNN_SHARE_PRODUCTS; sharing++) {
            if (!can_share(s, B, n, sharing)) continue;
            const double time = estimate(s, machine, B, n, sharing);
            if (time < best.time) best = (fastrnn_plan){n, sharing, time, best.alone};
        }
    return best;
}

int fastrnn_pieces(double time, double piece, ptrdiff_t n)
{
    double pieces = time / piece;
    if (pieces > FASTRNN_MOST_ITEMS) pieces = FASTRNN_MOST_ITEMS;
    if (pieces > (double)n) pieces = (double)n;
    return pieces < 1 ? 1 : (int)pieces;
}

int fastrnn_phases(double operations, ptrdiff_t most)
{
    const double of_a_phase = 1e7, phases = operations / of_a_phase;
    if (phases > (double)most) return most < 1 ? 1 : (int)most;
    return phases < 1 ? 1 : (int)phases;
}

fastrnn_arrangement fastrnn_arrange(fastrnn_plan *plans, int count, int stacked, ptrdiff_t T, int threads)
{
    const double own_piece = 20000, stacked_piece = 15000; /* ns */
    double in_turn = 0, longest = 0, alone = 0;
    int most = 1;
    for (int k = 0; k < count; k++) {
        in_turn += plans[k].time;
        alone += plans[k].alone;
        if (plans[k].alone > longest) longest = plans[k].alone;
        if (plans[k].threads > most) most = plans[k].threads;
    }
    const int members = threads < count ? threads : count;
    if (members > 1) {
        const int items = fastrnn_pieces(longest, stacked ? stacked_piece : own_piece, T);
        const double waiting = stacked ? (double)(items + members - 1) / items : 1;
        if (longest * waiting * (double)fastrnn_panels(count, members) < in_turn) {
            for (int k = 0; k < count; k++)
                plans[k] = (fastrnn_plan){1, FASTRNN_SHARE_UNITS, plans[k].alone, plans[k].alone};
            return (fastrnn_arrangement){1, items, members, alone};
        }
    }
    return (fastrnn_arrangement){0, 1, most, alone};
}
