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

/* One part of a step forward: the product, then one or two functions. The second function depends on results of the
 * first, whose latency would stall the processor, so it has a pass of its own. gates: the number of gates of this part;
 * all_gates: of both parts; before: of the parts before this one. */
INLINE void NAME(step_forward)(const NAME(step) * s, const int has_options, const int part, const int gates,
                               const int before, const int all_gates, const int block, ptrdiff_t r0, ptrdiff_t r1,
                               ptrdiff_t b0, ptrdiff_t b1, void (*const first)(const NAME(units) *),
                               void (*const second)(const NAME(units) *))
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
        const ptrdiff_t begin = b * block, end = next * block < H ? next * block : H;
        for (int pass = first ? 1 : 2; pass <= 2; pass++)
            for (ptrdiff_t r = r0; r < r1; r++)
                for (ptrdiff_t j = begin; j < end; j += VL) {
                    NAME(units)
                    u = {.H = H,
                         .options = has_options ? s->options : NULL,
                         .lanes = H - j < VL ? (int)(H - j) : VL,
                         .keep = s->keep};
                    const ptrdiff_t gates_0 = part ? before : gates, k = r * H + j;
                    const ptrdiff_t at = r * G + fastrnn_gate_column((int)gates_0, block, H, j, &u.gate_stride);
                    const ptrdiff_t at_1 = r * G + gates_0 * H +
                                           fastrnn_gate_column(all_gates - (int)gates_0, block, H, j, &u.gate_stride);
                    u.gates = s->gates + at;
                    u.gates_1 = s->gates + at_1;
                    u.recurrent = s->recurrent ? s->recurrent + at : NULL;
                    u.recurrent_1 = s->recurrent ? s->recurrent + at_1 : NULL;
                    u.peephole = s->peephole ? s->peephole + j : NULL;
                    u.h_prev = s->h_prev + r * s->h_prev_row + j;
                    UNROLL for (int n = 1; n < FASTRNN_MOST_STATES; n++)
                    {
                        u.state_prev[n] = s->state_prev[n] ? s->state_prev[n] + k : NULL;
                        u.state[n] = s->state[n] ? s->state[n] + k : NULL;
                    }
                    u.gated = s->gated ? s->gated + r * s->gated_row + j : NULL;
                    u.kept_h = s->kept_h ? s->kept_h + k : NULL;
                    u.intermediate = s->intermediate ? s->intermediate + k : NULL;
                    u.h = s->h + r * s->h_row + j;
                    u.h_next = s->h_next ? s->h_next + r * s->h_next_row + j : NULL;
                    if (pass == 1)
                        first(&u);
                    else
                        second(&u);
                }
    }
}

/* One part of a step backward: some panels of the product at a time, because each panel reads all of a; then the
 * cell's function. */
INLINE void NAME(step_backward)(const NAME(step_back) * s, const int has_options, const int gates_0,
                                const int all_gates, const int block, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t p0,
                                ptrdiff_t p1, void (*const back)(const NAME(units_back) *))
{
    enum { PANELS = 4 };
    const ptrdiff_t H = s->H, G = all_gates * H;
    const ptrdiff_t product_end = r1 < s->product_rows ? r1 : s->product_rows;
    for (ptrdiff_t q = p0, next; q < p1; q = next) {
        next = p1 - q < PANELS ? p1 : q + PANELS;
        if (r0 < product_end)
            NAME(product)(product_end - r0, s->matrix, q, next, s->a + r0 * s->a_row, s->a_row, 1, NAME(zeros),
                          s->sum + r0 * H, H);
        const ptrdiff_t end = next * NR < H ? next * NR : H;
        for (ptrdiff_t r = r0; s->no_product && r < product_end; r++)
            for (ptrdiff_t j = q * NR; s->no_product[r] && j < end; j++) s->sum[r * H + j] = 0;
        for (ptrdiff_t r = r0; r < r1; r++)
            for (ptrdiff_t j = q * NR; j < end; j += VL) {
                NAME(units_back)
                u = {.H = H, .options = has_options ? s->options : NULL, .lanes = H - j < VL ? (int)(H - j) : VL};
                const ptrdiff_t k = r * H + j;
                const ptrdiff_t at = r * G + fastrnn_gate_column(gates_0, block, H, j, &u.gate_stride);
                const ptrdiff_t at_1 =
                    r * G + gates_0 * H + fastrnn_gate_column(all_gates - gates_0, block, H, j, &u.gate_stride);
                u.gates = s->gates ? s->gates + at : NULL;
                u.gates_1 = s->gates ? s->gates + at_1 : NULL;
                UNROLL for (int n = 1; n < FASTRNN_MOST_STATES; n++)
                {
                    u.state[n] = s->state[n] ? s->state[n] + k : NULL;
                    u.state_prev[n] = s->state_prev[n] ? s->state_prev[n] + k : NULL;
                }
                UNROLL for (int n = 0; n < FASTRNN_MOST_STATES; n++)
                {
                    u.d_state[n] = s->d_state[n] ? s->d_state[n] + k : NULL;
                }
                u.kept_h = s->kept_h ? s->kept_h + k : NULL;
                u.h_prev = s->h_prev ? s->h_prev + k : NULL;
                u.intermediate = s->intermediate ? s->intermediate + k : NULL;
                u.peephole = s->peephole ? s->peephole + j : NULL;
                u.d_output = s->d_output ? s->d_output + k : NULL;
                u.sum = s->sum + k;
                u.d_gates = s->d_gates + r * s->d_gates_row + j;
                u.h = s->h && r < s->product_rows ? s->h + k : NULL;
                back(&u);
            }
    }
}

/* Defines NAME(cell_CELL), the specification of a cell, from its functions and its further properties, which are
 * designated initializers. The gates of each part, the block and the presence of options are constants: the loops above
 * are compiled for each case with the cell's functions inlined. FIRST (or NULL) and SECOND follow the product of part
 * 0, THIRD that of part 1; BACK follows the product that gives d_h, BACK_1 that of part 1. */
#define FORWARD(OPTIONS, PART, GATES, BEFORE, ALL, BLOCK, FIRST, SECOND)                                               \
    NAME(step_forward)(s, OPTIONS, PART, GATES, BEFORE, ALL, BLOCK, r0, r1, b0, b1, FIRST, SECOND)
#define BACKWARD(OPTIONS, GATES_0, ALL, BLOCK, BACK)                                                                   \
    NAME(step_backward)(s, OPTIONS, GATES_0, ALL, BLOCK, r0, r1, p0, p1, BACK)
#define DEFINE_CELL(CELL, GATES_0, GATES_1, BLOCK, FIRST, SECOND, THIRD, BACK, BACK_1, ...)                            \
    static void NAME(CELL##_step)(const NAME(step) * s, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t b0,            \
                                  ptrdiff_t b1)                                                                        \
    {                                                                                                                  \
        if (((GATES_1) == 0 || part == 0) && !s->options)                                                              \
            FORWARD(0, 0, GATES_0, 0, (GATES_0) + (GATES_1), BLOCK, FIRST, SECOND);                                    \
        else if ((GATES_1) == 0 || part == 0)                                                                          \
            FORWARD(1, 0, GATES_0, 0, (GATES_0) + (GATES_1), BLOCK, FIRST, SECOND);                                    \
        else if (!s->options)                                                                                          \
            FORWARD(0, 1, GATES_1, GATES_0, (GATES_0) + (GATES_1), BLOCK, NULL, THIRD);                                \
        else                                                                                                           \
            FORWARD(1, 1, GATES_1, GATES_0, (GATES_0) + (GATES_1), BLOCK, NULL, THIRD);                                \
    }                                                                                                                  \
    static void NAME(CELL##_step_back)(const NAME(step_back) * s, int part, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t p0,  \
                                       ptrdiff_t p1)                                                                   \
    {                                                                                                                  \
        if (((GATES_1) == 0 || part == 0) && !s->options)                                                              \
            BACKWARD(0, GATES_0, (GATES_0) + (GATES_1), BLOCK, BACK);                                                  \
        else if ((GATES_1) == 0 || part == 0)                                                                          \
            BACKWARD(1, GATES_0, (GATES_0) + (GATES_1), BLOCK, BACK);                                                  \
        else if (!s->options)                                                                                          \
            BACKWARD(0, GATES_0, (GATES_0) + (GATES_1), BLOCK, BACK_1);                                                \
        else                                                                                                           \
            BACKWARD(1, GATES_0, (GATES_0) + (GATES_1), BLOCK, BACK_1);                                                \
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
