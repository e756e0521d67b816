/* The product of a narrow format: C[M x N] = start + A P, as in kernels/product.inc.h, with P in the layout of
 * narrow.h.
 *
 * One vector of P has a group of consecutive weights for each of VL columns. The instructions define, as N(name),
 *   sum                    the type of VL sums
 *   group, argument        the types of such a vector in registers, and of the numbers of A that meet it, in all lanes
 *   broadcast(a)           the latter, from memory
 *   dot(s, g, a)           the sums with all products of the group added
 *   begin(...), end(...)   the sums of vector v before the first group, and the result, stored
 * and the macros LOAD(p, columns, v), the weights of vector v at p, GROUP, the weights of a group, GROUP_BYTES, their
 * bytes, ARGUMENT_BYTES, those of a broadcast, NARROW_ROWS, the most rows of a tile, and NARROW_FEW, those whose tiles
 * have more than two vectors. K need not be a multiple of GROUP: the weights beyond are 0. Where OF_FEW is defined,
 * tiles of at most NARROW_FEW rows take group, argument, broadcast, dot and LOAD under the names OF_FEW(name) and
 * LOAD_OF_FEW. IN_PAIRS: see int8.inc.h.
 */
#ifndef OF_FEW
#define OF_FEW(a) N(a)
#define LOAD_OF_FEW LOAD
#define IN_PAIRS 0
#define PAIRS_OF(groups, a) 0
#endif

enum { N(WIDTH) = 8, N(VECTOR) = VL * GROUP_BYTES, N(AHEAD) = 4096 };

/* Adds the products of mr groups of A and a row of the panels to the sums, and goes on to the next. ahead: whether the
 * weights AHEAD bytes further on are prefetched. */
INLINE void N(tile_step)(const int mr, const int nv, const int ahead, const char **rows, ptrdiff_t a_bytes,
                         const char **panel, ptrdiff_t p_panel, const fastrnn_columns *columns, N(sum) (*sum)[N(WIDTH)])
{
    const char *p = *panel;
    (void)columns;
    if (mr <= NARROW_FEW) {
        OF_FEW(argument) x[NARROW_FEW];
        UNROLL for (int i = 0; i < mr; i++) x[i] = OF_FEW(broadcast)(rows[0] + i * a_bytes);
        UNROLL for (int v = 0; v < nv; v++)
        {
            OF_FEW(group) g = LOAD_OF_FEW(p + v / 2 * p_panel + v % 2 * N(VECTOR), columns, v);
            UNROLL for (int i = 0; i < mr; i++) sum[i][v] = OF_FEW(dot)(sum[i][v], g, x[i]);
        }
    } else {
        N(group) g[N(WIDTH)];
        UNROLL for (int v = 0; v < nv; v++) g[v] = LOAD(p + v / 2 * p_panel + v % 2 * N(VECTOR), columns, v);
        UNROLL for (int i = 0; i < mr; i++)
        {
            N(argument) x = N(broadcast)(rows[i / 3] + (i % 3) * a_bytes);
            UNROLL for (int v = 0; v < nv; v++) sum[i][v] = N(dot)(sum[i][v], g[v], x);
        }
    }
    UNROLL for (int j = 0; 3 * j < mr; j++) rows[j] += ARGUMENT_BYTES;
    if (ahead) UNROLL for (int v = 0; v < nv; v++) v_prefetch(p + v * N(VECTOR) + N(AHEAD));
    *panel = p + 2 * N(VECTOR);
}

/* For jumps and prefetches see kernels/product.inc.h, also for mr, nv, start and ahead. pairs: of each row, where the
 * sums are of pairs. */
INLINE void N(tile)(const int mr, const int nv, ptrdiff_t groups, const char *a, ptrdiff_t a_bytes, const char *p,
                    ptrdiff_t p_panel, int ahead, const fastrnn_columns *columns, const float *scale, ptrdiff_t row,
                    const int32_t *pairs, const float *start, float *c, ptrdiff_t c_row, int lanes)
{
    N(sum) sum[NARROW_ROWS][N(WIDTH)];
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int v = 0; v < nv; v++)
    {
        const float *from = start ? start + v * VL : c + i * c_row + v * VL;
        sum[i][v] = N(begin)(mr, columns, v, IN_PAIRS ? pairs[i] : 0, from, v < nv - 1 ? VL : lanes);
    }
    /* Rows 3j, 3j+1, 3j+2 are one pointer and an index, as in kernels/product.inc.h. */
    const char *rows[(NARROW_ROWS + 2) / 3];
    UNROLL for (int j = 0; 3 * j < mr; j++) rows[j] = a + 3 * j * a_bytes;
    if (mr > NARROW_FEW && (ahead || !NARROW_TILES))
        STEPS for (ptrdiff_t k = 0; k < groups; k++) N(tile_step)(mr, nv, 1, rows, a_bytes, &p, p_panel, columns, sum);
    else if (mr > NARROW_FEW)
        STEPS for (ptrdiff_t k = 0; k < groups; k++) N(tile_step)(mr, nv, 0, rows, a_bytes, &p, p_panel, columns, sum);
    else
        for (ptrdiff_t k = 0; k < groups; k++) N(tile_step)(mr, nv, 0, rows, a_bytes, &p, p_panel, columns, sum);
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int v = 0; v < nv; v++)
    {
        float *to = c + i * c_row + v * VL;
        N(end)(columns, v, sum[i][v], HAS_SCALES ? scale[i * row] : 0, start ? start + v * VL : to, to,
               v < nv - 1 ? VL : lanes);
    }
}

#define TILE_PARAMETERS                                                                                                \
    ptrdiff_t groups, const char *a, ptrdiff_t a_bytes, const char *p, ptrdiff_t p_panel, int ahead,                   \
        const fastrnn_columns *columns, const float *scale, ptrdiff_t row, const int32_t *pairs, const float *start,   \
        float *c, ptrdiff_t c_row, int lanes
#define TILE(mr, nv)                                                                                                   \
    static void N(tile_##mr##_##nv)(TILE_PARAMETERS)                                                                   \
    {                                                                                                                  \
        N(tile)(mr, nv, groups, a, a_bytes, p, p_panel, ahead, columns, scale, row, pairs, start, c, c_row, lanes);    \
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
    int32_t pairs[SOME_ROWS];
    for (ptrdiff_t m0 = 0, m1; m0 < M; m0 = m1) {
        m1 = m0 + NAME(even_part)(M - m0, SOME_ROWS);
        for (ptrdiff_t q = p0, next, first = -1; q < p1; q = next) {
            const NAME(some_panels) some = NAME(tile_panels)(M, matrix, q, p1, most);
            next = some.end;
            const fastrnn_columns at = fastrnn_columns_from(matrix, q * NR);
            const char *rows = (const char *)a + some.first * ARGUMENT_BYTES / GROUP;
            if (IN_PAIRS && M > NARROW_FEW && some.first != first)
                for (ptrdiff_t m = m0; m < m1; m++) pairs[m - m0] = PAIRS_OF(groups, rows + m * a_bytes);
            first = some.first;
            for (ptrdiff_t m = m0, mr; m < m1; m += mr) {
                mr = NAME(even_part)(m1 - m, NARROW_ROWS);
                const N(tile_function) tile = N(tiles)[mr][some.vectors];
                tile(groups, rows + m * a_bytes, a_bytes, (const char *)matrix->panels + q * p_panel, p_panel, m == m0,
                     &at, a + (m + 1) * row - 1, row, pairs + (m - m0),
                     start && start != NAME(zeros) ? start + q * NR : start, c + m * c_row + q * NR, c_row, some.lanes);
            }
        }
    }
}

#undef TILE
#undef TILE_ENTRY
#undef TILE_PARAMETERS
