/* Sums of a (n) in double precision, whose order does not depend on the width of a vector: number k is added to sum
 * k % DOUBLE_SUMS, and these sums in pairs. */
enum { NAME(DOUBLE_SUMS) = 16 };

INLINE double NAME(term)(real a, int squared) { return squared ? (double)a * (double)a : (double)a; }
INLINE double NAME(sum_terms)(ptrdiff_t n, const real *a, int squared)
{
    double sums[NAME(DOUBLE_SUMS)] = {0};
    ptrdiff_t k = 0;
    for (; k + NAME(DOUBLE_SUMS) <= n; k += NAME(DOUBLE_SUMS))
        for (int l = 0; l < NAME(DOUBLE_SUMS); l++) sums[l] += NAME(term)(a[k + l], squared);
    for (int l = 0; k + l < n; l++) sums[l] += NAME(term)(a[k + l], squared);
    for (int half = NAME(DOUBLE_SUMS) / 2; half; half /= 2)
        for (int l = 0; l < half; l++) sums[l] += sums[l + half];
    return sums[0];
}

static double NAME(sum_numbers)(ptrdiff_t n, const real *a) { return NAME(sum_terms)(n, a, 0); }
static double NAME(sum_squares)(ptrdiff_t n, const real *a) { return NAME(sum_terms)(n, a, 1); }
