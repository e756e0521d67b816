/* The arguments of the functions of a cell: a vector of hidden units of one sequence. */

/* A vector of hidden units of one sequence, of which the first `lanes` exist. The pointers are those of NAME(step) at
 * these units: gates and recurrent at the first gate of part 0, gates_1 at that of part 1.
 * `gate_stride` is the stride from a gate to the next gate of the same part; the stride of peepholes and d_gates is H.
 */
typedef struct {
    ptrdiff_t H, gate_stride;
    const fastrnn_options *options;
    int lanes, keep;
    real *gates, *gates_1;
    const real *recurrent, *peephole, *h_prev;
    const real *state_prev[FASTRNN_MOST_STATES];
    real *state[FASTRNN_MOST_STATES];
    real *gated, *kept_h, *intermediate, *h, *h_next;
} NAME(units);

typedef struct {
    ptrdiff_t H, gate_stride;
    const fastrnn_options *options;
    int lanes;
    const real *gates, *gates_1, *kept_h, *intermediate, *peephole, *h_prev, *d_output, *sum;
    const real *state[FASTRNN_MOST_STATES], *state_prev[FASTRNN_MOST_STATES];
    real *d_state[FASTRNN_MOST_STATES], *d_gates, *h;
} NAME(units_back);

#define LOAD(p) NAME(load_lanes)(p, u->lanes)
#define STORE(p, a) NAME(store_lanes)(p, a, u->lanes)

/* Stores h_t of these units: in the output, for the next product, in the tape. */
INLINE void NAME(store_h)(const NAME(units) * u, vec h)
{
    STORE(u->h, h);
    if (u->h_next) STORE(u->h_next, h);
    if (u->kept_h) STORE(u->kept_h, h);
}

/* The gradient of h_t from the output and from the next step's product. */
INLINE vec NAME(d_h)(const NAME(units_back) * u)
{
    return v_add(u->d_output ? LOAD(u->d_output) : v_set1(0), LOAD(u->sum));
}

/* The last step of a cell with an update gate z and new values n: h_t = n + z (h_{t-1} - n). */
INLINE vec NAME(updated_h)(vec z, vec h_prev, vec n) { return v_fma(z, v_sub(h_prev, n), n); }

/* Its gradients: d_z = d_h (h_{t-1} - n), d_n = d_h (1 - z), and d_h_{t-1} = d_h z, the bypass, in d_state[0]. */
INLINE void NAME(updated_h_back)(const NAME(units_back) * u, vec z, vec n, vec *d_z, vec *d_n)
{
    /* In this order: if time is cut here, the last two terms arrive as one. */
    vec d_h = v_add(u->d_output ? LOAD(u->d_output) : v_set1(0), v_add(LOAD(u->sum), LOAD(u->d_state[0])));
    STORE(u->d_state[0], v_mul(d_h, z));
    *d_z = v_mul(d_h, v_sub(LOAD(u->h_prev), n));
    *d_n = v_fnma(d_h, z, d_h);
}
