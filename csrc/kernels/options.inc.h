/* Activations as the options say: of the gates (recurrent_activation), and of the new value (activation). o is NULL for
 * sigmoid and tanh without a clip. y stands for the result. Back: the gradient of z from d, that of y, which is masked
 * rather than multiplied by a slope of 0, so that an infinite d becomes 0 there. */
INLINE vec NAME(v_min)(vec a, vec b) { return v_sub(v_set1(0), v_max(v_sub(v_set1(0), a), v_sub(v_set1(0), b))); }

/* A NaN stays one in both: it is the second argument. */
INLINE vec NAME(bounded)(vec low, vec high, vec z) { return NAME(v_min)(high, v_max(low, z)); }

INLINE vec NAME(clipped)(const fastrnn_options *o, vec z)
{
    if (!o || o->clip <= 0) return z;
    return NAME(bounded)(v_set1((real)-o->clip), v_set1((real)o->clip), z);
}

/* d, or 0 unless low < y < high; d for a NaN. */
INLINE vec NAME(within)(vec low, vec high, vec y, vec d)
{
    const vec zero = v_set1(0), least = v_set1(sizeof(real) == sizeof(float) ? (real)FLT_MIN : (real)DBL_MIN);
    const vec epsilon = v_set1(sizeof(real) == sizeof(float) ? (real)FLT_EPSILON : (real)DBL_EPSILON);
    /* From here on y is low or high: of numbers of this precision it is less or more than every one between. */
    const vec above_low = v_add(v_fnma(v_negabs(low), epsilon, low), least);
    const vec below_high = v_fma(v_negabs(high), epsilon, high);
    return v_if_negative(v_sub(y, above_low), zero, v_if_negative(v_sub(below_high, y), zero, d));
}

/* max(0, z): d unless y <= 0, which is y less than the least of normal numbers; so a NaN passes, as in torch. */
INLINE vec NAME(relu)(vec z) { return v_max(v_set1(0), z); }
INLINE vec NAME(relu_back)(vec y, vec d)
{
    vec least = v_set1(sizeof(real) == sizeof(float) ? (real)FLT_MIN : (real)DBL_MIN);
    return v_if_negative(v_sub(y, least), v_set1(0), d);
}

INLINE vec NAME(hard_slope)(const fastrnn_options *o)
{
    return v_set1(o->recurrent_activation == FASTRNN_HARD_SIGMOID_FIFTH ? (real)0.2 : (real)(1.0 / 6));
}
INLINE vec NAME(unclipped_gate)(const fastrnn_options *o, vec z)
{
    if (!o || o->recurrent_activation == FASTRNN_SIGMOID) return NAME(sigmoid)(z);
    return NAME(bounded)(v_set1(0), v_set1(1), v_fma(NAME(hard_slope)(o), z, v_set1((real)0.5)));
}
INLINE vec NAME(gate)(const fastrnn_options *o, vec z) { return NAME(unclipped_gate)(o, NAME(clipped)(o, z)); }
INLINE vec NAME(gate_back)(const fastrnn_options *o, vec y, vec d)
{
    if (!o) return v_mul(d, v_fnma(y, y, y));
    const int hard = o->recurrent_activation != FASTRNN_SIGMOID;
    vec d_z = v_mul(d, hard ? NAME(hard_slope)(o) : v_fnma(y, y, y));
    if (hard) d_z = NAME(within)(v_set1(0), v_set1(1), y, d_z);
    if (o->clip <= 0) return d_z;
    return NAME(within)(NAME(unclipped_gate)(o, v_set1((real)-o->clip)), NAME(unclipped_gate)(o, v_set1((real)o->clip)),
                        y, d_z);
}

/* Of c_t, which is not clipped. */
INLINE vec NAME(unclipped_activation)(const fastrnn_options *o, vec z)
{
    return o && o->activation == FASTRNN_RELU ? NAME(relu)(z) : NAME(tanh)(z);
}
INLINE vec NAME(activation)(const fastrnn_options *o, vec z)
{
    return NAME(unclipped_activation)(o, NAME(clipped)(o, z));
}
/* The gradient added to `more`. */
INLINE vec NAME(unclipped_activation_back)(const fastrnn_options *o, vec y, vec d, vec more)
{
    if (o && o->activation == FASTRNN_RELU) return v_add(NAME(relu_back)(y, d), more);
    return v_fma(d, v_fnma(y, y, v_set1(1)), more);
}
INLINE vec NAME(activation_back)(const fastrnn_options *o, vec y, vec d)
{
    vec d_z = o && o->activation == FASTRNN_RELU ? NAME(relu_back)(y, d) : v_mul(d, v_fnma(y, y, v_set1(1)));
    if (!o || o->clip <= 0) return d_z;
    return NAME(within)(NAME(unclipped_activation)(o, v_set1((real)-o->clip)),
                        NAME(unclipped_activation)(o, v_set1((real)o->clip)), y, d_z);
}
