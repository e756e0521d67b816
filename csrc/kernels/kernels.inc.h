/* Every kernel in one precision, and its table. Included by kernels_*.c with real and SUFFIX defined. */

#include "kernels/lanes.inc.h"
#include "kernels/activation.inc.h"
#include "kernels/options.inc.h"
#include "kernels/product.inc.h"
#include "kernels/pack.inc.h"
#include "kernels/step.inc.h"
#include "kernels/stream.inc.h"
#include "kernels/double_sums.inc.h"
#include "kernels/optimizer.inc.h"
#include "kernels/loss.inc.h"
#include "kernels/cells/cells.inc.h"

static void NAME(project)(const NAME(cell) * cell, ptrdiff_t M, ptrdiff_t H, ptrdiff_t b0, ptrdiff_t b1, const real *x,
                          ptrdiff_t x_row, const fastrnn_matrix *weight_ih, const real *const *bias, real *gates)
{
    for (int part = 0; part < MOST_PARTS && cell->parts[part]; part++)
        NAME(forward_product)(M, &weight_ih[part], NAME(panel_of_block)(cell->parts[part], cell->block, H, b0),
                              NAME(panel_of_block)(cell->parts[part], cell->block, H, b1), x, x_row, bias[part],
                              gates + NAME(gates_before)(cell, part) * H, cell->gates * H);
}

static void NAME(multiply)(ptrdiff_t M, ptrdiff_t p0, ptrdiff_t p1, const real *a, ptrdiff_t a_row,
                           const fastrnn_matrix *matrix, const real *bias, real *c, ptrdiff_t c_row)
{
    NAME(forward_product)(M, matrix, p0, p1, a, a_row, bias ? bias : NAME(zeros), c, c_row);
}

/* Some tiles of A are packed together, so that a panel of B is multiplied by all of them while it is in the caches; no
 * more than SOME_ROWS, which the product would split. */
enum { NAME(OUTER_ROWS) = 8 * TILE_ROWS };
_Static_assert((int)BLOCK_ROWS * NR * (int)sizeof(real) <= (int)NAME(PANEL_BYTES), "a block is one part of a product");
static void NAME(outer_product)(ptrdiff_t M, ptrdiff_t p0, ptrdiff_t p1, const real *a, ptrdiff_t a_row,
                                const fastrnn_matrix *matrix, sum_start start, real *c, real *scratch)
{
    const ptrdiff_t K = matrix->K, N = matrix->N;
    const real *row = start == SUM_FRESH ? NAME(zeros) : start == SUM_ADDED ? NAME(added) : NULL;
    for (ptrdiff_t m = 0; m < M; m += NAME(OUTER_ROWS)) {
        const ptrdiff_t rows = M - m < NAME(OUTER_ROWS) ? M - m : NAME(OUTER_ROWS);
        NAME(pack_tiles)(rows, K, a + m, a_row, scratch);
        NAME(product)(rows, matrix, p0, p1, scratch, 1, 0, row, c + m * N, N);
    }
}

static void NAME(sum_rows)(ptrdiff_t M, ptrdiff_t K, const real *a, ptrdiff_t a_row, sum_start start, real *sum)
{
    for (ptrdiff_t m = 0; m < M; m += VL) {
        int lanes = NAME(lanes_at)(M, m);
        vec s = NAME(begin_sum)(start, sum + m, lanes);
        for (ptrdiff_t k = 0; k < K; k++) s = v_add(s, NAME(load_lanes)(a + k * a_row + m, lanes));
        NAME(end_sum)(start, sum + m, s, lanes);
    }
}

static void NAME(add)(ptrdiff_t n, const real *a, const real *b, real *c)
{
    for (ptrdiff_t k = 0; k < n; k += VL) {
        const int lanes = NAME(lanes_at)(n, k);
        const vec more = b ? NAME(load_lanes)(b + k, lanes) : v_set1(0);
        NAME(store_lanes)(c + k, v_add(NAME(load_lanes)(a + k, lanes), more), lanes);
    }
}

static const NAME(kernels) NAME(table) = {
    .width = NR,
    .outer_rows = NAME(OUTER_ROWS),
    .tile_rows = TILE_ROWS,
    .stream_lanes = VL,
    .stream_vectors = STREAM_VECTORS,
    .cells = NAME(cells),
    .pack_gates = NAME(pack_gates),
    .pack_heads = NAME(pack_heads),
    .pack_bias = NAME(pack_bias),
    .gate_columns = NAME(gate_columns),
    .pack_rows = NAME(pack_rows),
    .project = NAME(project),
    .multiply = NAME(multiply),
    .outer_product = NAME(outer_product),
    .sum_rows = NAME(sum_rows),
    .add = NAME(add),
    .activate = NAME(activate),
    .sgd = NAME(sgd),
    .adam = NAME(adam),
    .scale = NAME(scale),
    .sum_squares = NAME(sum_squares),
    .softmax_cross_entropy = NAME(softmax_cross_entropy),
    .squared_error = NAME(squared_error),
};
#undef LOAD
#undef STORE
#undef DEFINE_CELL
#undef DEFINE_WHOLE
#undef WHOLE
#undef WHOLE_BACK
#undef DEFINE_STREAM
#undef FORWARD
#undef BACKWARD
