/* Losses and their gradients, row by row. */

/* log(a) of a finite a >= 1 in double precision, by log(a) = n log(2) + 2 artanh((m - 1) / (m + 1)), a = 2^n m. */
static double NAME(log)(double a)
{
    int n;
    double m = 2 * frexp(a, &n); /* exact */
    n--;
    if (m > 1.4142135623730951) m /= 2, n++;
    const double u = (m - 1) / (m + 1), w = u * u;
    double r[VL_f64];
    v_store_f64(r, artanh_polynomial_f64(v_set1_f64(w)));
    return n * 0x1.62e42fefa39efp-1 + (2 * u + 2 * u * w * r[0]);
}

/* 1. m = max(z)   2. e_c = exp(z_c - m), s = their sum   3. the loss: log(s) - (z_target - m)
 * 4. d_c = scale * (e_c / s - (c == target)); a negative target: 0 and zeros */
static double NAME(softmax_cross_entropy)(ptrdiff_t C, const real *z, int64_t target, double scale, real *d)
{
    if (target < 0) {
        for (ptrdiff_t c = 0; c < C; c++) d[c] = 0;
        return 0;
    }
    real m = z[0];
    ptrdiff_t c = 0;
    if (C >= VL) {
        real of_lanes[VL];
        vec most = v_load(z);
        for (; c + VL <= C; c += VL) most = v_max(v_load(z + c), most);
        v_store(of_lanes, most);
        for (int l = 0; l < VL; l++) m = of_lanes[l] > m ? of_lanes[l] : m;
    }
    for (; c < C; c++) m = z[c] > m ? z[c] : m;
    const double away = (double)z[target] - (double)m;
    const vec largest = v_set1(m);
    for (c = 0; c < C; c += VL) {
        const int lanes = NAME(lanes_at)(C, c);
        NAME(store_lanes)(d + c, NAME(exp_minus)(v_sub(largest, NAME(load_lanes)(z + c, lanes))), lanes);
    }
    const double sum = NAME(sum_numbers)(C, d);
    const vec factor = v_set1((real)(scale / sum));
    for (c = 0; c < C; c += VL) {
        const int lanes = NAME(lanes_at)(C, c);
        NAME(store_lanes)(d + c, v_mul(NAME(load_lanes)(d + c, lanes), factor), lanes);
    }
    d[target] -= (real)scale;
    return NAME(log)(sum) - away;
}

/* The sum of (p - t)^2 over n numbers; d = 2 * scale * (p - t). */
static double NAME(squared_error)(ptrdiff_t n, const real *p, const real *t, double scale, real *d)
{
    for (ptrdiff_t k = 0; k < n; k++) d[k] = p[k] - t[k];
    const double sum = NAME(sum_squares)(n, d);
    NAME(scale)(n, 2 * scale, d);
    return sum;
}
