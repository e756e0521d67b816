/* The LSTM cell (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000 and, where there are
 * peepholes p, those of Gers et al. 2002), forward and backward. Its states are h and c.
 *   1  i = sigmoid(z_i + p_i c_{t-1}), f = sigmoid(z_f + p_f c_{t-1}), g = tanh(z_g)
 *   2  c_t = f c_{t-1} + i g
 *   3  o = sigmoid(z_o + p_o c_t)
 *   4  h_t = o tanh(c_t)
 * The step writes o over z_o; it writes the other gates over their sums only if they are kept. */
INLINE void NAME(lstm_first)(const NAME(units) * u)
{
    real *gates = u->gates;
    const ptrdiff_t gate_stride = u->gate_stride, H = u->H;
    vec z_i = LOAD(gates), z_f = LOAD(gates + gate_stride), z_o = LOAD(gates + 3 * gate_stride),
        c_prev = LOAD(u->state_prev[1]);
    if (u->peephole) {
        z_i = v_fma(LOAD(u->peephole), c_prev, z_i);
        z_f = v_fma(LOAD(u->peephole + H), c_prev, z_f);
    }
    vec i = NAME(gate)(u->options, z_i), f = NAME(gate)(u->options, z_f),
        g = NAME(activation)(u->options, LOAD(gates + 2 * gate_stride)); /* 1 */
    vec c = v_fma(f, c_prev, v_mul(i, g));                               /* 2 */
    STORE(u->state[1], c);
    if (u->peephole) z_o = v_fma(LOAD(u->peephole + 2 * H), c, z_o);
    STORE(gates + 3 * gate_stride, NAME(gate)(u->options, z_o)); /* 3 */
    if (u->keep) {
        STORE(gates, i);
        STORE(gates + gate_stride, f);
        STORE(gates + 2 * gate_stride, g);
    }
}
INLINE void NAME(lstm_second)(const NAME(units) * u)
{
    vec h =
        v_mul(LOAD(u->gates + 3 * u->gate_stride), NAME(unclipped_activation)(u->options, LOAD(u->state[1]))); /* 4 */
    NAME(store_h)(u, h);
}

#ifndef FASTRNN_FORWARD_ONLY
/* d_x stands for the gradient of the loss with respect to x; numbers as above.
 *   4  d_o = d_h tanh(c_t),  d_c += d_h o (1 - tanh(c_t)^2)
 *   3  d_z_o = d_o o (1 - o),  d_c += d_z_o p_o
 *   2  d_i = d_c g, d_f = d_c c_{t-1}, d_g = d_c i,  d_c_{t-1} = d_c f
 *   1  d_z_i = d_i i (1 - i), d_z_f = d_f f (1 - f), d_z_g = d_g (1 - g^2),  d_c_{t-1} += d_z_i p_i + d_z_f p_f */
INLINE void NAME(lstm_back)(const NAME(units_back) * u)
{
    const ptrdiff_t gate_stride = u->gate_stride, H = u->H;

    vec i = LOAD(u->gates), f = LOAD(u->gates + gate_stride), g = LOAD(u->gates + 2 * gate_stride),
        o = LOAD(u->gates + 3 * gate_stride);
    vec tanh_c = NAME(unclipped_activation)(u->options, LOAD(u->state[1]));
    vec d_h = NAME(d_h)(u);
    if (u->h) STORE(u->h, v_mul(o, tanh_c));

    vec d_c = NAME(unclipped_activation_back)(u->options, tanh_c, v_mul(d_h, o), LOAD(u->d_state[1])); /* 4 */
    vec d_z_o = NAME(gate_back)(u->options, o, v_mul(d_h, tanh_c));                                    /* 3 */
    if (u->peephole) d_c = v_fma(d_z_o, LOAD(u->peephole + 2 * H), d_c);
    vec d_c_prev = v_mul(d_c, f);                              /* 2 */
    vec d_z_i = NAME(gate_back)(u->options, i, v_mul(d_c, g)); /* 1 */
    vec d_z_f = NAME(gate_back)(u->options, f, v_mul(d_c, LOAD(u->state_prev[1])));
    vec d_z_g = NAME(activation_back)(u->options, g, v_mul(d_c, i));
    if (u->peephole) d_c_prev = v_fma(d_z_f, LOAD(u->peephole + H), v_fma(d_z_i, LOAD(u->peephole), d_c_prev));
    STORE(u->d_state[1], d_c_prev);
    STORE(u->d_gates, d_z_i);
    STORE(u->d_gates + H, d_z_f);
    STORE(u->d_gates + 2 * H, d_z_g);
    STORE(u->d_gates + 3 * H, d_z_o);
}

enum { NAME(LSTM_BLOCK) = 64 / sizeof(real) };

/* Equation 4 for n rows of the tape: h (n, H) from gates (n, 4 H) and c (n, H). */
static void NAME(lstm_recover_h)(ptrdiff_t n, ptrdiff_t H, const fastrnn_options *options, const real *gates,
                                 const real *const *states, real *h)
{
    for (ptrdiff_t r = 0; r < n; r++)
        for (ptrdiff_t j = 0; j < H; j += VL) {
            NAME(units) u = {.H = H, .options = options, .lanes = NAME(lanes_at)(H, j), .h = h + r * H + j};
            u.gates = (real *)gates + r * 4 * H + fastrnn_gate_column(4, NAME(LSTM_BLOCK), j);
            u.gate_stride = fastrnn_gate_stride(NAME(LSTM_BLOCK), H, j);
            u.state[1] = (real *)states[1] + r * H + j;
            NAME(lstm_second)(&u);
        }
}

/* The gradients of the peepholes: d_p_i += d_z_i c_{t-1}, d_p_f += d_z_f c_{t-1}, d_p_o += d_z_o c_t. */
static void NAME(lstm_peephole_gradient)(ptrdiff_t n, ptrdiff_t H, ptrdiff_t j0, ptrdiff_t j1, const real *d_gates,
                                         ptrdiff_t row, const real *const *state, const real *const *state_prev,
                                         sum_start start, real *d_peephole)
{
    static const int gate_of[3] = {0, 1, 3};
    for (int p = 0; p < 3; p++)
        for (ptrdiff_t j = j0; j < j1; j += VL) {
            const int lanes = NAME(lanes_at)(j1, j);
            const real *c = p < 2 ? state_prev[1] : state[1];
            vec sum = NAME(begin_sum)(start, d_peephole + p * H + j, lanes);
            for (ptrdiff_t r = n - 1; r >= 0; r--)
                sum = v_fma(NAME(load_lanes)(d_gates + r * row + gate_of[p] * H + j, lanes),
                            NAME(load_lanes)(c + r * H + j, lanes), sum);
            NAME(end_sum)(start, d_peephole + p * H + j, sum, lanes);
        }
}
#endif

/* clang-format off */
DEFINE_CELL(lstm, 4, 0, NAME(LSTM_BLOCK), NAME(lstm_first), NAME(lstm_second), NULL, NAME(lstm_back), NULL,
    .states = 2, .bounded = 1, .d_gates = 4, .peepholes = 3, .saves_gates = 1,
    .recover_h = NAME(lstm_recover_h), .peephole_gradient = NAME(lstm_peephole_gradient))
/* clang-format on */
