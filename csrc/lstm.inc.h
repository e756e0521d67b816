/* The LSTM cell (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), forward and backward.
 *
 * A block is NR hidden units with their four gates, i f g o, as four adjacent panels. A step takes one block at a time, or
 * half of one where a thread's share ends in the middle: its part of the product h_{t-1} W_hh^T, then the cell on those
 * columns while they are in L1.
 */

INLINE vec NAME(load_lanes)(const real *p, int lanes) { return lanes == VL ? v_load(p) : v_load_n(p, lanes); }
INLINE void NAME(store_lanes)(real *p, vec a, int lanes)
{
    if (lanes == VL)
        v_store(p, a);
    else
        v_store_n(p, a, lanes);
}

/* One row of a block: gates z at distance H from each other.
 *   1  i = sigmoid(z_i), f = sigmoid(z_f), g = tanh(z_g), o = sigmoid(z_o)
 *   2  c_t = f c_{t-1} + i g
 *   3  h_t = o tanh(c_t)
 * Step 3 is a function of its own, for a second pass: it would wait for steps 1 and 2, and the processor with it. o
 * always replaces z_o, the other gates only if they are kept. */
INLINE void NAME(lstm_cell)(ptrdiff_t H, int lanes, real *gates, const real *c_prev, real *c, int keep)
{
    vec i = NAME(sigmoid)(NAME(load_lanes)(gates, lanes)); /* 1 */
    vec f = NAME(sigmoid)(NAME(load_lanes)(gates + H, lanes));
    vec g = NAME(tanh)(NAME(load_lanes)(gates + 2 * H, lanes));
    vec o = NAME(sigmoid)(NAME(load_lanes)(gates + 3 * H, lanes));
    NAME(store_lanes)(c, v_fma(f, NAME(load_lanes)(c_prev, lanes), v_mul(i, g)), lanes); /* 2 */
    NAME(store_lanes)(gates + 3 * H, o, lanes);
    if (keep) {
        NAME(store_lanes)(gates, i, lanes);
        NAME(store_lanes)(gates + H, f, lanes);
        NAME(store_lanes)(gates + 2 * H, g, lanes);
    }
}
INLINE void NAME(lstm_cell_output)(ptrdiff_t H, int lanes, const real *gates, const real *c, real *h, real *h_next)
{
    vec tanh_c = NAME(tanh)(NAME(load_lanes)(c, lanes));
    vec h_t = v_mul(NAME(load_lanes)(gates + 3 * H, lanes), tanh_c); /* 3 */
    NAME(store_lanes)(h, h_t, lanes);
    if (h_next) NAME(store_lanes)(h_next, h_t, lanes);
}

/* The same row backward, d_x standing for the gradient of the loss with respect to x; numbers as above.
 *   3  d_o = d_h tanh(c_t),  d_c += d_h o (1 - tanh(c_t)^2)
 *   2  d_i = d_c g, d_f = d_c c_{t-1}, d_g = d_c i,  d_c_{t-1} = d_c f
 *   1  d_z = d_s s (1 - s) for a sigmoid s, d_z = d_g (1 - g^2) for the tanh g */
INLINE void NAME(lstm_cell_back)(ptrdiff_t H, int lanes, const real *gates, const real *c, const real *c_prev,
                                 const real *d_output, const real *d_h_next, real *d_c, real *d_gates, real *h)
{
    vec one = v_set1(1);
    vec i = NAME(load_lanes)(gates, lanes), f = NAME(load_lanes)(gates + H, lanes);
    vec g = NAME(load_lanes)(gates + 2 * H, lanes), o = NAME(load_lanes)(gates + 3 * H, lanes);
    vec tanh_c = NAME(tanh)(NAME(load_lanes)(c, lanes));
    vec d_h = NAME(load_lanes)(d_h_next, lanes);
    d_h = v_add(d_output ? NAME(load_lanes)(d_output, lanes) : v_set1(0), d_h);
    if (h) NAME(store_lanes)(h, v_mul(o, tanh_c), lanes);

    vec d_o = v_mul(d_h, tanh_c); /* 3 */
    vec d_c_t = v_fma(v_mul(d_h, o), v_fnma(tanh_c, tanh_c, one), NAME(load_lanes)(d_c, lanes));

    vec d_i = v_mul(d_c_t, g); /* 2 */
    vec d_f = v_mul(d_c_t, NAME(load_lanes)(c_prev, lanes));
    vec d_g = v_mul(d_c_t, i);
    NAME(store_lanes)(d_c, v_mul(d_c_t, f), lanes);

    NAME(store_lanes)(d_gates, v_mul(d_i, v_fnma(i, i, i)), lanes); /* 1 */
    NAME(store_lanes)(d_gates + H, v_mul(d_f, v_fnma(f, f, f)), lanes);
    NAME(store_lanes)(d_gates + 2 * H, v_mul(d_g, v_fnma(g, g, one)), lanes);
    NAME(store_lanes)(d_gates + 3 * H, v_mul(d_o, v_fnma(o, o, o)), lanes);
}

/* Hidden units of one block, whole vectors but for the last lanes: those from vector v on, before vector v_end. */
typedef struct {
    ptrdiff_t block, first; /* the first of the units, and the block they are in */
    int vectors, lanes;     /* so many, of which the last has so many units */
    ptrdiff_t width;        /* of the block's panels */
} NAME(units);

INLINE NAME(units) NAME(next_units)(ptrdiff_t H, ptrdiff_t v, ptrdiff_t v_end)
{
    NAME(units) u = {.block = v / 2, .first = v * VL};
    u.width = NAME(panel_vectors)(H, u.block * NR) * VL;
    ptrdiff_t in_block = u.block * 2 + u.width / VL;
    u.vectors = (int)((in_block < v_end ? in_block : v_end) - v);
    ptrdiff_t rest = H - u.first - (u.vectors - 1) * VL;
    u.lanes = rest < VL ? (int)rest : VL;
    return u;
}

/* The product of rows [0, M) with the four gates of some units. */
INLINE void NAME(gate_product)(ptrdiff_t M, ptrdiff_t H, const NAME(units) * u, ptrdiff_t K, const real *a,
                               ptrdiff_t a_row, const real *panels, const real *bias, real *gates)
{
    ptrdiff_t block = u->block * NR, within = u->first - block;
    NAME(panels)(4, u->vectors, u->lanes, M, K, a, a_row, 1, panels + 4 * block * K + within, u->width,
                 bias ? bias + 4 * block + within : NULL, gates + u->first, 4 * H, H);
}

static void NAME(project)(ptrdiff_t M, ptrdiff_t I, ptrdiff_t H, ptrdiff_t v0, ptrdiff_t v1, const real *x,
                          ptrdiff_t x_row, const real *panels, const real *bias, real *gates)
{
    for (ptrdiff_t v = v0; v < v1;) {
        NAME(units) u = NAME(next_units)(H, v, v1);
        NAME(gate_product)(M, H, &u, I, x, x_row, panels, bias, gates);
        v += u.vectors;
    }
}

static void NAME(lstm_step_forward)(const NAME(lstm_step) * s, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t v0, ptrdiff_t v1)
{
    ptrdiff_t H = s->H;
    for (ptrdiff_t v = v0; v < v1;) {
        NAME(units) u = NAME(next_units)(H, v, v1);
        NAME(gate_product)(r1 - r0, H, &u, H, s->h_prev + r0 * s->h_prev_row, s->h_prev_row, s->panels, NULL,
                           s->gates + r0 * 4 * H);
        for (ptrdiff_t r = r0; r < r1; r++)
            for (int w = 0; w < u.vectors; w++) {
                ptrdiff_t j = u.first + w * VL, k = r * H + j;
                NAME(lstm_cell)(H, w < u.vectors - 1 ? VL : u.lanes, s->gates + 4 * r * H + j, s->c_prev + k, s->c + k,
                                s->keep);
            }
        for (ptrdiff_t r = r0; r < r1; r++)
            for (int w = 0; w < u.vectors; w++) {
                ptrdiff_t j = u.first + w * VL, k = r * H + j;
                NAME(lstm_cell_output)(H, w < u.vectors - 1 ? VL : u.lanes, s->gates + 4 * r * H + j, s->c + k, s->h + k,
                                       s->h_next + r * s->h_next_row + j);
            }
        v += u.vectors;
    }
}

/* Some panels of the product at a time, because each goes through all of d_gates_next. */
static void NAME(lstm_step_backward)(const NAME(lstm_step_back) * s, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t p0,
                                     ptrdiff_t p1)
{
    const ptrdiff_t H = s->H, ld = s->d_gates_row, some = 4;
    for (ptrdiff_t q = p0, q1; q < p1; q = q1) {
        q1 = p1 - q < some ? p1 : q + some;
        if (s->d_gates_next)
            NAME(product)(r1 - r0, H, q, q1, 4 * H, s->d_gates_next + r0 * ld, ld, 1, s->panels, NAME(zeros),
                          s->d_h + r0 * H, H);
        ptrdiff_t end = q1 * NR < H ? q1 * NR : H;
        for (ptrdiff_t r = r0; r < r1; r++)
            for (ptrdiff_t j = q * NR; j < end; j += VL) {
                ptrdiff_t k = r * H + j;
                NAME(lstm_cell_back)(H, end - j < VL ? (int)(end - j) : VL, s->gates + r * 4 * H + j, s->c + k,
                                     s->c_prev + k, s->d_output ? s->d_output + k : NULL, s->d_h + k, s->d_c + k,
                                     s->d_gates + r * ld + j, s->h ? s->h + k : NULL);
            }
    }
}

static void NAME(lstm_hidden)(ptrdiff_t n, ptrdiff_t H, const real *gates, const real *c, real *h)
{
    for (ptrdiff_t r = 0; r < n; r++)
        for (ptrdiff_t j = 0; j < H; j += VL) {
            int lanes = H - j < VL ? (int)(H - j) : VL;
            NAME(lstm_cell_output)(H, lanes, gates + 4 * r * H + j, c + r * H + j, h + r * H + j, NULL);
        }
}
