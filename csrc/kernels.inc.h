/* Every kernel in one precision, and its table. Included by kernels_*.c with real and SUFFIX defined. */

#include "activation.inc.h"
#include "product.inc.h"
#include "pack.inc.h"
#include "lstm.inc.h"

static void NAME(project)(ptrdiff_t M, ptrdiff_t I, ptrdiff_t H, ptrdiff_t b0, ptrdiff_t b1, const real *x,
                          ptrdiff_t x_row, const real *panels, const real *bias, real *gates)
{
    NAME(product)(M, 4 * H, NAME(panel_of_block)(H, b0), NAME(panel_of_block)(H, b1), I, x, x_row, 1, panels, bias, gates,
                  4 * H);
}

static void NAME(multiply)(ptrdiff_t M, ptrdiff_t N, ptrdiff_t K, ptrdiff_t p0, ptrdiff_t p1, const real *a,
                           ptrdiff_t a_row, const real *panels, real *c, ptrdiff_t c_row)
{
    NAME(product)(M, N, p0, p1, K, a, a_row, 1, panels, NAME(zeros), c, c_row);
}

/* Some tiles of A are packed together, so that a panel of B meets all of them while it is in the caches: no more
 * than SOME_ROWS, which the product would take apart. */
enum { NAME(OUTER_ROWS) = 8 * TILE_ROWS };
static void NAME(outer_product)(ptrdiff_t m0, ptrdiff_t m1, ptrdiff_t N, ptrdiff_t K, const real *a, ptrdiff_t a_row,
                                const real *panels, int fresh, real *c, real *scratch)
{
    for (ptrdiff_t m = m0; m < m1; m += NAME(OUTER_ROWS)) {
        ptrdiff_t M = m1 - m < NAME(OUTER_ROWS) ? m1 - m : NAME(OUTER_ROWS);
        NAME(pack_tiles)(M, K, a + m, a_row, scratch);
        NAME(product)(M, N, 0, (N + NR - 1) / NR, K, scratch, 1, 0, panels, fresh ? NAME(zeros) : NULL, c + m * N, N);
    }
}

static void NAME(sum_rows)(ptrdiff_t m0, ptrdiff_t m1, ptrdiff_t K, const real *a, ptrdiff_t a_row, int fresh,
                           real *sum)
{
    for (ptrdiff_t m = m0; m < m1; m += VL) {
        int lanes = m1 - m < VL ? (int)(m1 - m) : VL;
        vec s = fresh ? v_set1(0) : NAME(load_lanes)(sum + m, lanes);
        for (ptrdiff_t k = 0; k < K; k++) s = v_add(s, NAME(load_lanes)(a + k * a_row + m, lanes));
        NAME(store_lanes)(sum + m, s, lanes);
    }
}

#define KERNELS                                                                                                        \
    {                                                                                                                  \
        .width = NR,                                                                                                   \
        .block = NAME(BLOCK),                                                                                                   \
        .depth = NAME(PANEL_BYTES) / (NR * sizeof(real)),                                                              \
        .outer_rows = NAME(OUTER_ROWS),                                                                                \
        .tile_rows = TILE_ROWS,                                                                                        \
        .pack_gates = NAME(pack_gates),                                                                                \
        .pack_bias = NAME(pack_bias),                                                                                  \
        .pack_rows = NAME(pack_rows),                                                                                  \
        .project = NAME(project),                                                                                      \
        .lstm_step = NAME(lstm_step_forward),                                                                          \
        .lstm_step_back = NAME(lstm_step_backward),                                                                    \
        .lstm_hidden = NAME(lstm_hidden),                                                                              \
        .multiply = NAME(multiply),                                                                                    \
        .outer_product = NAME(outer_product),                                                                          \
        .sum_rows = NAME(sum_rows),                                                                                    \
        .activate = NAME(activate),                                                                                    \
    }
static const NAME(kernels) NAME(table) = KERNELS;
#undef KERNELS
#undef NR
