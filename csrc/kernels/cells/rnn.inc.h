/* The plain cell (Elman 1990), forward and backward: h_t = tanh(z), or max(0, z). The state is h; no gates are kept. */
INLINE void NAME(rnn_store)(const NAME(units) * u, vec h)
{
    STORE(u->h, h);
    if (u->h_next) STORE(u->h_next, h);
    if (u->keep) STORE(u->state, h);
}
INLINE void NAME(rnn_tanh)(const NAME(units) * u) { NAME(rnn_store)(u, NAME(tanh)(LOAD(u->gates))); }
INLINE void NAME(rnn_relu)(const NAME(units) * u) { NAME(rnn_store)(u, v_max(v_set1(0), LOAD(u->gates))); }

INLINE vec NAME(rnn_d_h)(const NAME(units_back) * u)
{
    return v_add(u->d_output ? LOAD(u->d_output) : v_set1(0), LOAD(u->d_h));
}
INLINE void NAME(rnn_tanh_back)(const NAME(units_back) * u)
{
    vec h = LOAD(u->state);
    STORE(u->d_gates, v_mul(NAME(rnn_d_h)(u), v_fnma(h, h, v_set1(1))));
}
/* d_z = d_h unless h <= 0, which is h less than the least of normal numbers; so a NaN passes, as in torch. */
INLINE void NAME(rnn_relu_back)(const NAME(units_back) * u)
{
    vec least = v_set1(sizeof(real) == sizeof(float) ? (real)FLT_MIN : (real)DBL_MIN);
    STORE(u->d_gates, v_if_negative(v_sub(LOAD(u->state), least), v_set1(0), NAME(rnn_d_h)(u)));
}

enum { NAME(RNN_BLOCK) = 128 / sizeof(real) };
DEFINE_CELL(rnn_tanh, 1, NAME(RNN_BLOCK), 0, 1, NULL, NAME(rnn_tanh), NAME(rnn_tanh_back))
DEFINE_CELL(rnn_relu, 1, NAME(RNN_BLOCK), 0, 1, NULL, NAME(rnn_relu), NAME(rnn_relu_back))
