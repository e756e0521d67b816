/* The narrow formats: the rounding of weights to them and the packing, which copies bits. Both are the same for all
 * instruction sets. */
#include <string.h>

#include "kernels/columns.h"
#include "kernels/kernels.h"

/* Rounding computes with the bits of floats, without branches, in blocks of a constant length, so that compilers
 * vectorize it. A magnitude is the bits of a float without its sign: magnitudes compare as the numbers do, and those
 * above INFINITE are NaN. */
enum { BLOCK = 16, MAGNITUDE = 0x7fffffff, INFINITE = 0x7f800000 };
INLINE int32_t bits_of(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
INLINE float float_of(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
INLINE int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }
INLINE int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }

/* Weights come from memory, and not every processor fetches them early enough by itself. */
INLINE void fetch(const char *p)
{
#if defined(__GNUC__)
    __builtin_prefetch(p);
#else
    (void)p;
#endif
}

/* Rounds n numbers, of which each is first multiplied by the factor if the format has scales; the result is not 0 if
 * one of them is too large. */
typedef int32_t round_block(int n, const float *restrict from, float factor, void *restrict to);

/* Rounds a row of K numbers, block by block, to numbers of `element` bytes. */
INLINE int32_t round_blocks(round_block *round, ptrdiff_t K, const float *row, float factor, void *values, int element)
{
    enum { AHEAD = 2048 }; /* bytes */
    char *to = values;
    int32_t is_too_large = 0;
    for (; K >= BLOCK; K -= BLOCK, row += BLOCK, to += BLOCK * element) {
        fetch((const char *)row + AHEAD);
        is_too_large |= round(BLOCK, row, factor, to);
    }
    return is_too_large | round((int)K, row, factor, to);
}

INLINE int32_t largest_block(int n, const float *restrict from, float factor, void *restrict to)
{
    int32_t *largest = to;
    (void)factor;
    for (int i = 0; i < n; i++) largest[i] = larger(largest[i], bits_of(from[i]) & MAGNITUDE);
    return 0;
}
/* The largest magnitude of a row: first one for each place in a block. */
INLINE int32_t largest_of(ptrdiff_t K, const float *row)
{
    int32_t largest[BLOCK] = {0};
    round_blocks(largest_block, K, row, 1, largest, 0);
    for (int i = 1; i < BLOCK; i++) largest[0] = larger(largest[0], largest[i]);
    return largest[0];
}

/* int8: the scale is max|w| / 127. The lowest bits of 1.5 * 2^23 + q are those of the integer q. */
INLINE int32_t int8_block(int n, const float *restrict from, float factor, void *restrict to)
{
    int8_t *integers = to;
    for (int i = 0; i < n; i++) {
        const float multiple = from[i] * factor, shifted = multiple + 0x1.8p23f;
        integers[i] = (int8_t)bits_of(shifted);
    }
    return 0;
}
static fastrnn_fit round_int8(ptrdiff_t K, const float *row, void *values, float *scale)
{
    const int32_t magnitude = largest_of(K, row);
    if (magnitude >= INFINITE) return FASTRNN_NOT_FINITE;
    const float largest = float_of(magnitude);
    const int is_zero = largest < FASTRNN_LEAST_ROW;
    *scale = is_zero ? 0 : largest / 127;
    round_blocks(int8_block, K, row, is_zero ? 0 : 127 / largest, values, 1);
    return FASTRNN_FITS;
}

/* A magnitude as the bits of a number of few places, whose least normal number is `least`: with 2^(23 - places + e)
 * added, a number of the exponent e has the last of these places as its last one. Denormals have the exponent of
 * `least`.
 */
INLINE int32_t few_places(int32_t magnitude, int32_t least, int places)
{
    const int32_t exponent = larger(magnitude & INFINITE, least), power = exponent + ((23 - places) << 23);
    const float sum = float_of(magnitude) + float_of(power);
    return ((exponent - least) >> (23 - places)) + bits_of(sum) - power;
}

/* float16: 65536 becomes an infinity. A NaN keeps the upper bits of its payload. */
INLINE int32_t float16_block(int n, const float *restrict from, float factor, void *restrict to)
{
    uint16_t *halves = to;
    int32_t is_too_large = 0;
    (void)factor;
    for (int i = 0; i < n; i++) {
        const int32_t bits = bits_of(from[i]), magnitude = bits & MAGNITUDE;
        const int32_t half = few_places(smaller(magnitude, 143 << 23), 113 << 23, 10);
        const int32_t payload = -(magnitude > INFINITE) & larger(magnitude >> 13 & 0x3ff, 1);
        is_too_large |= (half == 0x7c00) & (magnitude < INFINITE);
        halves[i] = (uint16_t)(half | payload | (bits >> 16 & 0x8000));
    }
    return is_too_large;
}
static fastrnn_fit round_float16(ptrdiff_t K, const float *row, void *values, float *scale)
{
    (void)scale;
    return round_blocks(float16_block, K, row, 1, values, 2) ? FASTRNN_TOO_LARGE : FASTRNN_FITS;
}

/* bfloat16: the upper half of a float, after half a unit of it is added, or a little less where it is even. */
INLINE int32_t bfloat16_block(int n, const float *restrict from, float factor, void *restrict to)
{
    uint16_t *uppers = to;
    int32_t is_too_large = 0;
    (void)factor;
    for (int i = 0; i < n; i++) {
        const int32_t bits = bits_of(from[i]), magnitude = bits & MAGNITUDE, is_nan = -(magnitude > INFINITE);
        const int32_t upper = (int32_t)(((uint32_t)bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        is_too_large |= ((upper & 0x7fff) == 0x7f80) & (magnitude < INFINITE);
        uppers[i] = (uint16_t)((upper & ~is_nan) | (0x7fc0 & is_nan));
    }
    return is_too_large;
}
static fastrnn_fit round_bfloat16(ptrdiff_t K, const float *row, void *values, float *scale)
{
    (void)scale;
    return round_blocks(bfloat16_block, K, row, 1, values, 2) ? FASTRNN_TOO_LARGE : FASTRNN_FITS;
}

/* float8: the scale is the least power of two with which no number exceeds 448 = 1.75 * 2^8. */
INLINE int32_t float8_block(int n, const float *restrict from, float factor, void *restrict to)
{
    uint8_t *numbers = to;
    for (int i = 0; i < n; i++) {
        const int32_t bits = bits_of(from[i]);
        const float multiple = float_of(bits & MAGNITUDE) * factor;
        numbers[i] = (uint8_t)(few_places(bits_of(multiple), 121 << 23, 3) | (bits >> 24 & 0x80));
    }
    return 0;
}
static fastrnn_fit round_float8(ptrdiff_t K, const float *row, void *values, float *scale)
{
    const int32_t magnitude = largest_of(K, row);
    if (magnitude >= INFINITE) return FASTRNN_NOT_FINITE;
    const int32_t rounded_up = (magnitude + 0x1fffff) & INFINITE; /* to a power of two, beyond 1.75 times one */
    if (rounded_up == INFINITE) return FASTRNN_TOO_LARGE;
    const int is_zero = float_of(magnitude) < FASTRNN_LEAST_ROW;
    *scale = is_zero ? 0 : float_of(rounded_up) * 0x1p-8f;
    round_blocks(float8_block, K, row, is_zero ? 0 : 0x1p8f / float_of(rounded_up), values, 1);
    return FASTRNN_FITS;
}

/* Whether the first half of a number in memory is the lower one. */
static int lower_half_is_first(void)
{
    const uint16_t one = 1;
    char first;
    memcpy(&first, &one, 1);
    return first;
}

static void pack_int8(ptrdiff_t K, ptrdiff_t first, const char *from, char *to, ptrdiff_t group_stride, int32_t *offset)
{
    const int8_t *numbers = (const int8_t *)from;
    int32_t sum = 0;
    ptrdiff_t k = 0;
    for (; first % 4 == 0 && k < K - 3; k += 4) {
        memcpy(to + (first + k) / 4 * group_stride, from + k, 4);
        sum += numbers[k] + numbers[k + 1] + numbers[k + 2] + numbers[k + 3];
    }
    for (; k < K; k++) {
        const ptrdiff_t at = first + k;
        to[at / 4 * group_stride + at % 4] = from[k];
        sum += numbers[k];
    }
    *offset -= 128 * sum;
}
static void pack_float16(ptrdiff_t K, ptrdiff_t first, const char *from, char *to, ptrdiff_t group_stride,
                         int32_t *offset)
{
    (void)offset;
    for (ptrdiff_t k = 0; k < K; k++) memcpy(to + (first + k) * group_stride, from + 2 * k, 2);
}
static void pack_bfloat16(ptrdiff_t K, ptrdiff_t first, const char *from, char *to, ptrdiff_t group_stride,
                          int32_t *offset)
{
    (void)offset;
    const int low = lower_half_is_first();
    ptrdiff_t k = 0;
    for (; first % 2 == 0 && k < K - 1; k += 2) {
        uint32_t pair;
        memcpy(&pair, from + 2 * k, 4);
        if (low) pair = pair << 16 | pair >> 16;
        memcpy(to + (first + k) / 2 * group_stride, &pair, 4);
    }
    for (; k < K; k++) {
        const ptrdiff_t at = first + k, upper = at % 2 == 0;
        memcpy(to + at / 2 * group_stride + (upper == low ? 2 : 0), from + 2 * k, 2);
    }
}
static void pack_float8(ptrdiff_t K, ptrdiff_t first, const char *from, char *to, ptrdiff_t group_stride,
                        int32_t *offset)
{
    (void)offset;
    for (ptrdiff_t k = 0; k < K; k++) to[(first + k) * group_stride] = from[k];
}

/* 64: the depth of a tile of AMX. */
const fastrnn_narrow_layout fastrnn_narrow_layouts[FASTRNN_FORMATS] = {
    [FASTRNN_INT8] = {{"int8", "i1", 1, 1, FASTRNN_MOST_INT8}, 1, 4, 64, 0, round_int8, pack_int8},
    [FASTRNN_FLOAT16] = {{"float16", "f2", 0, 0, PTRDIFF_MAX}, 2, 1, 1, 0, round_float16, pack_float16},
    [FASTRNN_BFLOAT16] = {{"bfloat16", "u2", 0, 0, PTRDIFF_MAX}, 2, 2, 2, 0, round_bfloat16, pack_bfloat16},
    [FASTRNN_FLOAT8] = {{"float8", "u1", 1, 1, PTRDIFF_MAX}, 1, 1, 1, 1, round_float8, pack_float8},
};

/* The place of column j in a row of a panel. */
static ptrdiff_t place_of(const fastrnn_narrow_layout *layout, int width, ptrdiff_t j)
{
    if (!layout->alternate) return j;
    const int vector = j >= width / 2;
    return 2 * (j % (width / 2)) + (vector == lower_half_is_first());
}

/* The offsets of the columns of a panel whose weights are multiplied in pairs. */
static void pair_offsets(ptrdiff_t groups, int width, const int8_t *panel, int32_t *offsets)
{
    memset(offsets, 0, (size_t)width * sizeof *offsets);
    for (ptrdiff_t k = 0; k < groups; k++)
        for (int j = 0; j < width; j++, panel += 4) offsets[j] -= panel[0] * panel[1] + panel[2] * panel[3];
}

void fastrnn_pack_narrow(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, int width, const void *weight,
                         const float *scale, const fastrnn_matrix *matrix)
{
    enum { SOME = 256 }; /* numbers of each column, so that their part of a panel stays in the first cache */
    const fastrnn_narrow_layout *layout = &fastrnn_narrow_layouts[matrix->narrow->format];
    const ptrdiff_t N = matrix->N, head = matrix->heads.head, K = head ? head : matrix->K;
    const ptrdiff_t panel_bytes = fastrnn_panel_bytes(matrix, width);
    const ptrdiff_t group_bytes = layout->group * (ptrdiff_t)layout->element, group_stride = width * group_bytes;
    for (ptrdiff_t q = p0; q < p1; q++) {
        char *panel = (char *)matrix->panels + q * panel_bytes;
        memset(panel, 0, (size_t)panel_bytes);
        for (ptrdiff_t j = 0; j < width && matrix->scales; j++) {
            const ptrdiff_t column = q * width + j;
            matrix->scales[column] = column < N ? scale[fastrnn_row_of_column(gates, block, H, column)] : 0;
            matrix->offsets[column] = 0;
        }
        for (ptrdiff_t k = 0; k < K; k += SOME)
            for (ptrdiff_t j = 0; j < width && q * width + j < N; j++) {
                const ptrdiff_t column = q * width + j, row = fastrnn_row_of_column(gates, block, H, column);
                const ptrdiff_t first = head ? row % H / head * head - fastrnn_first_unit(&matrix->heads, q) : 0;
                const ptrdiff_t count = K - k < SOME ? K - k : SOME;
                const char *from = (const char *)weight + (row * K + k) * (ptrdiff_t)layout->element;
                char *to = panel + place_of(layout, width, j) * group_bytes;
                layout->pack_column(count, first + k, from, to, group_stride,
                                    matrix->offsets ? &matrix->offsets[column] : NULL);
            }
        if (matrix->narrow->in_pairs)
            pair_offsets((matrix->K + 3) / 4, width, (const int8_t *)panel, matrix->offsets + q * width);
    }
}
