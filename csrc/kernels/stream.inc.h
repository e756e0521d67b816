/* One step of one sequence, for streams. Every sum has the order of a layer's call: the bias, then the numbers of x,
 * then those of h, one fma each. A stream has no plan, no team and no tail; in a call they take most of the time of
 * such a step. The sums of all gates that fit into registers are made at once, over x and h in one loop, and units are
 * padded to whole vectors, so that the gates of a vector of units are whole vectors, too. */

/* The product of one tile of nv vectors, a constant after inlining. */
INLINE void NAME(stream_tile)(const int nv, ptrdiff_t K_0, const real *a_0, ptrdiff_t K_1, const real *a_1,
                              const real *rows, real *sums)
{
    vec sum[STREAM_VECTORS];
    UNROLL for (int v = 0; v < nv; v++) sum[v] = v_load(rows + v * VL);
    for (ptrdiff_t k = 0; k < K_0; k++) {
        const vec a = v_set1(a_0[k]);
        rows += nv * VL;
        UNROLL for (int v = 0; v < nv; v++) sum[v] = v_fma(a, v_load(rows + v * VL), sum[v]);
    }
    for (ptrdiff_t k = 0; k < K_1; k++) {
        const vec a = v_set1(a_1[k]);
        rows += nv * VL;
        UNROLL for (int v = 0; v < nv; v++) sum[v] = v_fma(a, v_load(rows + v * VL), sum[v]);
    }
    UNROLL for (int v = 0; v < nv; v++) v_store(sums + v * VL, sum[v]);
}

#define STREAM_PARAMETERS ptrdiff_t K_0, const real *a_0, ptrdiff_t K_1, const real *a_1, const real *rows, real *sums
#define STREAM_TILE(nv)                                                                                                \
    static void NAME(stream_tile_##nv)(STREAM_PARAMETERS) { NAME(stream_tile)(nv, K_0, a_0, K_1, a_1, rows, sums); }
#define STREAM_TILE_ENTRY(nv) [nv] = NAME(stream_tile_##nv),
#define STREAM_TILES_4(X) X(1) X(2) X(3) X(4)
#define STREAM_TILES_12(X) STREAM_TILES_4(X) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define STREAM_TILES_16(X) STREAM_TILES_12(X) X(13) X(14) X(15) X(16)
#define STREAM_TILES JOIN(STREAM_TILES, STREAM_VECTORS)

STREAM_TILES(STREAM_TILE)

static void (*const NAME(stream_tiles)[STREAM_VECTORS + 1])(STREAM_PARAMETERS) = {STREAM_TILES(STREAM_TILE_ENTRY)};

/* sums (vectors, VL) written: the product of x (K[0]) and h (K[1]). */
INLINE void NAME(stream_product)(const fastrnn_stream_matrix *m, const real *numbers, const real *x, const real *h,
                                 real *sums)
{
    const real *rows = numbers + m->rows;
    ptrdiff_t unit = 0;
    for (ptrdiff_t left = m->vectors; left > 0; left -= m->group_vectors, unit += m->group_units) {
        ptrdiff_t in_group = left < m->group_vectors ? left : m->group_vectors;
        const ptrdiff_t first = fastrnn_stream_first(m, unit);
        for (ptrdiff_t nv; in_group > 0; in_group -= nv) {
            nv = fastrnn_stream_tile(in_group, STREAM_VECTORS);
            NAME(stream_tiles)[nv](m->K[0], x, m->K[1], h + first, rows, sums);
            rows += (1 + m->K[0] + m->K[1]) * nv * VL;
            sums += nv * VL;
        }
    }
}

/* The arrays of a step. h_prev and the states before the step are those after it: each vector is read before it is
 * written. */
typedef struct {
    const fastrnn_stream_layer *layer;
    const real *peephole;
    real *h, *state[FASTRNN_MOST_STATES];
    real *sums, *recurrent, *gated, *m;
} NAME(stream_arrays);

/* A function of the cell on all vectors of units. gates_0, gates_1: the gates of each part. */
INLINE void NAME(stream_units)(const NAME(stream_arrays) * s, const int has_options, const int gates_0,
                               const int gates_1, void (*const function)(const NAME(units) *))
{
    const fastrnn_stream_layer *layer = s->layer;
    const ptrdiff_t U = layer->U;
    for (ptrdiff_t j = 0; j < U; j += VL) {
        NAME(units)
        u = {.H = U, .gate_stride = VL, .options = has_options ? &layer->options : NULL, .lanes = VL};
        u.gates = s->sums + gates_0 * j;
        u.gates_1 = s->sums + gates_0 * U + gates_1 * j;
        u.recurrent = s->recurrent + gates_0 * j;
        u.peephole = s->peephole ? s->peephole + j : NULL;
        u.h_prev = s->h + j;
        UNROLL for (int n = 1; n < FASTRNN_MOST_STATES; n++)
        {
            u.state_prev[n] = u.state[n] = s->state[n] ? s->state[n] + j : NULL;
        }
        u.gated = s->gated + j;
        u.h = s->m + j;
        function(&u);
    }
}

INLINE void NAME(stream_step)(const fastrnn_stream_layer *layer, const int has_options, const int gates_0,
                              const int gates_1, void (*const first)(const NAME(units) *),
                              void (*const second)(const NAME(units) *), void (*const third)(const NAME(units) *),
                              const real *numbers, const real *x, real *state, real *scratch)
{
    const ptrdiff_t U = layer->U, G = (gates_0 + gates_1) * U;
    NAME(stream_arrays) s = {.layer = layer, .h = state, .sums = scratch, .recurrent = scratch + G};
    UNROLL for (int n = 1; n < FASTRNN_MOST_STATES; n++) s.state[n] =
        n < layer->states ? state + layer->V + (n - 1) * U : NULL;
    s.peephole = layer->peephole >= 0 ? numbers + layer->peephole : NULL;
    s.gated = scratch + 2 * G;
    s.m = layer->projection.rows >= 0 ? s.gated + U : s.h;
    NAME(stream_product)(&layer->part[0], numbers, x, s.h, s.sums);
    if (layer->recurrent.rows >= 0) NAME(stream_product)(&layer->recurrent, numbers, x, s.h, s.recurrent);
    if (first) NAME(stream_units)(&s, has_options, gates_0, gates_1, first);
    NAME(stream_units)(&s, has_options, gates_0, gates_1, second);
    if (gates_1 > 0) {
        NAME(stream_product)(&layer->part[1], numbers, x, s.gated, s.sums + gates_0 * U);
        NAME(stream_units)(&s, has_options, gates_0, gates_1, third);
    }
    if (layer->projection.rows >= 0) NAME(stream_product)(&layer->projection, numbers, x, s.m, s.h);
}

/* Defines NAME(CELL_stream), a step of a cell. */
#define DEFINE_STREAM(CELL, GATES_0, GATES_1, FIRST, SECOND, THIRD)                                                    \
    static void NAME(CELL##_stream)(const fastrnn_stream_layer *layer, const real *numbers, const real *x,             \
                                    real *state, real *scratch)                                                        \
    {                                                                                                                  \
        if (layer->has_options)                                                                                        \
            NAME(stream_step)(layer, 1, GATES_0, GATES_1, FIRST, SECOND, THIRD, numbers, x, state, scratch);           \
        else                                                                                                           \
            NAME(stream_step)(layer, 0, GATES_0, GATES_1, FIRST, SECOND, THIRD, numbers, x, state, scratch);           \
    }

#undef STREAM_PARAMETERS
#undef STREAM_TILE
#undef STREAM_TILE_ENTRY
#undef STREAM_TILES_4
#undef STREAM_TILES_12
#undef STREAM_TILES_16
#undef STREAM_TILES
