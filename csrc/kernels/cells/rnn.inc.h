/* The plain cell (Elman 1990), forward and backward: h_t = tanh(z), or max(0, z). No gates are saved. */
INLINE void NAME(rnn_tanh)(const NAME(units) * u) { NAME(store_h)(u, NAME(tanh)(LOAD(u->gates))); }
INLINE void NAME(rnn_relu)(const NAME(units) * u) { NAME(store_h)(u, v_max(v_set1(0), LOAD(u->gates))); }

INLINE void NAME(rnn_tanh_back)(const NAME(units_back) * u)
{
    vec h = LOAD(u->kept_h);
    STORE(u->d_gates, v_mul(NAME(d_h)(u), v_fnma(h, h, v_set1(1))));
}
/* d_z = d_h unless h <= 0, which is h less than the least of normal numbers; so a NaN passes, as in torch. */
INLINE void NAME(rnn_relu_back)(const NAME(units_back) * u)
{
    vec least = v_set1(sizeof(real) == sizeof(float) ? (real)FLT_MIN : (real)DBL_MIN);
    STORE(u->d_gates, v_if_negative(v_sub(LOAD(u->kept_h), least), v_set1(0), NAME(d_h)(u)));
}

enum { NAME(RNN_BLOCK) = 128 / sizeof(real) };
/* clang-format off */
DEFINE_CELL(rnn_tanh, 1, 0, NAME(RNN_BLOCK), NULL, NAME(rnn_tanh), NULL, NAME(rnn_tanh_back), NULL,
    .states = 1, .d_gates = 1, .saves_h = 1)
DEFINE_CELL(rnn_relu, 1, 0, NAME(RNN_BLOCK), NULL, NAME(rnn_relu), NULL, NAME(rnn_relu_back), NULL,
    .states = 1, .d_gates = 1, .saves_h = 1)
/* clang-format on */
