/* Steps of optimizers, element by element. The formulas are those of torch.optim. */

#define LANES_OF(array) NAME(load_lanes)((array) + k, lanes)
#define SET_LANES(array, value) NAME(store_lanes)((array) + k, value, lanes)

/* 1. d = g + weight_decay * p   2. with momentum: b = momentum * b + (1 - dampening) * d, or d in the first step;
 * d = d + momentum * b (Nesterov) or b   3. p -= rate * d */
static void NAME(sgd)(const fastrnn_sgd *o, ptrdiff_t n, real *p, const real *g, real *b)
{
    const vec decay = v_set1((real)o->weight_decay), momentum = v_set1((real)o->momentum);
    const vec fresh = v_set1((real)(1 - o->dampening)), rate = v_set1((real)o->rate);
    for (ptrdiff_t k = 0; k < n; k += VL) {
        const int lanes = NAME(lanes_at)(n, k);
        vec d = v_fma(decay, LANES_OF(p), LANES_OF(g));
        if (b) {
            const vec velocity = o->is_first ? d : v_fma(momentum, LANES_OF(b), v_mul(fresh, d));
            SET_LANES(b, velocity);
            d = o->nesterov ? v_fma(momentum, velocity, d) : velocity;
        }
        SET_LANES(p, v_fnma(rate, d, LANES_OF(p)));
    }
}

/* base^n, which does not depend on a mathematical library. */
static double NAME(power)(double base, int64_t n)
{
    double result = 1;
    for (; n > 0; n /= 2, base *= base)
        if (n % 2) result *= base;
    return result;
}

/* 1. p = p - rate * weight_decay * p (decoupled), or g = g + weight_decay * p   2. m = beta_1 * m + (1 - beta_1) * g
 * 3. v = beta_2 * v + (1 - beta_2) * g^2   4. p -= rate / c_1 * m / (sqrt(v) / sqrt(c_2) + eps), c_i = 1 - beta_i^step
 */
static void NAME(adam)(const fastrnn_adam *o, ptrdiff_t n, real *p, const real *g, real *m, real *v)
{
    const vec decay = v_set1((real)(o->decoupled ? o->rate * o->weight_decay : o->weight_decay));
    const vec fresh_1 = v_set1((real)(1 - o->beta_1)), fresh_2 = v_set1((real)(1 - o->beta_2));
    const vec beta_1 = v_set1((real)o->beta_1), beta_2 = v_set1((real)o->beta_2), eps = v_set1((real)o->eps);
    const vec rate = v_set1((real)(o->rate / (1 - NAME(power)(o->beta_1, o->step))));
    const vec scale = v_set1((real)(1 / sqrt(1 - NAME(power)(o->beta_2, o->step))));
    for (ptrdiff_t k = 0; k < n; k += VL) {
        const int lanes = NAME(lanes_at)(n, k);
        vec parameter = LANES_OF(p), gradient = LANES_OF(g);
        if (o->decoupled)
            parameter = v_fnma(decay, parameter, parameter);
        else
            gradient = v_fma(decay, parameter, gradient);
        const vec first = v_fma(fresh_1, gradient, v_mul(beta_1, LANES_OF(m)));
        const vec second = v_fma(v_mul(fresh_2, gradient), gradient, v_mul(beta_2, LANES_OF(v)));
        SET_LANES(m, first);
        SET_LANES(v, second);
        const vec step = v_div(first, v_fma(v_sqrt(second), scale, eps));
        SET_LANES(p, v_fnma(rate, step, parameter));
    }
}

static void NAME(scale)(ptrdiff_t n, double factor, real *a)
{
    const vec f = v_set1((real)factor);
    for (ptrdiff_t k = 0; k < n; k += VL) {
        const int lanes = NAME(lanes_at)(n, k);
        SET_LANES(a, v_mul(f, LANES_OF(a)));
    }
}

#undef LANES_OF
#undef SET_LANES
