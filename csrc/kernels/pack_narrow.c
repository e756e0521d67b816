/* The narrow formats, and the packing of their weights: a copy of bits, the same for all instruction sets. */
#include <string.h>

#include "kernels/columns.h"
#include "kernels/kernels.h"

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
    const uint16_t one = 1;
    char low;
    memcpy(&low, &one, 1); /* whether the first half of 32 bits in memory is the lower one */
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

const fastrnn_narrow_layout fastrnn_narrow_layouts[FASTRNN_FORMATS] = {
    [FASTRNN_INT8] = {{"int8", "i1", 1, FASTRNN_MOST_INT8}, 1, 4, 64, pack_int8}, /* 64: the depth of a tile of AMX */
    [FASTRNN_FLOAT16] = {{"float16", "f2", 0, PTRDIFF_MAX}, 2, 1, 1, pack_float16},
    [FASTRNN_BFLOAT16] = {{"bfloat16", "u2", 0, PTRDIFF_MAX}, 2, 2, 2, pack_bfloat16},
};

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
                layout->pack_column(count, first + k, from, panel + j * group_bytes, group_stride,
                                    matrix->offsets ? &matrix->offsets[column] : NULL);
            }
    }
}
