/* Packing and steps in one precision. */

/* The least multiple of the width of a vector that is n or more. */
static ptrdiff_t NAME(whole_vectors)(const fastrnn_isa *isa, ptrdiff_t n)
{
    const ptrdiff_t lanes = isa->SUFFIX->stream_lanes;
    return (n + lanes - 1) / lanes * lanes;
}

/* Reserves the memory of a matrix for so many gates of `units` units, padded to whole vectors. */
static fastrnn_stream_matrix NAME(reserve)(const fastrnn_isa *isa, fastrnn_layout *numbers, int gates, ptrdiff_t units,
                                           ptrdiff_t K_0, ptrdiff_t K_1)
{
    const ptrdiff_t lanes = isa->SUFFIX->stream_lanes, vectors = gates * (units / lanes);
    const size_t at = fastrnn_reserve(numbers, sizeof(real), vectors, lanes, 1 + K_0 + K_1);
    return (fastrnn_stream_matrix){
        .rows = (ptrdiff_t)(at / sizeof(real)), .vectors = vectors, .K = {K_0, K_1}, .group_vectors = vectors};
}

/* The same for gates of a cell, whose second input is h or, in part 1, the results of part 0. With heads, a group is a
 * block of the cell, as in a layer's call, so that a NaN of a head reaches the same other heads. */
static fastrnn_stream_matrix NAME(reserve_gates)(const fastrnn_isa *isa, fastrnn_layout *numbers, int gates,
                                                 const fastrnn_weights *w, ptrdiff_t K_0)
{
    const ptrdiff_t H = w->H, units = NAME(whole_vectors)(isa, H);
    if (w->heads <= 1) return NAME(reserve)(isa, numbers, gates, units, K_0, w->P);
    const ptrdiff_t head = H / w->heads, block = isa->SUFFIX->cells[w->cell]->block;
    ptrdiff_t most = 0; /* units of all heads of a block */
    for (ptrdiff_t from = 0; from < H; from += block) {
        const ptrdiff_t to = from + block < H ? from + block : H, all = ((to + head - 1) / head - from / head) * head;
        if (all > most) most = all;
    }
    fastrnn_stream_matrix matrix = NAME(reserve)(isa, numbers, gates, units, K_0, most);
    matrix.group_vectors = gates * (block / isa->SUFFIX->stream_lanes);
    matrix.group_units = block;
    matrix.head = head;
    matrix.last = H - most;
    return matrix;
}

/* A layer, without the place of its state. */
static fastrnn_stream_layer NAME(layer_of)(const fastrnn_isa *isa, const fastrnn_weights *w, fastrnn_layout *numbers)
{
    const NAME(cell) *cell = isa->SUFFIX->cells[w->cell];
    fastrnn_stream_layer layer = {.U = NAME(whole_vectors)(isa, w->H),
                                  .V = NAME(whole_vectors)(isa, w->P),
                                  .inputs = w->I,
                                  .H = w->H,
                                  .P = w->P,
                                  .cell = w->cell,
                                  .gates = cell->gates,
                                  .states = cell->states,
                                  .has_options = fastrnn_has_options(&w->options),
                                  .options = w->options,
                                  .part = {{.rows = -1}, {.rows = -1}},
                                  .recurrent = {.rows = -1},
                                  .projection = {.rows = -1},
                                  .peephole = -1};
    for (int part = 0; part < MOST_PARTS && cell->parts[part]; part++)
        layer.part[part] = cell->recurrent ? NAME(reserve)(isa, numbers, cell->parts[part], layer.U, w->I, 0)
                                           : NAME(reserve_gates)(isa, numbers, cell->parts[part], w, w->I);
    if (cell->recurrent) layer.recurrent = NAME(reserve_gates)(isa, numbers, cell->gates, w, 0);
    if (w->weight_hr) layer.projection = NAME(reserve)(isa, numbers, 1, layer.V, 0, w->H);
    if (w->peephole)
        layer.peephole =
            (ptrdiff_t)(fastrnn_reserve(numbers, sizeof(real), cell->peepholes, layer.U, 1) / sizeof(real));
    return layer;
}

/* The source of a matrix: gates of n units each, from row `first` of the weights on. The weights may be NULL where K is
 * 0, the biases for zeros. */
typedef struct {
    int gates;
    ptrdiff_t n, first;
    const real *bias[2], *weight[2];
} NAME(source);

/* The start and the weights of one column, the first `lanes` of whose vector are columns of the matrix: to[k * row] is
 * its number k. first: the unit of the first number of the second input. */
static void NAME(pack_column)(const fastrnn_stream_matrix *matrix, const NAME(source) * from, int gate, ptrdiff_t unit,
                              ptrdiff_t first, real *to, ptrdiff_t row)
{
    const ptrdiff_t j = from->first + gate * from->n + unit, K_0 = matrix->K[0], K_1 = matrix->K[1];
    const ptrdiff_t head = matrix->head, start = head ? unit / head * head - first : 0, depth = head ? head : K_1;
    *to = (from->bias[0] ? from->bias[0][j] : 0) + (from->bias[1] ? from->bias[1][j] : 0);
    for (ptrdiff_t k = 0; k < K_0; k++) to[(1 + k) * row] = from->weight[0][j * K_0 + k];
    for (ptrdiff_t k = 0; k < depth; k++) to[(1 + K_0 + start + k) * row] = from->weight[1][j * depth + k];
}

static void NAME(pack_matrix)(const fastrnn_stream *stream, const fastrnn_stream_matrix *matrix,
                              const NAME(source) * from)
{
    const ptrdiff_t lanes = stream->isa->SUFFIX->stream_lanes, most = stream->isa->SUFFIX->stream_vectors;
    real *to = (real *)stream->numbers + matrix->rows;
    for (ptrdiff_t group = 0, nv; group < matrix->vectors; group += matrix->group_vectors) {
        const ptrdiff_t rest = matrix->vectors - group;
        const ptrdiff_t end = group + (rest < matrix->group_vectors ? rest : matrix->group_vectors);
        const ptrdiff_t first = fastrnn_stream_first(matrix, group / matrix->group_vectors * matrix->group_units);
        for (ptrdiff_t v = group; v < end; v += nv, to += (1 + matrix->K[0] + matrix->K[1]) * nv * lanes) {
            nv = fastrnn_stream_tile(end - v, most);
            for (ptrdiff_t column = 0; column < nv * lanes; column++) {
                const ptrdiff_t vector = v + column / lanes, unit = vector / from->gates * lanes + column % lanes;
                if (unit < from->n)
                    NAME(pack_column)(matrix, from, (int)(vector % from->gates), unit, first, to + column, nv * lanes);
            }
        }
    }
}

/* Packs the weights of a layer into the numbers of the stream, which are zeros. */
static void NAME(pack_layer)(const fastrnn_stream *stream, const fastrnn_stream_layer *layer, const fastrnn_weights *w)
{
    const NAME(cell) *cell = stream->isa->SUFFIX->cells[layer->cell];
    const ptrdiff_t H = layer->H;
    for (int part = 0; part < MOST_PARTS && cell->parts[part]; part++) {
        NAME(source)
        from = {.gates = cell->parts[part],
                .n = H,
                .first = part ? cell->parts[0] * H : 0,
                .bias = {w->bias_ih, cell->recurrent ? NULL : w->bias_hh},
                .weight = {w->weight_ih, w->weight_hh}};
        NAME(pack_matrix)(stream, &layer->part[part], &from);
    }
    if (cell->recurrent) {
        const NAME(source)
            from = {.gates = cell->gates, .n = H, .bias = {NULL, w->bias_hh}, .weight = {NULL, w->weight_hh}};
        NAME(pack_matrix)(stream, &layer->recurrent, &from);
    }
    if (w->weight_hr) {
        const NAME(source) from = {.gates = 1, .n = layer->P, .weight = {NULL, w->weight_hr}};
        NAME(pack_matrix)(stream, &layer->projection, &from);
    }
    for (int p = 0; w->peephole && p < cell->peepholes; p++)
        memcpy((real *)stream->numbers + layer->peephole + p * layer->U, (const real *)w->peephole + p * H,
               (size_t)H * sizeof(real));
}

static void NAME(steps)(const fastrnn_stream *stream, real *state, ptrdiff_t T, const real *x, real *y)
{
    const fastrnn_stream_layer *layers = stream->layers, *last = layers + stream->count - 1;
    const NAME(cell) *const *cells = stream->isa->SUFFIX->cells;
    const ptrdiff_t I = layers->inputs, P = last->P;
    const real *numbers = stream->numbers, *h = state + last->state;
    for (ptrdiff_t t = 0; t < T; t++, x += I, y += P) {
        const real *input = x;
        for (const fastrnn_stream_layer *l = layers; l <= last; l++) {
            cells[l->cell]->stream(l, numbers, input, state + l->state, state + stream->states);
            input = state + l->state;
        }
        memcpy(y, h, (size_t)P * sizeof(real));
    }
}
