/* int8 with the tile registers of AMX. Operand and packing are those of AVX-512 VNNI, and the sums are exact, so the
 * results have the same bits. A tile is 16 rows of 64 bytes; a product of two tiles takes 16 cycles
 * for any number of rows, so few rows are left to VNNI. */
#if defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#define NARROW_AMX &narrow_amx,
TARGET_BEGIN("avx512f,avx512bw,avx512vnni,amx-tile,amx-int8")

enum { AMX_ROWS = 16, AMX_FEWEST_ROWS = 4 };

/* The shapes of the tiles: 0 to 3 are the sums of two times 16 rows and 16 columns, 4 and 5 the rows of A, 6 and 7 the
 * columns of P. */
INLINE void amx_configure(int upper, int lower)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    const int rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
    for (int k = 0; k < 8; k++) {
        shape.bytes[k] = 64;
        shape.rows[k] = (uint8_t)(rows[k] ? rows[k] : 1);
    }
    _tile_loadconfig(&shape);
}

/* Up to 32 rows of A times one panel, in blocks of 64 weights of each column. */
INLINE void amx_panel(const int has_lower, const char *a, ptrdiff_t a_bytes, const char *p, ptrdiff_t blocks,
                      int32_t *sums)
{
    enum { PANEL_ROW = 32 * 4, HALF = 16 * 4, AHEAD = 4 * 16 * PANEL_ROW };
    const char *lower = a + AMX_ROWS * a_bytes;
    _tile_zero(0);
    _tile_zero(1);
    if (has_lower) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (ptrdiff_t k = 0; k < blocks; k++, a += 64, lower += 64, p += 16 * PANEL_ROW) {
        UNROLL for (int line = 0; line < 32; line++) v_prefetch(p + AHEAD + 64 * line);
        _tile_loadd(6, p, PANEL_ROW);
        _tile_loadd(4, a, a_bytes);
        _tile_dpbusd(0, 4, 6);
        _tile_loadd(7, p + HALF, PANEL_ROW);
        _tile_dpbusd(1, 4, 7);
        if (has_lower) {
            _tile_loadd(5, lower, a_bytes);
            _tile_dpbusd(2, 5, 6);
            _tile_dpbusd(3, 5, 7);
        }
    }
    _tile_stored(0, sums, PANEL_ROW);
    _tile_stored(1, sums + 16, PANEL_ROW);
    if (has_lower) {
        _tile_stored(2, sums + 32 * AMX_ROWS, PANEL_ROW);
        _tile_stored(3, sums + 32 * AMX_ROWS + 16, PANEL_ROW);
    }
}

/* The sums of some rows and one panel, and where they belong: c = start + scales * sums. */
typedef struct {
    fastrnn_columns columns;
    const float *scale, *start;
    float *c;
    ptrdiff_t rows, row, c_row;
    int vectors, lanes;
} amx_block;
INLINE void amx_finish_vectors(const int vectors, const int lanes, const amx_block *block, const int32_t *sums)
{
    vec scales[2] = {v_set1(0), v_set1(0)};
    __m512i offsets[2] = {no_sums_i8vnni(), no_sums_i8vnni()};
    UNROLL for (int v = 0; v < vectors; v++)
    {
        scales[v] = v_load(block->columns.scales + v * VL);
        offsets[v] = load_sums_i8vnni(block->columns.offsets + v * VL);
    }
    float *c = block->c;
    const float *scale = block->scale, *start = block->start;
    for (ptrdiff_t i = 0; i < block->rows; i++, c += block->c_row, scale += block->row, sums += NR)
        UNROLL for (int v = 0; v < vectors; v++)
        {
            const int n = v < vectors - 1 ? VL : lanes;
            const vec from = NAME(load_lanes)(start ? start + v * VL : c + v * VL, n);
            const __m512i sum = _mm512_add_epi32(load_sums_i8vnni(sums + v * VL), offsets[v]);
            NAME(store_lanes)(c + v * VL, v_fma(floats_i8vnni(sum), v_mul(scales[v], v_set1(*scale)), from), n);
        }
}
INLINE void amx_finish(const amx_block *block, const int32_t *sums)
{
    if (!block->rows) return; /* there is no block before the first one */
    const int is_full = block->lanes == VL;
    if (block->vectors == 2)
        is_full ? amx_finish_vectors(2, VL, block, sums) : amx_finish_vectors(2, block->lanes, block, sums);
    else
        is_full ? amx_finish_vectors(1, VL, block, sums) : amx_finish_vectors(1, block->lanes, block, sums);
}

/* Rows [m0, m1) of C, `step` at a time, with all panels. While the tiles of a block are multiplied, the block before is
 * finished. */
INLINE void amx_rows(ptrdiff_t m0, ptrdiff_t m1, ptrdiff_t step, const fastrnn_matrix *matrix, ptrdiff_t p0,
                     ptrdiff_t p1, const float *operand, ptrdiff_t row, const float *start, float *c, ptrdiff_t c_row)
{
    const ptrdiff_t p_panel = fastrnn_panel_bytes(matrix, NR), depth = (matrix->K + 63) / 64;
    _Alignas(64) int32_t sums[2][2 * AMX_ROWS * NR];
    amx_block block, before = {.rows = 0};
    int next = 0;
    for (ptrdiff_t q = p0; q < p1; q++) {
        const NAME(some_panels) some = NAME(panels_from)(matrix, q, p1, 1);
        const char *p = (const char *)matrix->panels + q * p_panel;
        for (ptrdiff_t m = m0; m < m1; m += step, next = !next, before = block) {
            const float *a = operand + m * row;
            block = (amx_block){.columns = fastrnn_columns_from(matrix, q * NR),
                                .scale = a + row - 1,
                                .start = start && start != NAME(zeros) ? start + q * NR : start,
                                .c = c + m * c_row + q * NR,
                                .rows = step,
                                .row = row,
                                .c_row = c_row,
                                .vectors = some.vectors,
                                .lanes = some.lanes};
            if (step > AMX_ROWS)
                amx_panel(1, (const char *)a, row * 4, p, depth, sums[next]);
            else
                amx_panel(0, (const char *)a, row * 4, p, depth, sums[next]);
            amx_finish(&before, sums[!next]);
        }
    }
    amx_finish(&before, sums[!next]);
}

static void product_amx(ptrdiff_t M, const fastrnn_matrix *matrix, ptrdiff_t p0, ptrdiff_t p1, const void *operand,
                        ptrdiff_t row, const void *start, void *c, ptrdiff_t c_row)
{
    const ptrdiff_t both = 2 * AMX_ROWS, full = M / both * both, rest = M - full;
    if (M < AMX_FEWEST_ROWS || matrix->heads.head || matrix->K < 1) {
        product_i8vnni(M, matrix, p0, p1, operand, row, start, c, c_row);
        return;
    }
    if (full) {
        amx_configure(AMX_ROWS, AMX_ROWS);
        amx_rows(0, full, both, matrix, p0, p1, operand, row, start, c, c_row);
    }
    if (rest) {
        amx_configure(rest < AMX_ROWS ? (int)rest : AMX_ROWS, rest > AMX_ROWS ? (int)rest - AMX_ROWS : 0);
        amx_rows(full, M, rest, matrix, p0, p1, operand, row, start, c, c_row);
    }
    _tile_release();
}

static const fastrnn_narrow narrow_amx = {
    .format = FASTRNN_INT8,
    .instructions = "amx_int8",
    .rate = 12,
    .bytes = 1,
    .round_rows = round_rows_i8vnni,
    .begin_rows = begin_rows_i8vnni,
    .round_units = round_units_i8vnni,
    .product = product_amx,
};
TARGET_END
#else
#define NARROW_AMX
#endif
