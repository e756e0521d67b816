/* The sLSTM cell (Beck et al. 2024, "xLSTM", section 2.2), forward and backward. Its states are h, the cell state c,
 * the normalizer n and the stabilizer m; c and n are those of the paper times exp(-m), which cancels in c / n.
 *   1  a = log(sigmoid(z_f)) + m_{t-1}, g = tanh(z_z), o = sigmoid(z_o)
 *   2  m_t = a if a > z_i and n_{t-1} is not 0, else z_i
 *   3  i = exp(z_i - m_t), f = exp(a - m_t), or 0 if n_{t-1} is 0: the state is empty
 *   4  c_t = f c_{t-1} + i g, n_t = f n_{t-1} + i
 *   5  h_t = o (c_t / n_t)
 * Saved for backward: i, f, g, o and, as `intermediate`, sigmoid(-z_f), negative where m_t = a. Until 3, the gates have
 * a in the place of f. */
INLINE void NAME(slstm_first)(const NAME(units) * u)
{
    const ptrdiff_t gate_stride = u->gate_stride;
    real *gates = u->gates;
    vec z_f = LOAD(gates + gate_stride), e, one = v_set1(1);
    vec log_f = NAME(log_sigmoid_exp)(z_f, &e);
    STORE(gates + gate_stride, v_add(log_f, LOAD(u->state_prev[3]))); /* 1 */
    STORE(gates + 2 * gate_stride, NAME(tanh)(LOAD(gates + 2 * gate_stride)));
    STORE(gates + 3 * gate_stride, NAME(sigmoid)(LOAD(gates + 3 * gate_stride)));
    if (u->keep) {
        vec q = v_div(e, v_add(one, e));
        STORE(u->intermediate, v_if_negative(z_f, v_sub(one, q), q));
    }
}
INLINE vec NAME(slstm_h)(vec o, vec c, vec n) { return v_mul(o, v_div(c, n)); } /* 5 */
INLINE void NAME(slstm_second)(const NAME(units) * u)
{
    const ptrdiff_t gate_stride = u->gate_stride;
    real *gates = u->gates;
    vec z_i = LOAD(gates), a = LOAD(gates + gate_stride), g = LOAD(gates + 2 * gate_stride),
        o = LOAD(gates + 3 * gate_stride);
    vec n_prev = LOAD(u->state_prev[2]), zero = v_set1(0);
    /* Negative where n_prev is 0, but not for a NaN. */
    vec empty = v_sub(v_abs(n_prev), NAME(least_normal)()), kept = v_if_negative(empty, zero, v_sub(z_i, a));
    vec m = v_if_negative(kept, a, z_i);                                                                  /* 2 */
    vec i = NAME(exp_minus)(v_sub(m, z_i)), f = v_if_negative(empty, zero, NAME(exp_minus)(v_sub(m, a))); /* 3 */
    vec c = v_fma(f, LOAD(u->state_prev[1]), v_mul(i, g)), n = v_fma(f, n_prev, i);                       /* 4 */
    STORE(u->state[1], c);
    STORE(u->state[2], n);
    STORE(u->state[3], m);
    NAME(store_h)(u, NAME(slstm_h)(o, c, n));
    if (u->keep) {
        STORE(gates, i);
        STORE(gates + gate_stride, f);
        STORE(u->intermediate, v_copysign(LOAD(u->intermediate), v_if_negative(kept, v_set1(-1), v_set1(1))));
    }
}

#ifndef FASTRNN_FORWARD_ONLY
/* d_x stands for the gradient of the loss with respect to x; numbers as above. 2 and 3 are taken together: where m_t =
 * a, f is 1, and the gradients of f and of m_t through it cancel; else those of i do.
 *   5  d_o = d_h c_t / n_t, d_c += d_h o / n_t, d_n -= d_h o c_t / n_t^2
 *   4  d_i = d_c g + d_n, d_f = d_c c_{t-1} + d_n n_{t-1}, d_g = d_c i,  d_c_{t-1} = d_c f, d_n_{t-1} = d_n f
 *   3  where m_t = a: d_z_i = d_i i, d_a = d_m - d_i i; else d_a = d_f f, d_z_i = d_m - d_f f
 *   1  d_z_f = d_a sigmoid(-z_f), d_m_{t-1} = d_a, d_z_z = d_g (1 - g^2), d_z_o = d_o o (1 - o) */
INLINE void NAME(slstm_back)(const NAME(units_back) * u)
{
    const ptrdiff_t gate_stride = u->gate_stride, H = u->H;
    vec one = v_set1(1);
    vec i = LOAD(u->gates), f = LOAD(u->gates + gate_stride), g = LOAD(u->gates + 2 * gate_stride),
        o = LOAD(u->gates + 3 * gate_stride);
    vec c = LOAD(u->state[1]), n = LOAD(u->state[2]), slope = LOAD(u->intermediate), d_h = NAME(d_h)(u);
    if (u->h) STORE(u->h, NAME(slstm_h)(o, c, n));

    vec ratio = v_div(c, n), d_ratio = v_div(v_mul(d_h, o), n); /* 5 */
    vec d_c = v_add(LOAD(u->d_state[1]), d_ratio), d_n = v_fnma(d_ratio, ratio, LOAD(u->d_state[2]));
    vec d_z_o = v_mul(v_mul(d_h, ratio), v_fnma(o, o, o));
    vec d_i = v_fma(d_c, g, d_n), d_m = LOAD(u->d_state[3]); /* 4 */
    vec d_f = v_fma(d_c, LOAD(u->state_prev[1]), v_mul(d_n, LOAD(u->state_prev[2])));
    STORE(u->d_state[1], v_mul(d_c, f));
    STORE(u->d_state[2], v_mul(d_n, f));
    vec kept = v_copysign(one, slope), of_i = v_mul(d_i, i), of_f = v_mul(d_f, f); /* 3 */
    vec d_a = v_if_negative(kept, v_sub(d_m, of_i), of_f);
    STORE(u->d_state[3], d_a);
    STORE(u->d_gates, v_if_negative(kept, of_i, v_sub(d_m, of_f)));
    STORE(u->d_gates + H, v_mul(d_a, v_copysign(slope, one))); /* 1 */
    STORE(u->d_gates + 2 * H, v_mul(v_mul(d_c, i), v_fnma(g, g, one)));
    STORE(u->d_gates + 3 * H, d_z_o);
}

enum { NAME(SLSTM_BLOCK) = 64 / sizeof(real) };

/* 5, from the tape */
static void NAME(slstm_recover_h)(ptrdiff_t rows, ptrdiff_t H, const fastrnn_options *options, const real *gates,
                                  const real *const *states, real *h)
{
    (void)options;
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t j = 0; j < H; j += VL) {
            const int lanes = NAME(lanes_at)(H, j);
            const ptrdiff_t gate_stride = fastrnn_gate_stride(NAME(SLSTM_BLOCK), H, j);
            const real *at = gates + r * 4 * H + fastrnn_gate_column(4, NAME(SLSTM_BLOCK), j);
            const vec o = NAME(load_lanes)(at + 3 * gate_stride, lanes),
                      c = NAME(load_lanes)(states[1] + r * H + j, lanes),
                      n = NAME(load_lanes)(states[2] + r * H + j, lanes);
            NAME(store_lanes)(h + r * H + j, NAME(slstm_h)(o, c, n), lanes);
        }
}
#endif

/* clang-format off */
DEFINE_CELL(slstm, 4, 0, NAME(SLSTM_BLOCK), NAME(slstm_first), NAME(slstm_second), NULL, NAME(slstm_back), NULL,
    .states = 4, .d_gates = 4, .saves_gates = 1, .saves_intermediate = 1, .recover_h = NAME(slstm_recover_h))
/* clang-format on */
