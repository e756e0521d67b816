/* The product of a narrow format: C[M x N] = start + A P, as in kernels/product.inc.h, with P in the layout of
 * narrow.h.
 *
 * One vector of P has a group of consecutive weights for each of VL columns. The instructions define, as N(name),
 *   sum                    the type of VL sums
 *   group, argument        the types of such a vector in registers, and of the numbers of A that meet it, in all lanes
 *   broadcast(a)           the latter, from memory
 *   dot(s, g, a)           the sums with all products of the group added
 *   begin(b, v), end(...)  the sums of vector v before the first group, and the result, stored
 * and the macros LOAD(p, columns, v), the weights of vector v at p, GROUP, the weights of a group, GROUP_BYTES, their
 * bytes, ARGUMENT_BYTES, those of a broadcast, NARROW_ROWS, the most rows of a tile, and NARROW_FEW, those whose tiles
 * have more than two vectors. K need not be a multiple of GROUP: the weights beyond are 0.
 *
 * Tiles of more than NARROW_FEW rows prefetch the weights AHEAD bytes further on: see kernels/product.inc.h.
 */

INLINE void N(tile)(const int mr, const int nv, ptrdiff_t groups, const char *a, ptrdiff_t a_bytes, const char *p,
                    ptrdiff_t p_panel, const fastrnn_columns *columns, const float *scale, ptrdiff_t row,
                    const float *start, float *c, ptrdiff_t c_row, int lanes)
{
    enum { ROWS = NARROW_ROWS, WIDTH = 8, VECTOR = VL * GROUP_BYTES, AHEAD = 4096 };
    N(sum) sum[ROWS][WIDTH];
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int v = 0; v < nv; v++)
    {
        const float *from = start ? start + v * VL : c + i * c_row + v * VL;
        sum[i][v] = N(begin)(columns, v, from, v < nv - 1 ? VL : lanes);
    }
    /* Rows 3j, 3j+1, 3j+2 are one pointer and an index, as in kernels/product.inc.h. */
    const char *rows[(ROWS + 2) / 3];
    UNROLL for (int j = 0; 3 * j < mr; j++) rows[j] = a + 3 * j * a_bytes;
    for (ptrdiff_t k = 0; k < groups; k++) {
        if (mr <= NARROW_FEW) {
            N(argument) x[NARROW_FEW];
            UNROLL for (int i = 0; i < mr; i++) x[i] = N(broadcast)(rows[0] + i * a_bytes);
            UNROLL for (int v = 0; v < nv; v++)
            {
                N(group) g = LOAD(p + v / 2 * p_panel + v % 2 * VECTOR, columns, v);
                UNROLL for (int i = 0; i < mr; i++) sum[i][v] = N(dot)(sum[i][v], g, x[i]);
            }
        } else {
            N(group) g[WIDTH];
            UNROLL for (int v = 0; v < nv; v++) g[v] = LOAD(p + v / 2 * p_panel + v % 2 * VECTOR, columns, v);
            UNROLL for (int i = 0; i < mr; i++)
            {
                N(argument) x = N(broadcast)(rows[i / 3] + (i % 3) * a_bytes);
                UNROLL for (int v = 0; v < nv; v++) sum[i][v] = N(dot)(sum[i][v], g[v], x);
            }
        }
        UNROLL for (int j = 0; 3 * j < mr; j++) rows[j] += ARGUMENT_BYTES;
        if (mr > NARROW_FEW) UNROLL for (int v = 0; v < nv; v++) v_prefetch(p + v * VECTOR + AHEAD);
        p += 2 * VECTOR;
    }
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int v = 0; v < nv; v++)
    {
        float *to = c + i * c_row + v * VL;
        N(end)(columns, v, sum[i][v], HAS_SCALES ? scale[i * row] : 0, start ? start + v * VL : to, to,
               v < nv - 1 ? VL : lanes);
    }
}

#define TILE_PARAMETERS                                                                                                \
    ptrdiff_t groups, const char *a, ptrdiff_t a_bytes, const char *p, ptrdiff_t p_panel,                              \
        const fastrnn_columns *columns, const float *scale, ptrdiff_t row, const float *start, float *c,               \
        ptrdiff_t c_row, int lanes
#define TILE(mr, nv)                                                                                                   \
    static void N(tile_##mr##_##nv)(TILE_PARAMETERS)                                                                   \
    {                                                                                                                  \
        N(tile)(mr, nv, groups, a, a_bytes, p, p_panel, columns, scale, row, start, c, c_row, lanes);                  \
    }
TILES_TO(NARROW_ROWS)(TILE) TILES_OF_FEW(NARROW_FEW)(TILE)

    typedef void (*N(tile_function))(TILE_PARAMETERS);
#define TILE_ENTRY(mr, nv) [mr][nv] = N(tile_##mr##_##nv),
static const N(tile_function)
    N(tiles)[NARROW_ROWS + 1][9] = {TILES_TO(NARROW_ROWS)(TILE_ENTRY) TILES_OF_FEW(NARROW_FEW)(TILE_ENTRY)};

/* C = start + A P for panels [p0, p1); start and c point at panel 0. Some rows of A are multiplied by all panels before
 * the next ones are, because that much of A stays in L2. */
static void N(product)(ptrdiff_t M, const fastrnn_matrix *matrix, ptrdiff_t p0, ptrdiff_t p1, const void *operand,
                       ptrdiff_t row, const void *start_row, void *c_rows, ptrdiff_t c_row)
{
    enum { SOME_ROWS = 16 * NARROW_ROWS };
    const ptrdiff_t groups = (matrix->K + GROUP - 1) / GROUP, p_panel = fastrnn_panel_bytes(matrix, NR);
    const ptrdiff_t a_bytes = row * (ptrdiff_t)sizeof(float), most = M == 1 ? 4 : M <= NARROW_FEW ? 2 : 1;
    const float *a = operand, *start = start_row;
    float *c = c_rows;
    for (ptrdiff_t m0 = 0, m1; m0 < M; m0 = m1) {
        m1 = m0 + NAME(even_part)(M - m0, SOME_ROWS);
        for (ptrdiff_t q = p0, next; q < p1; q = next) {
            const NAME(some_panels) some = NAME(tile_panels)(M, matrix, q, p1, most);
            next = some.end;
            const fastrnn_columns at = fastrnn_columns_from(matrix, q * NR);
            for (ptrdiff_t m = m0, mr; m < m1; m += mr) {
                mr = NAME(even_part)(m1 - m, NARROW_ROWS);
                const N(tile_function) tile = N(tiles)[mr][some.vectors];
                tile(groups, (const char *)(a + m * row) + some.first * ARGUMENT_BYTES / GROUP, a_bytes,
                     (const char *)matrix->panels + q * p_panel, p_panel, &at, a + (m + 1) * row - 1, row,
                     start && start != NAME(zeros) ? start + q * NR : start, c + m * c_row + q * NR, c_row, some.lanes);
            }
        }
    }
}

#undef TILE
#undef TILE_ENTRY
#undef TILE_PARAMETERS
