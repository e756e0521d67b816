/* The kernels of an instruction set: one constant table of serial functions per precision. They know no threads,
 * allocate nothing and check nothing; layer/ decides which part of the work each call does. */
#ifndef FASTRNN_KERNELS_H
#define FASTRNN_KERNELS_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "fastrnn.h"
#include "kernels/columns.h"
#include "kernels/names.h"
#include "kernels/narrow.h"
#include "kernels/stream_types.h"
#include "kernels/tiles.h"

#if defined(__FAST_MATH__)
#error "fast-math would reorder the sums, and flushes denormals in the whole process"
#endif

/* Sums over rows are made in blocks of BLOCK_ROWS rows, see fastrnn.h. A sum begins with 0 and replaces its destination
 * (SUM_FRESH); continues from its destination (SUM_ON); or begins with 0 and is added to its destination (SUM_ADDED).
 */
enum { BLOCK_ROWS = 512 };
typedef enum { SUM_FRESH, SUM_ON, SUM_ADDED } sum_start;

/* A block-diagonal matrix. Its K rows are segments of `units` rows each; its N columns also belong to the units. Only
 * rows and columns of the same head meet. A group is group_panels panels with the columns of group_units units. A panel
 * has only `rows` rows of each segment: the rows of all heads of its group. */
typedef struct {
    ptrdiff_t units, head; /* of all heads, and of one; head is 0 for a dense matrix */
    ptrdiff_t group_panels, group_units, rows;
} fastrnn_heads;
/* A packed matrix (K, N), the right-hand side of a product: panels of `width` columns, [K][width] each, the last one
 * zero-padded to a full vector; or in the layout of a narrow format. Only packing and the product depend on the
 * layout. */
typedef struct fastrnn_matrix {
    ptrdiff_t K, N; /* K: the rows of a panel */
    void *panels;
    fastrnn_heads heads;
    const fastrnn_narrow *narrow; /* NULL: numbers of the call's precision */
    float *scales;                /* of the columns, padded to panels; or NULL */
    int32_t *offsets;             /* of each column, with which a sum of integers begins; or NULL. -128 times the sum
                                     of the weights, for an operand to whose numbers 128 is added; in pairs, minus the
                                     sum of w_0 w_1, w_2 w_3, ... */
} fastrnn_matrix;

/* The bytes of a panel in a narrow format. */
static inline ptrdiff_t fastrnn_panel_bytes(const fastrnn_matrix *matrix, int width)
{
    const fastrnn_narrow_layout *layout = &fastrnn_narrow_layouts[matrix->narrow->format];
    const ptrdiff_t depth = (matrix->K + layout->depths - 1) / layout->depths * layout->depths;
    return depth * width * (ptrdiff_t)layout->element;
}

/* The scales and offsets of columns from `column` on. */
typedef struct {
    const float *scales;
    const int32_t *offsets;
} fastrnn_columns;
static inline fastrnn_columns fastrnn_columns_from(const fastrnn_matrix *matrix, ptrdiff_t column)
{
    if (!matrix->scales) return (fastrnn_columns){NULL, NULL};
    return (fastrnn_columns){matrix->scales + column, matrix->offsets + column};
}

/* The unit of the first row that a panel has of each segment; 0 for a dense matrix. */
static inline ptrdiff_t fastrnn_first_unit(const fastrnn_heads *heads, ptrdiff_t panel)
{
    if (!heads->head) return 0;
    const ptrdiff_t first = panel / heads->group_panels * heads->group_units / heads->head * heads->head;
    return first < heads->units - heads->rows ? first : heads->units - heads->rows;
}

static inline size_t fastrnn_element_bytes(fastrnn_dtype dtype)
{
    return dtype == FASTRNN_F32 ? sizeof(float) : sizeof(double);
}

/* The recurrent product of a step has one part or two parts. The second part reads results of the first, so a barrier
 * separates them. */
enum { MOST_PARTS = 2 };

#define BOTH "kernels/table.inc.h"
#include "kernels/both.inc.h"

struct fastrnn_isa {
    const char *name;
    const kernels_f32 *f32;
    const kernels_f64 *f64;
    const fastrnn_narrow *const *narrow; /* the fastest of each format first, then NULL */
};

/* The kernels of a format with the given instructions, or else the fastest that this processor supports; NULL for
 * FASTRNN_NATIVE. */
const fastrnn_narrow *fastrnn_find_narrow(const struct fastrnn_isa *, fastrnn_format, const char *instructions);

extern const struct fastrnn_isa fastrnn_isa_generic;
#if defined(__x86_64__) || defined(_M_X64)
extern const struct fastrnn_isa fastrnn_isa_avx2, fastrnn_isa_avx512;
int fastrnn_bfloat16_is_fused(void); /* whether vdpbf16ps of this processor gives the sums of two fma, in order */
#define FASTRNN_X86_64 1
#elif defined(__aarch64__)
extern const struct fastrnn_isa fastrnn_isa_neon;
#define FASTRNN_AARCH64 1
#endif
/* A new set needs vec/NAME.h, narrow/NAME.h, kernels_NAME.c, a line here and a line in runtime/dispatch.c. */

#endif
