/* The UGRNN cell (Collins, Sohl-Dickstein and Sussillo 2017), a single update gate g, forward and backward.
 *   1  g = sigmoid(z_g), c = tanh(z_c)
 *   2  h_t = c + g (h_{t-1} - c) */
INLINE void NAME(ugrnn)(const NAME(units) * u)
{
    const ptrdiff_t gate_stride = u->gate_stride;
    vec g = NAME(gate)(u->options, LOAD(u->gates)),
        c = NAME(activation)(u->options, LOAD(u->gates + gate_stride)); /* 1 */
    NAME(store_h)(u, NAME(updated_h)(g, LOAD(u->h_prev), c));           /* 2 */
    if (u->keep) {
        STORE(u->gates, g);
        STORE(u->gates + gate_stride, c);
    }
}

#ifndef FASTRNN_FORWARD_ONLY
/* d_x stands for the gradient of the loss with respect to x; numbers as above.
 *   2  d_g = d_h (h_{t-1} - c), d_c = d_h (1 - g),  d_h_{t-1} = d_h g
 *   1  d_z_g = d_g g (1 - g), d_z_c = d_c (1 - c^2) */
INLINE void NAME(ugrnn_back)(const NAME(units_back) * u)
{
    vec g = LOAD(u->gates), c = LOAD(u->gates + u->gate_stride), d_g, d_c;
    NAME(updated_h_back)(u, g, c, &d_g, &d_c);              /* 2 */
    STORE(u->d_gates, NAME(gate_back)(u->options, g, d_g)); /* 1 */
    STORE(u->d_gates + u->H, NAME(activation_back)(u->options, c, d_c));
}
#endif

enum { NAME(UGRNN_BLOCK) = 128 / sizeof(real) };
/* clang-format off */
DEFINE_CELL(ugrnn, 2, 0, NAME(UGRNN_BLOCK), NULL, NAME(ugrnn), NULL, NAME(ugrnn_back), NULL,
    .states = 1, .bounded = 1, .d_gates = 2, .saves_gates = 1, .saves_h = 1, .bypass = 1)
/* clang-format on */
