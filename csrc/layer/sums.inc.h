/* Gradients of weights, in one precision: sums over rows in the order of sums.h. Each level has memory for its
 * incomplete sum; the highest level is the result. A complete sum is added to the sum of the next level, or copied
 * there if it is the first one. */

/* A gradient, or the rest of one from some element on. */
typedef struct {
    real *result; /* NULL: not computed */
    ptrdiff_t at; /* the first element, in the memory of a level */
} NAME(sum);

typedef struct {
    int levels;           /* the level of the result */
    ptrdiff_t size;       /* elements of all gradients: the size of a level's memory */
    real *block, *groups; /* (size): of level 0; (levels - 1, size): of the levels between it and the result */
    ptrdiff_t done, all;  /* rows of the calls before, and of all calls */
    NAME(sum) weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole;
} NAME(sums);

INLINE NAME(sum) NAME(sum_from)(NAME(sum) sum, ptrdiff_t first)
{
    return (NAME(sum)){sum.result + first, sum.at + first};
}

INLINE real *NAME(sum_of_level)(const NAME(sums) * sums, NAME(sum) sum, int level)
{
    return level == sums->levels ? sum.result
           : level == 0          ? sums->block + sum.at
                                 : sums->groups + (level - 1) * sums->size + sum.at;
}

/* Returns the memory in which the rows of a part are summed. *start written: how the sum starts. The first block of a
 * group is summed in the memory of the group. The kernel adds each later block to it, unless the block comes in several
 * parts. */
static real *NAME(open_sum)(const NAME(sums) * sums, NAME(sum) sum, fastrnn_block_part part, sum_start *start)
{
    const int first = part.block % GROUP_SUMS == 0, add = !first && part.opens && part.closes;
    *start = add ? SUM_ADDED : part.opens ? SUM_FRESH : SUM_ON;
    return NAME(sum_of_level)(sums, sum, sums->levels > 0 && (first || add));
}

/* Ends the sum of a part, of n elements: adds complete sums to those of the next levels. */
static void NAME(close_sum)(const NAME(sums) * sums, const NAME(kernels) * kernel, NAME(sum) sum,
                            fastrnn_block_part part, ptrdiff_t n)
{
    if (!part.closes || sums->levels == 0) return;
    ptrdiff_t count = part.block + 1; /* complete sums of this level */
    if (part.block % GROUP_SUMS != 0 && !part.opens) {
        real *group = NAME(sum_of_level)(sums, sum, 1);
        kernel->add(n, group, NAME(sum_of_level)(sums, sum, 0), group);
    }
    for (int level = 1; level < sums->levels; level++) {
        if (count % GROUP_SUMS != 0 && !part.ends) return;
        count = fastrnn_panels(count, GROUP_SUMS);
        const real *from = NAME(sum_of_level)(sums, sum, level);
        real *to = NAME(sum_of_level)(sums, sum, level + 1);
        if ((count - 1) % GROUP_SUMS == 0)
            memcpy(to, from, (size_t)n * sizeof(real));
        else
            kernel->add(n, to, from, to);
    }
}

/* Adds to the gradient of a weight the sum of a[r]^T b[r] over the rows of a part, the last first: for some columns of
 * a, which are rows of the weight, and some panels of b (part.rows, N). a has the leading dimension a_row. gradient
 * begins with the first of the columns; scratch: memory for packed tiles, of this member alone. */
static void NAME(sum_products)(const NAME(sums) * sums, const NAME(kernels) * kernel, const fastrnn_member *me,
                               fastrnn_block_part part, fastrnn_range columns, fastrnn_range panels, const real *a,
                               ptrdiff_t a_row, const fastrnn_matrix *b, real *scratch, NAME(sum) gradient)
{
    const ptrdiff_t most = kernel->outer_rows, N = b->N, first = panels.from * kernel->width;
    const ptrdiff_t n = (panels.to * kernel->width < N ? panels.to * kernel->width : N) - first;
    for (ptrdiff_t from = columns.from, to; n > 0 && from < columns.to; from = to) {
        to = columns.to - from < most ? columns.to : from + most;
        if (!fastrnn_team_go(me, 2.0 * (to - from) * n * part.rows)) return;
        const NAME(sum) rest = NAME(sum_from)(gradient, (from - columns.from) * N);
        sum_start start;
        real *sum = NAME(open_sum)(sums, rest, part, &start);
        kernel->outer_product(to - from, panels.from, panels.to, a + from, a_row, b, start, sum, scratch);
        const ptrdiff_t pieces = n == N ? 1 : to - from;
        for (ptrdiff_t k = 0; k < pieces; k++)
            NAME(close_sum)(sums, kernel, NAME(sum_from)(rest, k * N + first), part, (to - from) * n / pieces);
    }
}
