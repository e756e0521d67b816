/* The LSTM cell (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), forward and backward. A
 * step takes some blocks of hidden units at a time: their part of the product h_{t-1} W_hh^T, then the cell on those
 * columns while they are in L1. */

INLINE vec NAME(load_lanes)(const real *p, int lanes) { return lanes == VL ? v_load(p) : v_load_n(p, lanes); }
INLINE void NAME(store_lanes)(real *p, vec a, int lanes)
{
    if (lanes == VL)
        v_store(p, a);
    else
        v_store_n(p, a, lanes);
}

/* A vector of hidden units, or the last of them, of one sequence: their gates z, `apart` from each other.
 *   1  i = sigmoid(z_i), f = sigmoid(z_f), g = tanh(z_g), o = sigmoid(z_o)
 *   2  c_t = f c_{t-1} + i g
 *   3  h_t = o tanh(c_t)
 * Step 3 is a function of its own, for a second pass: it would wait for steps 1 and 2, and the processor with it. o
 * always replaces z_o, the other gates only if they are kept. */
INLINE void NAME(lstm_cell)(ptrdiff_t apart, int lanes, real *gates, const real *c_prev, real *c, int keep)
{
    vec i = NAME(sigmoid)(NAME(load_lanes)(gates, lanes)); /* 1 */
    vec f = NAME(sigmoid)(NAME(load_lanes)(gates + apart, lanes));
    vec g = NAME(tanh)(NAME(load_lanes)(gates + 2 * apart, lanes));
    vec o = NAME(sigmoid)(NAME(load_lanes)(gates + 3 * apart, lanes));
    NAME(store_lanes)(c, v_fma(f, NAME(load_lanes)(c_prev, lanes), v_mul(i, g)), lanes); /* 2 */
    NAME(store_lanes)(gates + 3 * apart, o, lanes);
    if (keep) {
        NAME(store_lanes)(gates, i, lanes);
        NAME(store_lanes)(gates + apart, f, lanes);
        NAME(store_lanes)(gates + 2 * apart, g, lanes);
    }
}
INLINE void NAME(lstm_cell_output)(ptrdiff_t apart, int lanes, const real *gates, const real *c, real *h, real *h_next)
{
    vec tanh_c = NAME(tanh)(NAME(load_lanes)(c, lanes));
    vec h_t = v_mul(NAME(load_lanes)(gates + 3 * apart, lanes), tanh_c); /* 3 */
    NAME(store_lanes)(h, h_t, lanes);
    if (h_next) NAME(store_lanes)(h_next, h_t, lanes);
}

/* The same backward, d_x standing for the gradient of the loss with respect to x, numbers as above; the gates of d_gates
 * are H apart.
 *   3  d_o = d_h tanh(c_t),  d_c += d_h o (1 - tanh(c_t)^2)
 *   2  d_i = d_c g, d_f = d_c c_{t-1}, d_g = d_c i,  d_c_{t-1} = d_c f
 *   1  d_z = d_s s (1 - s) for a sigmoid s, d_z = d_g (1 - g^2) for the tanh g */
INLINE void NAME(lstm_cell_back)(ptrdiff_t H, ptrdiff_t apart, int lanes, const real *gates, const real *c,
                                 const real *c_prev, const real *d_output, const real *d_h_next, real *d_c,
                                 real *d_gates, real *h)
{
    vec one = v_set1(1);
    vec i = NAME(load_lanes)(gates, lanes), f = NAME(load_lanes)(gates + apart, lanes);
    vec g = NAME(load_lanes)(gates + 2 * apart, lanes), o = NAME(load_lanes)(gates + 3 * apart, lanes);
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

/* Where the gates of hidden unit j are, the first of a vector: see pack.inc.h. */
typedef struct {
    ptrdiff_t offset, apart; /* in a row of gates, and from one gate to the next */
    int lanes;               /* hidden units of the vector */
} NAME(place);
INLINE NAME(place) NAME(place_of)(ptrdiff_t H, ptrdiff_t j)
{
    const ptrdiff_t first = j / NAME(BLOCK) * NAME(BLOCK), rest = H - first;
    return (NAME(place)){4 * first + (j - first), rest < NAME(BLOCK) ? rest : NAME(BLOCK),
                         H - j < VL ? (int)(H - j) : VL};
}

/* Blocks of hidden units whose product is taken before their cell, so that it is a few kilobytes: but at least four
 * panels, for a single row wants so many. */
enum { NAME(FEWEST_BLOCKS) = NR > NAME(BLOCK) ? NR / NAME(BLOCK) : 1, NAME(STEP_BYTES) = 16 * 1024 };
INLINE ptrdiff_t NAME(some_blocks)(ptrdiff_t rows)
{
    const ptrdiff_t fit = NAME(STEP_BYTES) / (4 * NAME(BLOCK) * (ptrdiff_t)sizeof(real)) / (rows < 1 ? 1 : rows);
    return fit > NAME(FEWEST_BLOCKS) ? fit / NAME(FEWEST_BLOCKS) * NAME(FEWEST_BLOCKS) : NAME(FEWEST_BLOCKS);
}

static void NAME(lstm_step_forward)(const NAME(lstm_step) * s, ptrdiff_t r0, ptrdiff_t r1, ptrdiff_t b0, ptrdiff_t b1)
{
    const ptrdiff_t H = s->H, some = NAME(some_blocks)(r1 - r0);
    for (ptrdiff_t b = b0, next; b < b1; b = next) {
        next = b1 - b < some ? b1 : b + some;
        NAME(product)(r1 - r0, 4 * H, NAME(panel_of_block)(H, b), NAME(panel_of_block)(H, next), H,
                      s->h_prev + r0 * s->h_prev_row, s->h_prev_row, 1, s->panels, NULL, s->gates + r0 * 4 * H, 4 * H);
        const ptrdiff_t begin = b * NAME(BLOCK), end = next * NAME(BLOCK) < H ? next * NAME(BLOCK) : H;
        for (ptrdiff_t r = r0; r < r1; r++)
            for (ptrdiff_t j = begin; j < end; j += VL) {
                const NAME(place) at = NAME(place_of)(H, j);
                NAME(lstm_cell)(at.apart, at.lanes, s->gates + r * 4 * H + at.offset, s->c_prev + r * H + j,
                                s->c + r * H + j, s->keep);
            }
        for (ptrdiff_t r = r0; r < r1; r++)
            for (ptrdiff_t j = begin; j < end; j += VL) {
                const NAME(place) at = NAME(place_of)(H, j);
                NAME(lstm_cell_output)(at.apart, at.lanes, s->gates + r * 4 * H + at.offset, s->c + r * H + j,
                                       s->h + r * H + j, s->h_next + r * s->h_next_row + j);
            }
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
        const ptrdiff_t end = q1 * NR < H ? q1 * NR : H;
        for (ptrdiff_t r = r0; r < r1; r++)
            for (ptrdiff_t j = q * NR; j < end; j += VL) {
                const NAME(place) at = NAME(place_of)(H, j);
                const ptrdiff_t k = r * H + j;
                NAME(lstm_cell_back)(H, at.apart, at.lanes, s->gates + r * 4 * H + at.offset, s->c + k, s->c_prev + k,
                                     s->d_output ? s->d_output + k : NULL, s->d_h + k, s->d_c + k,
                                     s->d_gates + r * ld + j, s->h ? s->h + k : NULL);
            }
    }
}

static void NAME(lstm_hidden)(ptrdiff_t n, ptrdiff_t H, const real *gates, const real *c, real *h)
{
    for (ptrdiff_t r = 0; r < n; r++)
        for (ptrdiff_t j = 0; j < H; j += VL) {
            const NAME(place) at = NAME(place_of)(H, j);
            NAME(lstm_cell_output)(at.apart, at.lanes, gates + r * 4 * H + at.offset, c + r * H + j, h + r * H + j,
                                   NULL);
        }
}
