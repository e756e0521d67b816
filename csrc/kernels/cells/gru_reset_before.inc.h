/* The GRU cell of Cho et al. 2014, the reset gate before the product (ONNX's linear_before_reset=0, Keras'
 * reset_after=False), forward and backward. z_g is the sum of the input projection, the biases and the recurrent
 * product of gate g.
 *   1  r = sigmoid(z_r), z = sigmoid(z_z),  q = r h_{t-1}
 *   2  n = tanh(z_n), the recurrent product of z_n being that of q
 *   3  h_t = n + z (h_{t-1} - n) */
INLINE void NAME(gru_reset_before_gates)(const NAME(units) * u)
{
    vec r = NAME(gate)(u->options, LOAD(u->gates)), z = NAME(gate)(u->options, LOAD(u->gates + u->gate_stride)); /* 1 */
    STORE(u->gates + u->gate_stride, z);
    STORE(u->gated, v_mul(r, LOAD(u->h_prev)));
    if (u->keep) STORE(u->gates, r);
}
INLINE void NAME(gru_reset_before_h)(const NAME(units) * u)
{
    vec n = NAME(activation)(u->options, LOAD(u->gates_1)); /* 2 */
    if (u->keep) STORE(u->gates_1, n);
    NAME(store_h)(u, NAME(updated_h)(LOAD(u->gates + u->gate_stride), LOAD(u->h_prev), n)); /* 3 */
}

#ifndef FASTRNN_FORWARD_ONLY
/* d_x stands for the gradient of the loss with respect to x; numbers as above.
 *   3  d_z = d_h (h_{t-1} - n), d_n = d_h (1 - z),  d_h_{t-1} = d_h z
 *   2  d_z_n = d_n (1 - n^2);  d_q by the product
 *   1  d_r = d_q h_{t-1}, d_h_{t-1} += d_q r;  d_z_r = d_r r (1 - r), d_z_z = d_z z (1 - z) */
INLINE void NAME(gru_reset_before_back_h)(const NAME(units_back) * u)
{
    vec z = LOAD(u->gates + u->gate_stride), n = LOAD(u->gates_1), d_z, d_n;
    NAME(updated_h_back)(u, z, n, &d_z, &d_n);                               /* 3 */
    STORE(u->d_gates + 2 * u->H, NAME(activation_back)(u->options, n, d_n)); /* 2 */
    STORE(u->d_gates + u->H, NAME(gate_back)(u->options, z, d_z));           /* 1 */
}
INLINE void NAME(gru_reset_before_back_gates)(const NAME(units_back) * u)
{
    vec r = LOAD(u->gates), d_q = LOAD(u->sum), h_prev = LOAD(u->h_prev);
    STORE(u->h, v_mul(r, h_prev));
    STORE(u->d_state[0], v_fma(d_q, r, LOAD(u->d_state[0]))); /* 1 */
    STORE(u->d_gates, NAME(gate_back)(u->options, r, v_mul(d_q, h_prev)));
}
#endif

enum { NAME(GRU_RESET_BEFORE_BLOCK) = 128 / sizeof(real) };
/* clang-format off */
DEFINE_CELL(gru_reset_before, 2, 1, NAME(GRU_RESET_BEFORE_BLOCK), NULL, NAME(gru_reset_before_gates), NAME(gru_reset_before_h),
    NAME(gru_reset_before_back_h), NAME(gru_reset_before_back_gates),
    .states = 1, .bounded = 1, .d_gates = 3, .saves_gates = 1, .saves_h = 1, .bypass = 1)
/* clang-format on */
