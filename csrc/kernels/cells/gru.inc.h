/* The GRU cell (Cho et al. 2014), the reset gate after the product as in cuDNN and torch, forward and backward. x_g
 * and h_g are the input's and the recurrent sums of gate g. h_n is saved for backward.
 *   1  r = sigmoid(x_r + h_r), z = sigmoid(x_z + h_z)
 *   2  n = tanh(x_n + r h_n)
 *   3  h_t = n + z (h_{t-1} - n) */
INLINE void NAME(gru_first)(const NAME(units) * u)
{
    const ptrdiff_t gate_stride = u->gate_stride;
    STORE(u->gates, NAME(gate)(u->options, v_add(LOAD(u->gates), LOAD(u->recurrent)))); /* 1 */
    STORE(u->gates + gate_stride,
          NAME(gate)(u->options, v_add(LOAD(u->gates + gate_stride), LOAD(u->recurrent + gate_stride))));
}
INLINE void NAME(gru_second)(const NAME(units) * u)
{
    const ptrdiff_t gate_stride = u->gate_stride;
    vec h_n = LOAD(u->recurrent + 2 * gate_stride);
    vec n = NAME(activation)(u->options, v_fma(LOAD(u->gates), h_n, LOAD(u->gates + 2 * gate_stride))); /* 2 */
    NAME(store_h)(u, NAME(updated_h)(LOAD(u->gates + gate_stride), LOAD(u->h_prev), n));                /* 3 */
    if (u->keep) {
        STORE(u->gates + 2 * gate_stride, n);
        STORE(u->intermediate, h_n);
    }
}

#ifndef FASTRNN_FORWARD_ONLY
/* d_x stands for the gradient of the loss with respect to x; numbers as above. d_gates has the gradients of h_n, r, z
 * and n: the first three are those of the recurrent sums, the last three those of the input's sums.
 *   3  d_z = d_h (h_{t-1} - n), d_n = d_h (1 - z),  d_h_{t-1} = d_h z
 *   2  d_x_n = d_n (1 - n^2), d_h_n = d_x_n r, d_r = d_x_n h_n
 *   1  d_x_r = d_r r (1 - r), d_x_z = d_z z (1 - z) */
INLINE void NAME(gru_back)(const NAME(units_back) * u)
{
    const ptrdiff_t gate_stride = u->gate_stride, H = u->H;

    vec r = LOAD(u->gates), z = LOAD(u->gates + gate_stride), n = LOAD(u->gates + 2 * gate_stride), d_z, d_n;
    NAME(updated_h_back)(u, z, n, &d_z, &d_n);             /* 3 */
    vec d_x_n = NAME(activation_back)(u->options, n, d_n); /* 2 */
    vec d_r = v_mul(d_x_n, LOAD(u->intermediate));
    STORE(u->d_gates, v_mul(d_x_n, r));
    STORE(u->d_gates + H, NAME(gate_back)(u->options, r, d_r)); /* 1 */
    STORE(u->d_gates + 2 * H, NAME(gate_back)(u->options, z, d_z));
    STORE(u->d_gates + 3 * H, d_x_n);
}
#endif

enum { NAME(GRU_BLOCK) = 128 / sizeof(real) };
/* clang-format off */
DEFINE_CELL(gru, 3, 0, NAME(GRU_BLOCK), NAME(gru_first), NAME(gru_second), NULL, NAME(gru_back), NULL,
    .states = 1, .bounded = 1, .recurrent = 1, .d_gates = 4, .saves_gates = 1, .saves_h = 1, .saves_intermediate = 1,
    .bypass = 1)
/* clang-format on */
