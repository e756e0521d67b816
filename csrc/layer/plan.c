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

/* FEWEST_ROWS: rows of a step for each thread, if threads share the batch; ROWS_OF_SMALL: if the weights are at most
 * SMALL numbers, which each core keeps near. PRODUCTS: phases of a call that shares only products. BORDERS: the cost,
 * in phases, of the cache lines that two members with neighbouring rows both write in a step, if rows do not end with a
 * cache line of LINE bytes. MOST_READING: the least time of a phase side by side, in times to read weight_ih. */
enum { FEWEST_ROWS = 4, ROWS_OF_SMALL = 2, SMALL = 50000, PRODUCTS = 3, MOST_READING = 4, LINE = 64 };
static const double BORDERS = 0.6;

/* A phase of a step costs more than an empty one: the members fetch the context and h_{t-1} from each other's caches,
 * and the slower one is waited for. Measured as 2.5 to 3 times on a Xeon (Sapphire Rapids). Cores that are far apart
 * fetch other data more slowly, too. */
fastrnn_machine fastrnn_machine_with(double empty_phase)
{
    fastrnn_machine machine = fastrnn_usual_machine;
    if (empty_phase > 0) machine.phase = 2.7 * empty_phase;
    if (machine.phase > fastrnn_usual_machine.phase) machine.transfer *= fastrnn_usual_machine.phase / machine.phase;
    return machine;
}

double fastrnn_operations(const fastrnn_shape *s)
{
    return 2.0 * s->gates * (double)s->H * (double)s->rows * (double)(s->I + s->P);
}

/* The largest share of one of `members`, if n hidden units are shared in blocks. */
static ptrdiff_t largest_share(ptrdiff_t n, ptrdiff_t block, int members)
{
    ptrdiff_t most = 0;
    for (int k = 0; k < members; k++) {
        const fastrnn_range part = fastrnn_part(fastrnn_panels(n, block), k, members);
        const ptrdiff_t units = (part.to * block < n ? part.to * block : n) - part.from * block;
        if (units > most) most = units;
    }
    return most;
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
 * steps needs the fewest phases, but the caller fetches their results. Products compute whole vectors. Backward, a step
 * of which members share hidden units reads the gradients of all gates, not h; if they share sequences, the sums over
 * rows read them. */
static double estimate(const fastrnn_shape *s, const fastrnn_machine *machine, ptrdiff_t B, int n,
                       fastrnn_sharing sharing)
{
    const int by_units = n > 1 && sharing == FASTRNN_SHARE_UNITS, by_rows = n > 1 && sharing == FASTRNN_SHARE_ROWS;
    const int by_products = n > 1 && sharing == FASTRNN_SHARE_PRODUCTS, backward = s->sums > 0, lanes = s->width / 2;
    const double gates = s->gates, speed = machine->flops * lanes, others = (double)(n - 1) / n;
    const ptrdiff_t rows = by_rows ? fastrnn_panels(B, n) : B;
    const ptrdiff_t units = by_units ? largest_share(s->H, s->block, n) : s->H;
    const double vectors = (double)rows * fastrnn_panels(units, lanes);
    const double gates_bytes = (double)B * gates * s->H * s->element, h_bytes = (double)B * s->P * s->element;

    double product = 2 * vectors * lanes * gates * s->P / (speed * s->rate);
    double input = 2 * (double)rows * fastrnn_panels(s->gates * units, lanes) * lanes * s->I / (speed * s->rate);
    double weights = gates * units * s->P * s->weight;
    const double weights_ih = gates * units * s->I * s->weight;
    if (by_rows) {
        product += input;
        weights += weights_ih;
        input = 0;
    } else if (by_products)
        input /= n;
    const double reading = weights / bandwidth(machine, weights);
    const double reading_ih = by_rows ? 0 : weights_ih / bandwidth(machine, weights) / s->T;
    if (input < reading_ih) input = reading_ih;

    const int waits = by_rows && weights > machine->in_caches;
    double step = waits ? product + reading : product > reading ? product : reading;
    step += machine->step + machine->cell * gates * vectors + machine->rounding * rows * s->rounded;
    if (by_units) step += s->parts * machine->phase + (backward ? gates_bytes : h_bytes) / machine->transfer;
    if (by_rows && (backward || s->P * s->element % LINE)) step += BORDERS * machine->phase;
    if (by_rows && backward) step += others * gates_bytes / machine->transfer;
    if (by_products) step += PRODUCTS * machine->phase / s->T + others * gates_bytes / machine->transfer;
    const double sums = 2 * (double)B * s->sums * gates * s->H / speed / n;
    const double time = s->T * (step + input + sums) + (n > 1 ? machine->start : 0);
    return n > 1 ? machine->caution * time : time;
}

/* Whether the work is enough for n members. Products of many steps are shared by rows if there are enough, else by
 * blocks of hidden units. */
static int can_share(const fastrnn_shape *s, ptrdiff_t B, int n, fastrnn_sharing sharing)
{
    const ptrdiff_t blocks = fastrnn_panels(s->H, s->block);
    if (sharing == FASTRNN_SHARE_UNITS) return n <= blocks;
    const int is_small = (double)s->gates * (double)s->H * (double)(s->I + s->P) <= SMALL;
    if (sharing == FASTRNN_SHARE_ROWS) return n <= B / (is_small ? ROWS_OF_SMALL : FEWEST_ROWS);
    return n > 1 && (n <= blocks || fastrnn_shares_rows(s->rows, n));
}

fastrnn_plan fastrnn_plan_call(const fastrnn_shape *s, const fastrnn_machine *machine, int threads)
{
    const ptrdiff_t B = s->T > 0 ? fastrnn_panels(s->rows, s->T) : 0; /* the average number of sequences of a step */
    const double weights_ih = (double)s->gates * s->H * s->I * s->weight;
    fastrnn_plan best = {.threads = 1, .weights = (double)s->gates * s->H * s->P * s->weight};
    best.reading = weights_ih / bandwidth(machine, weights_ih);
    if (B == 0) return best;
    best.time = best.alone = estimate(s, machine, B, 1, FASTRNN_SHARE_UNITS);
    for (int n = 2; n <= threads; n++)
        for (fastrnn_sharing sharing = FASTRNN_SHARE_UNITS; sharing <= FASTRNN_SHARE_PRODUCTS; sharing++) {
            if (!can_share(s, B, n, sharing)) continue;
            const double time = estimate(s, machine, B, n, sharing);
            if (time < best.time) best.threads = n, best.sharing = sharing, best.time = time;
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

/* Side by side, the weights of all calls have to be in the caches at the same time, in turn those of one call; and each
 * phase reads weight_ih again. A stacked call waits for whole phases; the others begin with short ones, which helpers
 * can join. */
fastrnn_arrangement fastrnn_arrange(fastrnn_plan *plans, const fastrnn_machine *machine, int count, int stacked,
                                    ptrdiff_t T, int threads)
{
    const double own_piece = 20000, stacked_piece = 15000; /* ns */
    double in_turn = 0, longest = 0, alone = 0, weights = 0, phase = stacked ? stacked_piece : own_piece;
    int most = 1;
    for (int k = 0; k < count; k++) {
        in_turn += plans[k].time;
        alone += plans[k].alone;
        weights += plans[k].weights;
        if (phase < MOST_READING * plans[k].reading) phase = MOST_READING * plans[k].reading;
        if (plans[k].alone > longest) longest = plans[k].alone;
        if (plans[k].threads > most) most = plans[k].threads;
    }
    const int members = threads < count ? threads : count;
    if (members > 1 && weights <= machine->in_caches) {
        const int phases = fastrnn_pieces(longest, phase, T);
        const int items = stacked ? phases : fastrnn_pieces(longest, own_piece, T);
        const double waiting = stacked ? (double)(items + members - 1) / items : 1;
        if (longest * waiting * (double)fastrnn_panels(count, members) < in_turn) {
            for (int k = 0; k < count; k++)
                plans[k].threads = 1, plans[k].sharing = FASTRNN_SHARE_UNITS, plans[k].time = plans[k].alone;
            return (fastrnn_arrangement){1, items, members, (items + phases - 1) / phases, alone};
        }
    }
    return (fastrnn_arrangement){0, 1, most, 1, alone};
}
