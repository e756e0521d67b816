/* One step of any cell: its recurrent product, then the cell's functions on vectors of hidden units. A cell is one file
 * without #include: forward and backward functions on a vector of hidden units of one sequence, and a specification,
 * which DEFINE_CELL completes. */

#include "kernels/units.inc.h"

INLINE vec NAME(begin_sum)(sum_start start, const real *sum, int lanes)
{
    return start == SUM_ON ? NAME(load_lanes)(sum, lanes) : v_set1(0);
}
INLINE void NAME(end_sum)(sum_start start, real *sum, vec s, int lanes)
{
    NAME(store_lanes)(sum, start == SUM_ADDED ? v_add(NAME(load_lanes)(sum, lanes), s) : s, lanes);
}

/* The number of blocks whose product is computed before the cell's functions run on them. Their sums take a few
 * kilobytes, and at least four panels, which a tile of a single row needs. */
INLINE ptrdiff_t NAME(blocks_at_a_time)(const int columns, ptrdiff_t rows)
{
    enum { BYTES = 16 * 1024, FEWEST = 4 * NR };
    const ptrdiff_t fit = BYTES / (ptrdiff_t)sizeof(real) / (rows < 1 ? 1 : rows);
    return ((fit < FEWEST ? FEWEST : fit) + columns - 1) / columns;
}

/* A cell's functions run on whole vectors of whole blocks in a loop without options; on other vectors, and with
 * options, in a general one. end_of_whole: the end of the former among units [begin, end). */
INLINE ptrdiff_t NAME(end_of_whole)(const int block, const fastrnn_options *options, ptrdiff_t H, ptrdiff_t begin,
                                    ptrdiff_t end)
{
    const ptrdiff_t whole = options ? begin : fastrnn_first_of_block(block, H);
    return whole < begin ? begin : whole < end ? whole : end;
}

/* The arrays of a step at hidden unit j of row r. gates_0, gates_1: the gates of each part. */
INLINE NAME(units) NAME(units_at)(const fastrnn_vectors vectors, const NAME(step) * s, const int gates_0,
                                  const int gates_1, const int block, ptrdiff_t r, ptrdiff_t j)
{
    const ptrdiff_t H = s->H, G = (gates_0 + gates_1) * H, at = r * G + fastrnn_gate_column(gates_0, block, j);
    NAME(units)
    u = {.H = H,
         .gate_stride = vectors == ANY_VECTORS ? fastrnn_gate_stride(block, H, j) : block,
         .options = vectors == ANY_VECTORS ? s->options : NULL,
         .lanes = vectors == ANY_VECTORS && H - j < VL ? (int)(H - j) : VL,
         .keep = s->keep};
    u.gates = s->gates + at;
    u.gates_1 = gates_1 > 0 ? s->gates + r * G + gates_0 * H + fastrnn_gate_column(gates_1, block, j) : NULL;
    u.recurrent = s->recurrent ? s->recurrent + at : NULL;
    u.peephole = s->peephole ? s->peephole + j : NULL;
    u.h_prev = s->h_prev + r * s->h_prev_row + j;
    UNROLL for (int n = 1; n < FASTRNN_MOST_STATES; n++)
    {
        u.state_prev[n] = s->state_prev[n] ? s->state_prev[n] + r * H + j : NULL;
        u.state[n] = s->state[n] ? s->state[n] + r * H + j : NULL;
    }
    u.gated = s->gated ? s->gated + r * s->gated_row + j : NULL;
    u.kept_h = s->kept_h ? s->kept_h + r * H + j : NULL;
    u.intermediate = s->intermediate ? s->intermediate + r * H + j : NULL;
    u.h = s->h + r * s->h_row + j;
    u.h_next = s->h_next ? s->h_next + r * s->h_next_row + j : NULL;
    return u;
}

/* One or two functions of a cell on hidden units [begin, end) of some rows. The second function depends on results of
 * the first, whose latency would stall the processor, so it has a pass of its own. */
INLINE void NAME(units_forward)(const fastrnn_vectors vectors, const NAME(step) * s, const int gates_0,
                                const int gates_1, const int block, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t begin,
                                ptrdiff_t end, void (*const first)(const NAME(units) *),
                                void (*const second)(const NAME(units) *))
{
    const NAME(step) step = *s; /* a copy, which stores through its pointers cannot change */
    for (int pass = first ? 1 : 2; pass <= 2; pass++)
        for (ptrdiff_t r = r0; r < r1; r++)
            for (ptrdiff_t j = begin; j < end; j += VL) {
                const NAME(units) u = NAME(units_at)(vectors, &step, gates_0, gates_1, block, r, j);
                if (pass == 1)
                    first(&u);
                else
                    second(&u);
            }
}

/* One part of a step forward: the product, then the cell's functions: `whole` on whole vectors, `any` on others. gates:
 * of this part; before: of the parts before this one; all_gates: of both parts. */
typedef void NAME(some_units)(const NAME(step) *, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t begin, ptrdiff_t end);
INLINE void NAME(step_forward)(const NAME(step) * s, const int part, const int gates, const int before,
                               const int all_gates, const int block, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t b0,
                               ptrdiff_t b1, NAME(some_units) *const whole, NAME(some_units) *const any)
{
    const ptrdiff_t H = s->H, G = all_gates * H, step = NAME(blocks_at_a_time)(gates * block, r1 - r0);
    real *sums = (s->recurrent ? s->recurrent : s->gates) + before * H;
    const real *a = s->operand[part];
    const ptrdiff_t a_row = s->operand_row[part];
    for (ptrdiff_t b = b0, next; b < b1; b = next) {
        next = b1 - b < step ? b1 : b + step;
        NAME(forward_product)(r1 - r0, &s->weight_hh[part], NAME(panel_of_block)(gates, block, H, b),
                              NAME(panel_of_block)(gates, block, H, next), a + r0 * a_row, a_row,
                              s->recurrent ? s->bias_hh[part] : NULL, sums + r0 * G, G);
        const ptrdiff_t begin = b * block, end = next * block < H ? next * block : H,
                        middle = NAME(end_of_whole)(block, s->options, H, begin, end);
        if (begin < middle) whole(s, part, r0, r1, begin, middle);
        if (middle < end) any(s, part, r0, r1, middle, end);
    }
}

/* The arrays of a step backward at hidden unit j of row r. */
INLINE NAME(units_back) NAME(units_back_at)(const fastrnn_vectors vectors, const NAME(step_back) * s, const int gates_0,
                                            const int all_gates, const int block, ptrdiff_t r, ptrdiff_t j)
{
    const ptrdiff_t H = s->H, G = all_gates * H, k = r * H + j, at = r * G + fastrnn_gate_column(gates_0, block, j),
                    at_1 = r * G + gates_0 * H + fastrnn_gate_column(all_gates - gates_0, block, j);
    NAME(units_back)
    u = {.H = H,
         .gate_stride = vectors == ANY_VECTORS ? fastrnn_gate_stride(block, H, j) : block,
         .options = vectors == ANY_VECTORS ? s->options : NULL,
         .lanes = vectors == ANY_VECTORS && H - j < VL ? (int)(H - j) : VL};
    u.gates = s->gates ? s->gates + at : NULL;
    u.gates_1 = s->gates && all_gates > gates_0 ? s->gates + at_1 : NULL;
    UNROLL for (int n = 1; n < FASTRNN_MOST_STATES; n++)
    {
        u.state[n] = s->state[n] ? s->state[n] + k : NULL;
        u.state_prev[n] = s->state_prev[n] ? s->state_prev[n] + k : NULL;
    }
    UNROLL for (int n = 0; n < FASTRNN_MOST_STATES; n++) { u.d_state[n] = s->d_state[n] ? s->d_state[n] + k : NULL; }
    u.kept_h = s->kept_h ? s->kept_h + k : NULL;
    u.h_prev = s->h_prev ? s->h_prev + k : NULL;
    u.intermediate = s->intermediate ? s->intermediate + k : NULL;
    u.peephole = s->peephole ? s->peephole + j : NULL;
    u.d_output = s->d_output ? s->d_output + k : NULL;
    u.sum = s->sum + k;
    u.d_gates = s->d_gates + r * s->d_gates_row + j;
    u.h = s->h && r < s->product_rows ? s->h + k : NULL;
    return u;
}
INLINE void NAME(units_backward)(const fastrnn_vectors vectors, const NAME(step_back) * s, const int gates_0,
                                 const int all_gates, const int block, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t begin,
                                 ptrdiff_t end, void (*const back)(const NAME(units_back) *))
{
    const NAME(step_back) step = *s; /* a copy, as above */
    for (ptrdiff_t r = r0; r < r1; r++)
        for (ptrdiff_t j = begin; j < end; j += VL) {
            const NAME(units_back) u = NAME(units_back_at)(vectors, &step, gates_0, all_gates, block, r, j);
            back(&u);
        }
}

/* One part of a step backward: some panels of the product at a time, because each panel reads all of a; then the
 * cell's function. */
typedef void NAME(some_units_back)(const NAME(step_back) *, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t begin,
                                   ptrdiff_t end);
static void NAME(step_backward)(const NAME(step_back) * s, int part, int block, ptrdiff_t r0, ptrdiff_t r1,
                                ptrdiff_t p0, ptrdiff_t p1, NAME(some_units_back) * whole, NAME(some_units_back) * any)
{
    enum { PANELS = 4 };
    const ptrdiff_t H = s->H, product_end = r1 < s->product_rows ? r1 : s->product_rows;
    for (ptrdiff_t q = p0, next; q < p1; q = next) {
        next = p1 - q < PANELS ? p1 : q + PANELS;
        if (r0 < product_end)
            NAME(product)(product_end - r0, s->matrix, q, next, s->a + r0 * s->a_row, s->a_row, 1, NAME(zeros),
                          s->sum + r0 * H, H);
        const ptrdiff_t begin = q * NR, end = next * NR < H ? next * NR : H,
                        middle = NAME(end_of_whole)(block, s->options, H, begin, end);
        for (ptrdiff_t r = r0; s->no_product && r < product_end; r++)
            for (ptrdiff_t j = begin; s->no_product[r] && j < end; j++) s->sum[r * H + j] = 0;
        if (begin < middle) whole(s, part, r0, r1, begin, middle);
        if (middle < end) any(s, part, r0, r1, middle, end);
    }
}

/* Defines NAME(cell_CELL), the specification of a cell, from its functions and its further properties, which are
 * designated initializers. The gates of each part and the block are constants, so the loops over hidden units are
 * compiled for each cell, part and kind of vectors, with the cell's functions inlined. FIRST (or NULL) and SECOND
 * follow the product of part 0, THIRD that of part 1; BACK follows the product that gives d_h, BACK_1 that of part 1.
 */
#define DEFINE_UNITS(LOOP, VECTORS, GATES_0, GATES_1, BLOCK, FIRST, SECOND, THIRD, BACK, BACK_1)                       \
    static void NAME(LOOP)(const NAME(step) * s, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t begin, ptrdiff_t end) \
    {                                                                                                                  \
        if ((GATES_1) == 0 || part == 0)                                                                               \
            NAME(units_forward)(VECTORS, s, GATES_0, GATES_1, BLOCK, r0, r1, begin, end, FIRST, SECOND);               \
        else                                                                                                           \
            NAME(units_forward)(VECTORS, s, GATES_0, GATES_1, BLOCK, r0, r1, begin, end, NULL, THIRD);                 \
    }                                                                                                                  \
    static void NAME(LOOP##_back)(const NAME(step_back) * s, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t begin,    \
                                  ptrdiff_t end)                                                                       \
    {                                                                                                                  \
        if ((GATES_1) == 0 || part == 0)                                                                               \
            NAME(units_backward)(VECTORS, s, GATES_0, (GATES_0) + (GATES_1), BLOCK, r0, r1, begin, end, BACK);         \
        else                                                                                                           \
            NAME(units_backward)(VECTORS, s, GATES_0, (GATES_0) + (GATES_1), BLOCK, r0, r1, begin, end, BACK_1);       \
    }
#if WHOLE_LOOPS
#define DEFINE_WHOLE(CELL, ...) DEFINE_UNITS(CELL##_whole, WHOLE_VECTORS, __VA_ARGS__)
#define WHOLE(CELL) CELL##_whole
#define WHOLE_BACK(CELL) CELL##_whole_back
#else
#define DEFINE_WHOLE(CELL, ...)
#define WHOLE(CELL) CELL##_any
#define WHOLE_BACK(CELL) CELL##_any_back
#endif
#define DEFINE_CELL(CELL, GATES_0, GATES_1, BLOCK, FIRST, SECOND, THIRD, BACK, BACK_1, ...)                            \
    DEFINE_WHOLE(CELL, GATES_0, GATES_1, BLOCK, FIRST, SECOND, THIRD, BACK, BACK_1)                                    \
    DEFINE_UNITS(CELL##_any, ANY_VECTORS, GATES_0, GATES_1, BLOCK, FIRST, SECOND, THIRD, BACK, BACK_1)                 \
    static void NAME(CELL##_step)(const NAME(step) * s, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t b0,            \
                                  ptrdiff_t b1)                                                                        \
    {                                                                                                                  \
        const int gates[] = {GATES_0, GATES_1};                                                                        \
        NAME(step_forward)(s, part, gates[part], part ? GATES_0 : 0, (GATES_0) + (GATES_1), BLOCK, r0, r1, b0, b1,     \
                           NAME(WHOLE(CELL)), NAME(CELL##_any));                                                       \
    }                                                                                                                  \
    static void NAME(CELL##_step_back)(const NAME(step_back) * s, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t p0,  \
                                       ptrdiff_t p1)                                                                   \
    {                                                                                                                  \
        NAME(step_backward)(s, part, BLOCK, r0, r1, p0, p1, NAME(WHOLE_BACK(CELL)), NAME(CELL##_any_back));            \
    }                                                                                                                  \
    DEFINE_STREAM(CELL, GATES_0, GATES_1, FIRST, SECOND, THIRD)                                                        \
    static const NAME(cell) NAME(cell_##CELL) = {.name = #CELL,                                                        \
                                                 .gates = (GATES_0) + (GATES_1),                                       \
                                                 .parts = {GATES_0, GATES_1},                                          \
                                                 .block = BLOCK,                                                       \
                                                 .step = NAME(CELL##_step),                                            \
                                                 .step_back = NAME(CELL##_step_back),                                  \
                                                 .stream = NAME(CELL##_stream),                                        \
                                                 __VA_ARGS__};
