/* The plain cell (Elman 1990), forward and backward: h_t = tanh(z), max(0, z), or sigmoid(z) as in his paper. No gates
 * are saved. */
INLINE void NAME(rnn_tanh)(const NAME(units) * u) { NAME(store_h)(u, NAME(activation)(u->options, LOAD(u->gates))); }
INLINE void NAME(rnn_tanh_back)(const NAME(units_back) * u)
{
    STORE(u->d_gates, NAME(activation_back)(u->options, LOAD(u->kept_h), NAME(d_h)(u)));
}

INLINE void NAME(rnn_relu)(const NAME(units) * u)
{
    NAME(store_h)(u, NAME(relu)(NAME(clipped)(u->options, LOAD(u->gates))));
}
INLINE void NAME(rnn_relu_back)(const NAME(units_back) * u)
{
    vec h = LOAD(u->kept_h), d_z = NAME(relu_back)(h, NAME(d_h)(u));
    if (u->options) d_z = NAME(within)(v_set1((real)-u->options->clip), v_set1((real)u->options->clip), h, d_z);
    STORE(u->d_gates, d_z);
}

INLINE void NAME(rnn_sigmoid)(const NAME(units) * u) { NAME(store_h)(u, NAME(gate)(u->options, LOAD(u->gates))); }
INLINE void NAME(rnn_sigmoid_back)(const NAME(units_back) * u)
{
    STORE(u->d_gates, NAME(gate_back)(u->options, LOAD(u->kept_h), NAME(d_h)(u)));
}

enum { NAME(RNN_BLOCK) = 128 / sizeof(real) };
/* clang-format off */
DEFINE_CELL(rnn_tanh, 1, 0, NAME(RNN_BLOCK), NULL, NAME(rnn_tanh), NULL, NAME(rnn_tanh_back), NULL,
    .states = 1, .bounded = 1, .d_gates = 1, .saves_h = 1)
DEFINE_CELL(rnn_relu, 1, 0, NAME(RNN_BLOCK), NULL, NAME(rnn_relu), NULL, NAME(rnn_relu_back), NULL,
    .states = 1, .d_gates = 1, .saves_h = 1)
DEFINE_CELL(rnn_sigmoid, 1, 0, NAME(RNN_BLOCK), NULL, NAME(rnn_sigmoid), NULL, NAME(rnn_sigmoid_back), NULL,
    .states = 1, .bounded = 1, .d_gates = 1, .saves_h = 1)
/* clang-format on */
