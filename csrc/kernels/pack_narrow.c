/* The narrow formats, and the packing of their weights: a copy of bits, the same for all instruction sets. */
#include <string.h>

#include "kernels/columns.h"
#include "kernels/kernels.h"

static void pack_int8(ptrdiff_t K, ptrdiff_t first, const char *from, char *to, ptrdiff_t group_stride, int32_t *offset)
{
    const int8_t *numbers = (const int8_t *)from;
    int32_t sum = 0;
    for (ptrdiff_t k = 0; k < K; k++) {
        const ptrdiff_t at = first + k;
        to[at / 4 * group_stride + at % 4] = from[k];
        sum += numbers[k];
    }
    *offset = -128 * sum;
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
    for (ptrdiff_t k = 0; k < K; k++) {
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
    const fastrnn_narrow_layout *layout = &fastrnn_narrow_layouts[matrix->narrow->format];
    const ptrdiff_t N = matrix->N, head = matrix->heads.head, K = head ? head : matrix->K;
    const ptrdiff_t panel_bytes = fastrnn_panel_bytes(matrix, width);
    const ptrdiff_t group_bytes = layout->group * (ptrdiff_t)layout->element, group_stride = width * group_bytes;
    for (ptrdiff_t q = p0; q < p1; q++) {
        char *panel = (char *)matrix->panels + q * panel_bytes;
        memset(panel, 0, (size_t)panel_bytes);
        for (ptrdiff_t j = 0; j < width; j++) {
            const ptrdiff_t column = q * width + j;
            const ptrdiff_t row = column < N ? fastrnn_row_of_column(gates, block, H, column) : 0;
            if (matrix->scales) matrix->scales[column] = column < N ? scale[row] : 0;
            if (matrix->scales) matrix->offsets[column] = 0;
            if (column >= N) continue;
            const ptrdiff_t first = head ? row % H / head * head - fastrnn_first_unit(&matrix->heads, q) : 0;
            const char *from = (const char *)weight + row * K * (ptrdiff_t)layout->element;
            layout->pack_column(K, first, from, panel + j * group_bytes, group_stride,
                                matrix->offsets ? &matrix->offsets[column] : NULL);
        }
    }
}
