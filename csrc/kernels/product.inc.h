/* The GEMM: C[M x N] = start + A[M x K] P[K x N], the one matrix product behind projections, recurrence and all
 * gradients.
 *
 * P is packed: its columns are cut into panels of NR = 2 VL columns, and each panel lies in memory as [K][NR]; the last
 * panel is zero-padded to a full vector. A and C are read and written in place through their leading dimensions.
 * A sum starts from its start value and takes k = 0 .. K-1 in order, one fma each; vectors run along the columns. So a
 * number does not depend on the tile it falls in, and cutting K, with the partial sums stored in C, changes no bit.
 */

/* Bytes of the part of a panel that is multiplied by all row tiles before the next part: L2 is fast enough for the
 * tiles, and smaller parts would store and load the sums too often. */
enum { NAME(PANEL_BYTES) = 64 * 1024 };

/* Rows of the panel that are prefetched ahead of their use, into L1 and into L2. Panels are contiguous, so far ahead is
 * often the next panel: where weights are read from memory, in each step or in the first one after a pause, that keeps
 * the transfers going. With few rows the loop is bound by loads, and the processor's own prefetch is faster. */
enum { NAME(ROWS_TO_L1) = 16, NAME(ROWS_TO_L2) = 512 };
enum { NAME(LINE_VECTORS) = VL * (int)sizeof(real) < 64 ? 64 / (VL * (int)sizeof(real)) : 1 };

/* The most vectors of a tile. */
enum { NAME(WIDTH) = 8 };

/* Adds the product of mr numbers of A and a row of the panels to the sums, and goes on to the next. row: see below;
 * ahead: whether the panel is prefetched. */
INLINE void NAME(tile_step)(const int mr, const int nv, const int ahead, const real **row, ptrdiff_t a_row,
                            ptrdiff_t a_k, const real **panel, ptrdiff_t p_panel, vec (*sum)[NAME(WIDTH)])
{
    const real *p = *panel;
    if (mr <= 3) { /* few rows: their numbers stay in registers, each panel vector is loaded once */
        vec x[3];
        UNROLL for (int i = 0; i < mr; i++) x[i] = v_set1(row[0][i * a_row]);
        UNROLL for (int v = 0; v < nv; v++)
        {
            vec y = v_load(p + v / 2 * p_panel + v % 2 * VL);
            UNROLL for (int i = 0; i < mr; i++) sum[i][v] = v_fma(x[i], y, sum[i][v]);
        }
    } else {
        vec y[NAME(WIDTH)];
        UNROLL for (int v = 0; v < nv; v++) y[v] = v_load(p + v / 2 * p_panel + v % 2 * VL);
        UNROLL for (int i = 0; i < mr; i++)
        {
            vec x = v_set1(row[i / 3][(i % 3) * a_row]);
            UNROLL for (int v = 0; v < nv; v++) sum[i][v] = v_fma(x, y[v], sum[i][v]);
        }
    }
    UNROLL for (int j = 0; 3 * j < mr; j++) row[j] += a_k;
    if (ahead) UNROLL for (int v = 0; v < nv; v += NAME(LINE_VECTORS))
        {
            v_prefetch(p + v * VL + NAME(ROWS_TO_L1) * NR);
            v_prefetch_l2(p + v * VL + NAME(ROWS_TO_L2) * NR);
        }
    *panel = p + NR;
}

/* In a tile of narrow vectors, jumps and prefetches would take time from the fmas, most of it beside a thread on the
 * same core: it takes four steps between two jumps, and prefetches the panel only for the first rows that meet it. */
#undef STEPS
#if NARROW_TILES
#define STEPS UNROLL_4
#else
#define STEPS
#endif

/* The microkernel: a register tile of mr rows and nv vectors, two vectors to a panel; C has `lanes` columns of the last
 * vector. p and start point at the first panel; p_panel is the stride to the next one. start: the row that the sums
 * begin with, or NULL to begin with the values of C. add: the sum is added to C rather than stored. ahead: whether
 * the panel is to be prefetched. mr and nv are constants after inlining, so that `sum` is in registers. */
INLINE void NAME(tile)(const int mr, const int nv, ptrdiff_t K, const real *a, ptrdiff_t a_row, ptrdiff_t a_k,
                       const real *p, ptrdiff_t p_panel, int ahead, const real *start, int add, real *c,
                       ptrdiff_t c_row, int lanes)
{
    vec sum[TILE_ROWS][NAME(WIDTH)];
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int v = 0; v < nv; v++)
    {
        const real *from = start ? start + v * VL : c + i * c_row + v * VL;
        sum[i][v] = start || v < nv - 1 || lanes == VL ? v_load(from) : v_load_n(from, lanes);
    }

    /* Rows 3j, 3j+1, 3j+2 are one pointer and an index scaled by 0, 1, 2: 14 pointers would not fit the registers. */
    const real *row[(TILE_ROWS + 2) / 3];
    UNROLL for (int j = 0; 3 * j < mr; j++) row[j] = a + 3 * j * a_row;
    if (mr > FEW_ROWS && (ahead || !NARROW_TILES))
        STEPS for (ptrdiff_t k = 0; k < K; k++) NAME(tile_step)(mr, nv, 1, row, a_row, a_k, &p, p_panel, sum);
    else if (mr > FEW_ROWS)
        STEPS for (ptrdiff_t k = 0; k < K; k++) NAME(tile_step)(mr, nv, 0, row, a_row, a_k, &p, p_panel, sum);
    else
        for (ptrdiff_t k = 0; k < K; k++) NAME(tile_step)(mr, nv, 0, row, a_row, a_k, &p, p_panel, sum);

    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int v = 0; v < nv; v++)
    {
        real *to = c + i * c_row + v * VL;
        if (v < nv - 1 || lanes == VL)
            v_store(to, add ? v_add(v_load(to), sum[i][v]) : sum[i][v]);
        else
            v_store_n(to, add ? v_add(v_load_n(to, lanes), sum[i][v]) : sum[i][v], lanes);
    }
}

#define TILE_PARAMETERS                                                                                                \
    ptrdiff_t K, const real *a, ptrdiff_t a_row, ptrdiff_t a_k, const real *p, ptrdiff_t p_panel, int ahead,           \
        const real *start, int add, real *c, ptrdiff_t c_row, int lanes
#define TILE(mr, nv)                                                                                                   \
    static void NAME(tile_##mr##_##nv)(TILE_PARAMETERS)                                                                \
    {                                                                                                                  \
        NAME(tile)(mr, nv, K, a, a_row, a_k, p, p_panel, ahead, start, add, c, c_row, lanes);                          \
    }
TILES_TO(TILE_ROWS)(TILE) TILES_OF_FEW(FEW_ROWS)(TILE)

    typedef void (*NAME(tile_function))(TILE_PARAMETERS);

#define TILE_ENTRY(mr, nv) [mr][nv] = NAME(tile_##mr##_##nv),
static const NAME(tile_function)
    NAME(tiles)[TILE_ROWS + 1][NAME(WIDTH) + 1] = {TILES_TO(TILE_ROWS)(TILE_ENTRY) TILES_OF_FEW(FEW_ROWS)(TILE_ENTRY)};

/* The most rows of A that are multiplied together. */
enum { NAME(SOME_ROWS) = 16 * TILE_ROWS };

/* The size of the next part if `rest` is cut into even parts of at most `most`: 16 rows are 8 + 8 and not 14 + 2. */
INLINE ptrdiff_t NAME(even_part)(ptrdiff_t rest, ptrdiff_t most) { return rest / ((rest + most - 1) / most); }

/* Addresses that stand for a start of zeros, and for a start of zeros with the sum added to C. */
static const real NAME(zeros)[8 * VL] = {0}, NAME(added)[1] = {0};

/* Panels [q, end) that are multiplied together: at most `most`, before p1, of the same heads. first: the column of A
 * that meets their first row; lanes: the columns of the last of `vectors` vectors. */
typedef struct {
    ptrdiff_t end, first;
    int vectors, lanes;
} NAME(some_panels);
INLINE NAME(some_panels) NAME(panels_from)(const fastrnn_matrix *matrix, ptrdiff_t q, ptrdiff_t p1, ptrdiff_t most)
{
    const fastrnn_heads *heads = &matrix->heads;
    NAME(some_panels) some = {.end = q + NAME(even_part)(p1 - q, most), .first = fastrnn_first_unit(heads, q)};
    while (heads->head && fastrnn_first_unit(heads, some.end - 1) != some.first) some.end--;
    const ptrdiff_t columns = (matrix->N < some.end * NR ? matrix->N : some.end * NR) - q * NR;
    some.vectors = (int)((columns + VL - 1) / VL);
    some.lanes = (int)(columns - (some.vectors - 1) * VL);
    return some;
}

/* The same for M rows: there are no tiles of three vectors and more than three rows. */
INLINE NAME(some_panels)
    NAME(tile_panels)(ptrdiff_t M, const fastrnn_matrix *matrix, ptrdiff_t q, ptrdiff_t p1, ptrdiff_t most)
{
    const NAME(some_panels) some = NAME(panels_from)(matrix, q, p1, most);
    return M > 3 && some.vectors == 3 ? NAME(panels_from)(matrix, q, q + 1, 1) : some;
}

/* C[M x N] = start + A P for panels [p0, p1) of the matrix; start and c point at panel 0. start: a row; or zeros; or
 * NULL for the values of C; or `added`, for which K is one part. a_k = 0: A was packed by pack_tiles. Some rows of A
 * and a part of K are multiplied by all panels before the next part is, because that much of A stays in L2. */
static void NAME(product)(ptrdiff_t M, const fastrnn_matrix *matrix, ptrdiff_t p0, ptrdiff_t p1, const real *a,
                          ptrdiff_t a_row, ptrdiff_t a_k, const real *start, real *c, ptrdiff_t c_row)
{
    const ptrdiff_t K = matrix->K;
    const real *p = matrix->panels;
    const int add = start == NAME(added);
    if (add) start = NAME(zeros);
    const ptrdiff_t k_block = M > TILE_ROWS ? NAME(PANEL_BYTES) / (NR * (ptrdiff_t)sizeof(real)) : K;
    const fastrnn_heads *heads = &matrix->heads;
    const ptrdiff_t segment = heads->head ? heads->rows : K;
    const ptrdiff_t most = M == 1 ? 4 : M <= FEW_ROWS ? 2 : 1;
    for (ptrdiff_t m0 = 0, m1; m0 < M; m0 = m1) {
        m1 = m0 + NAME(even_part)(M - m0, NAME(SOME_ROWS));
        ptrdiff_t k = 0, depth;
        do { /* also where K is 0 */
            const ptrdiff_t in_segment = heads->head ? k % segment : k, rest = segment - in_segment;
            const ptrdiff_t column = heads->head ? k / segment * heads->units + in_segment : k; /* of A, dense */
            depth = rest < k_block ? rest : k_block;
            for (ptrdiff_t q = p0, next; q < p1; q = next) {
                const NAME(some_panels) some = NAME(tile_panels)(M, matrix, q, p1, most);
                next = some.end;
                const real *row = k > 0 ? NULL : start && start != NAME(zeros) ? start + q * NR : start;
                for (ptrdiff_t m = m0, mr; m < m1; m += mr) {
                    mr = NAME(even_part)(m1 - m, TILE_ROWS);
                    const real *rows = a_k ? a + m * a_row + (column + some.first) * a_k : a + m * K + k * mr;
                    const NAME(tile_function) tile = NAME(tiles)[mr][some.vectors];
                    tile(depth, rows, a_k ? a_row : 1, a_k ? a_k : mr, p + (q * K + k) * NR, K * NR, m == m0, row, add,
                         c + m * c_row + q * NR, c_row, some.lanes);
                }
            }
            k += depth;
        } while (k < K);
    }
}

/* The same for a matrix of any format. A has the rows of its operand; start is not `added`. */
static void NAME(forward_product)(ptrdiff_t M, const fastrnn_matrix *matrix, ptrdiff_t p0, ptrdiff_t p1, const real *a,
                                  ptrdiff_t a_row, const real *start, real *c, ptrdiff_t c_row)
{
    if (matrix->narrow)
        matrix->narrow->product(M, matrix, p0, p1, a, a_row, start, c, c_row);
    else
        NAME(product)(M, matrix, p0, p1, a, a_row, 1, start, c, c_row);
}

/* The number of vectors in panel q of N columns, and of columns in its last vector. */
INLINE int NAME(panel_vectors)(ptrdiff_t N, ptrdiff_t q) { return N - q * NR > VL ? 2 : 1; }
INLINE int NAME(panel_lanes)(ptrdiff_t N, ptrdiff_t q)
{
    ptrdiff_t rest = N - q * NR;
    return rest >= NR ? VL : (int)(rest > VL ? rest - VL : rest);
}

/* Packs panels [p0, p1) of K rows, row k at source + k * stride, into the rows of the matrix from `first` on. Some rows
 * at a time, so that each page is translated once and not for every panel. */
enum { NAME(PACKED_ROWS) = 32 };
static void NAME(pack_rows)(ptrdiff_t K, ptrdiff_t p0, ptrdiff_t p1, const real *source, ptrdiff_t stride,
                            ptrdiff_t first, const fastrnn_matrix *matrix)
{
    const ptrdiff_t N = matrix->N, depth = matrix->K;
    real *p = matrix->panels;
    for (ptrdiff_t k0 = 0; k0 < K; k0 += NAME(PACKED_ROWS))
        for (ptrdiff_t q = p0; q < p1; q++) {
            int nv = NAME(panel_vectors)(N, q), lanes = NAME(panel_lanes)(N, q);
            const real *from = source + k0 * stride + q * NR;
            real *to = p + (q * depth + first + k0) * NR;
            for (ptrdiff_t k = k0; k < K && k < k0 + NAME(PACKED_ROWS); k++, from += stride, to += NR) {
                if (nv == 2) v_store(to, v_load(from));
                v_store(to + (nv - 1) * VL, v_load_n(from + (nv - 1) * VL, lanes));
            }
        }
}

/* Packs A[M x K], A[m, k] at a + m + k * a_k, by tiles: [tile][K][rows of the tile], so that the product reads each
 * tile in order. Some k at a time, as in pack_rows. */
static void NAME(pack_tiles)(ptrdiff_t M, ptrdiff_t K, const real *a, ptrdiff_t a_k, real *tiles)
{
    for (ptrdiff_t k0 = 0, k1; k0 < K; k0 = k1) {
        k1 = K - k0 < NAME(PACKED_ROWS) ? K : k0 + NAME(PACKED_ROWS);
        for (ptrdiff_t m = 0, mr; m < M; m += mr) {
            mr = NAME(even_part)(M - m, TILE_ROWS);
            const real *from = a + m + k0 * a_k;
            real *to = tiles + m * K + k0 * mr;
            for (ptrdiff_t k = k0; k < k1; k++, from += a_k, to += mr)
                for (ptrdiff_t i = 0; i < mr; i += VL) {
                    int lanes = NAME(lanes_at)(mr, i);
                    v_store_n(to + i, v_load_n(from + i, lanes), lanes);
                }
        }
    }
}

#undef TILE
#undef TILE_ENTRY
#undef TILE_PARAMETERS
