/* The operand of int8: rows of activations rounded to 8 bits. N(store)(row, k, x) stores numbers k .. k + VL - 1, x to
 * the nearest, in the layout of the instructions. The numbers after the last one of a row meet weights that are 0. */

/* Several threads may poison a row at the same time. */
INLINE void N(poison_row)(void *operand, ptrdiff_t row, float scale)
{
#if defined(__GNUC__)
    __atomic_store((float *)operand + row - 1, &scale, __ATOMIC_RELAXED);
#else
    ((volatile float *)operand)[row - 1] = scale;
#endif
}

/* max |a|; poison: NaN if any number is NaN or infinite, else 0. */
INLINE float N(largest)(ptrdiff_t K, const float *a, float *poison)
{
    vec most = v_set1(0), bad = v_set1(0);
    for (ptrdiff_t k = 0; k < K; k += VL) {
        const vec x = NAME(load_lanes)(a + k, NAME(lanes_at)(K, k));
        most = v_max(most, v_abs(x));
        bad = v_fma(x, v_set1(0), bad);
    }
    float lanes[VL], bads[VL], result = 0;
    v_store(lanes, most);
    v_store(bads, bad);
    *poison = 0;
    for (int i = 0; i < VL; i++) {
        if (lanes[i] > result) result = lanes[i];
        *poison += bads[i];
    }
    return result;
}

/* Numbers [k0, k1) of a row times a factor. */
INLINE void N(round)(ptrdiff_t k0, ptrdiff_t k1, const float *a, float factor, void *operand)
{
    const vec f = v_set1(factor);
    for (ptrdiff_t k = k0; k < k1; k += VL)
        N(store)(operand, k, v_mul(NAME(load_lanes)(a + k, NAME(lanes_at)(k1, k)), f));
}

/* The scale of a row of K numbers, and the factor that turns its numbers into multiples of it. */
INLINE float N(scale)(ptrdiff_t K, const float *a, int bounded, int is_zero, float *factor)
{
    float poison = 0;
    const float most = is_zero ? 0 : N(largest)(K, a, &poison);
    *factor = 0;
    if (poison != poison) return poison;
    if (bounded && most <= FASTRNN_BOUND) {
        *factor = is_zero ? 0 : 127;
        return 1.0f / 127;
    }
    if (most < FASTRNN_LEAST_ROW) return 0;
    *factor = 127 / most;
    return most / 127;
}

static void N(round_rows)(ptrdiff_t M, ptrdiff_t K, int bounded, const void *a, ptrdiff_t a_row, const uint8_t *zero,
                          void *operand, ptrdiff_t row)
{
    for (ptrdiff_t m = 0; m < M; m++) {
        const float *from = (const float *)a + m * a_row;
        float *to = (float *)operand + m * row, factor;
        to[row - 1] = N(scale)(K, from, bounded, zero && zero[m], &factor);
        N(round)(0, K, from, factor, to);
    }
}

static void N(subtract_rounded)(ptrdiff_t M, ptrdiff_t K, void *a, ptrdiff_t a_row)
{
    const vec integers = v_set1(0x1.8p23f); /* a float of this size is an integer */
    for (ptrdiff_t m = 0; m < M; m++) {
        float *row = (float *)a + m * a_row, factor;
        const vec scale = v_set1(-N(scale)(K, row, 0, 0, &factor)), f = v_set1(factor);
        for (ptrdiff_t k = 0; k < K; k += VL) {
            const int lanes = NAME(lanes_at)(K, k);
            const vec x = NAME(load_lanes)(row + k, lanes);
            const vec rounded = v_sub(v_add(v_mul(x, f), integers), integers);
            NAME(store_lanes)(row + k, v_fma(rounded, scale, x), lanes);
        }
    }
}

static void N(begin_rows)(ptrdiff_t M, void *operand, ptrdiff_t row)
{
    for (ptrdiff_t m = 0; m < M; m++) ((float *)operand)[(m + 1) * row - 1] = 1.0f / 127;
}

static void N(round_units)(ptrdiff_t M, ptrdiff_t k0, ptrdiff_t k1, const void *a, ptrdiff_t a_row, const uint8_t *zero,
                           void *operand, ptrdiff_t row)
{
    const vec f = v_set1(127);
    for (ptrdiff_t m = 0; m < M; m++) {
        const float *from = (const float *)a + m * a_row;
        float *to = (float *)operand + m * row, bads[VL], poison = 0;
        if (zero && zero[m]) {
            for (ptrdiff_t k = k0; k < k1; k += VL) N(store)(to, k, v_set1(0));
            continue;
        }
        vec bad = v_set1(0);
        for (ptrdiff_t k = k0; k < k1; k += VL) {
            const vec x = NAME(load_lanes)(from + k, NAME(lanes_at)(k1, k));
            bad = v_fma(x, v_set1(0), bad);
            N(store)(to, k, v_mul(x, f));
        }
        v_store(bads, bad);
        for (int i = 0; i < VL; i++) poison += bads[i];
        if (poison != poison) N(poison_row)(to, row, poison);
    }
}
