/* The activations that the options select: y = gate(z) by recurrent_activation, y = activation(z) by activation. o is
 * NULL for sigmoid and tanh without a clip. The functions *_back compute d_z from y and d, the gradient of y. Where the
 * slope is 0, d is masked rather than multiplied, so that an infinite d becomes 0. */

/* z between low and high. A NaN remains NaN, because it is the second argument of both. */
INLINE vec NAME(bounded)(vec low, vec high, vec z) { return v_min(high, v_max(low, z)); }

INLINE vec NAME(clipped)(const fastrnn_options *o, vec z)
{
    if (!o || o->clip <= 0) return z;
    return NAME(bounded)(v_set1((real)-o->clip), v_set1((real)o->clip), z);
}

INLINE vec NAME(least_normal)(void) { return v_set1(sizeof(real) == sizeof(float) ? (real)FLT_MIN : (real)DBL_MIN); }

/* d if low < y < high or y is NaN, else 0. */
INLINE vec NAME(within)(vec low, vec high, vec y, vec d)
{
    const vec zero = v_set1(0);
    const vec epsilon = v_set1(sizeof(real) == sizeof(float) ? (real)FLT_EPSILON : (real)DBL_EPSILON);
    /* Bounds within two units in the last place of low and high: a y beyond them counts as low or high. */
    const vec above_low = v_add(v_fma(v_abs(low), epsilon, low), NAME(least_normal)());
    const vec below_high = v_fnma(v_abs(high), epsilon, high);
    return v_if_negative(v_sub(y, above_low), zero, v_if_negative(v_sub(below_high, y), zero, d));
}

/* max(0, z). Back: 0 where y <= 0, that is, below the least normal number; so a NaN passes, as in torch. */
INLINE vec NAME(relu)(vec z) { return v_max(v_set1(0), z); }
INLINE vec NAME(relu_back)(vec y, vec d) { return v_if_negative(v_sub(y, NAME(least_normal)()), v_set1(0), d); }

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

/* The activation of c_t, which is not clipped. */
INLINE vec NAME(unclipped_activation)(const fastrnn_options *o, vec z)
{
    return o && o->activation == FASTRNN_RELU ? NAME(relu)(z) : NAME(tanh)(z);
}
INLINE vec NAME(activation)(const fastrnn_options *o, vec z)
{
    return NAME(unclipped_activation)(o, NAME(clipped)(o, z));
}
/* d_z + more, in one fused operation where the slope is not a mask. */
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
