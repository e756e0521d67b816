/* The kernels of an instruction set: one constant table of serial functions per precision. They know no threads,
 * allocate nothing and check nothing; layer/ decides which part of the work each call does. */
#ifndef FASTRNN_KERNELS_H
#define FASTRNN_KERNELS_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "fastrnn.h"
#include "kernels/names.h"
#include "kernels/stream_types.h"

#if defined(__FAST_MATH__)
#error "fast-math would reorder the sums, and flushes denormals in the whole process"
#endif

/* Sums over rows are made in blocks of so many rows, see fastrnn.h. A sum begins with 0 and replaces its destination
 * (SUM_FRESH); continues from its destination (SUM_ON); or begins with 0 and is added to its destination (SUM_ADDED).
 */
enum { BLOCK_ROWS = 512 };
typedef enum { SUM_FRESH, SUM_ON, SUM_ADDED } sum_start;

/* A packed matrix (K, N), the right-hand side of a GEMM. Only packing and the product depend on the format. */
typedef enum {
    FASTRNN_PANELS, /* numbers of the call's precision: panels of `width` columns, each [K][width], the last one
                       zero-padded to a full vector */
} fastrnn_format;

/* A block-diagonal matrix: its K rows are some segments of `units` rows each, its N columns belong to the units, too,
 * and only the rows and columns of the same head meet. So many panels, a group, have the columns of so many units; of
 * each segment a panel has `rows` rows only, those of all heads of its group. */
typedef struct {
    ptrdiff_t units, head; /* of all heads, and of one; head is 0 for a dense matrix */
    ptrdiff_t group_panels, group_units, rows;
} fastrnn_heads;
typedef struct {
    fastrnn_format format;
    ptrdiff_t K, N; /* K: the rows of a panel */
    void *panels;
    fastrnn_heads heads;
} fastrnn_matrix;

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
};

extern const struct fastrnn_isa fastrnn_isa_generic;
#if defined(__x86_64__) || defined(_M_X64)
extern const struct fastrnn_isa fastrnn_isa_avx2, fastrnn_isa_avx512;
#define FASTRNN_X86_64 1
#elif defined(__aarch64__)
extern const struct fastrnn_isa fastrnn_isa_neon;
#define FASTRNN_AARCH64 1
#endif
/* A further set is one vec/NAME.h, one kernels_NAME.c, its line here and its line in runtime/dispatch.c. */

#endif
