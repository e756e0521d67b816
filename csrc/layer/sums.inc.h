/* Gradients of weights, in one precision: sums over rows in the order of sums.h. Each level has memory for its sum that
 * is not complete yet; the highest level is the result. A sum that is complete is added to that of the next level, or
 * is copied there where it is the first one. */

/* A gradient, or the numbers of it from one of them on. */
typedef struct {
    real *result; /* NULL: not wanted */
    ptrdiff_t at; /* in the memory of a level */
} NAME(sum);

typedef struct {
    int levels;           /* that of the result */
    ptrdiff_t size;       /* numbers of all gradients: of a level's memory */
    real *block, *groups; /* (size): of level 0; (levels - 1, size): of the levels between it and the result */
    ptrdiff_t done, all;  /* rows: those of the calls before, and of all calls */
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

/* Where the rows of a part are to be summed, and how. The first block of a group is summed in the memory of the group;
 * another one that is not in parts is added to it by the kernel that sums it. */
static real *NAME(open_sum)(const NAME(sums) * sums, NAME(sum) sum, fastrnn_block_part part, sum_start *start)
{
    const int first = part.block % GROUP_SUMS == 0, add = !first && part.opens && part.closes;
    *start = add ? SUM_ADDED : part.opens ? SUM_FRESH : SUM_ON;
    return NAME(sum_of_level)(sums, sum, sums->levels > 0 && (first || add));
}

/* After that, for n numbers of the sum. */
static void NAME(close_sum)(const NAME(sums) * sums, const NAME(kernels) * kernel, NAME(sum) sum,
                            fastrnn_block_part part, ptrdiff_t n)
{
    if (!part.closes || sums->levels == 0) return;
    ptrdiff_t count = part.block + 1; /* sums of this level that are complete */
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
