/* Streams: packing a stack of layers, and its steps. */
#include "stream/stream.h"

#include <assert.h>
#include <string.h>

#include "kernels/kernels.h"
#include "layer/packed.h"
#include "runtime/float_mode.h"
#include "runtime/memory.h"

enum { MOST_SIZE = 1 << 24 }; /* of I, H and P: sums of some of them fit into 32 bits */

#define BOTH "stream/packing.inc.h"
#include "kernels/both.inc.h"

static const fastrnn_isa *fastest_isa(void)
{
    const fastrnn_isa *fastest = NULL;
    for (int k = 0; fastrnn_isa_at(k); k++)
        if (fastrnn_isa_is_supported(fastrnn_isa_at(k))) fastest = fastrnn_isa_at(k);
    return fastest;
}

/* Whether a layer of these weights exists, on top of a layer with `below` outputs. */
static int is_valid(const fastrnn_weights *w, ptrdiff_t below)
{
    const fastrnn_cell_properties cell = fastrnn_cell_at(w->cell);
    if (!cell.name || w->format || w->I < 0 || w->H < 1 || w->P < 1 || w->I > MOST_SIZE || w->H > MOST_SIZE ||
        w->P > MOST_SIZE)
        return 0;
    if (w->heads > 1 && (w->H % w->heads != 0 || w->weight_hr)) return 0;
    return w->I == below && (w->P == w->H || w->weight_hr) && (!w->peephole || cell.peepholes > 0);
}

fastrnn_status fastrnn_stream_pack(const fastrnn_isa *isa, fastrnn_dtype dtype, const fastrnn_weights *weights,
                                   int count, fastrnn_stream **stream)
{
    if (count < 1) return FASTRNN_INVALID;
    for (int k = 0; k < count; k++)
        if (!is_valid(&weights[k], k ? weights[k - 1].P : weights[k].I)) return FASTRNN_INVALID;
    if (!isa) isa = fastest_isa();
    fastrnn_stream_layer (*const layer_of)(const fastrnn_isa *, const fastrnn_weights *, fastrnn_layout *) =
        dtype == FASTRNN_F32 ? layer_of_f32 : layer_of_f64;
    const size_t element = fastrnn_element_bytes(dtype);

    fastrnn_layout records = {0}, numbers = {0}, state = {0};
    fastrnn_reserve(&records, sizeof(fastrnn_stream), 1, 1, 1);
    const size_t at_layers = fastrnn_reserve(&records, sizeof(fastrnn_stream_layer), count, 1, 1);
    ptrdiff_t scratch = 0;
    for (int k = 0; k < count; k++) {
        const fastrnn_stream_layer layer = layer_of(isa, &weights[k], &numbers);
        fastrnn_reserve(&state, element, layer.V + (layer.states - 1) * layer.U, 1, 1);
        if (fastrnn_stream_scratch(&layer) > scratch) scratch = fastrnn_stream_scratch(&layer);
    }
    fastrnn_layout all = records;
    const size_t at_numbers = fastrnn_reserve(&all, 1, (ptrdiff_t)numbers.size, 1, 1);
    all.overflow |= numbers.overflow | state.overflow;
    fastrnn_stream *to = fastrnn_allocate(&all);
    if (!to) return FASTRNN_OUT_OF_MEMORY;
    *to = (fastrnn_stream){.isa = isa,
                           .dtype = dtype,
                           .count = count,
                           .numbers_count = (ptrdiff_t)(numbers.size / element),
                           .states = (ptrdiff_t)(state.size / element),
                           .scratch = scratch,
                           .bytes = all.size,
                           .numbers = (char *)to + at_numbers,
                           .layers = (fastrnn_stream_layer *)((char *)to + at_layers)};
    memset(to->numbers, 0, numbers.size);
    numbers.size = state.size = 0;
    const float_mode before = float_mode_enter();
    for (int k = 0; k < count; k++) {
        fastrnn_stream_layer *layer = &to->layers[k];
        *layer = layer_of(isa, &weights[k], &numbers);
        const size_t at = fastrnn_reserve(&state, element, layer->V + (layer->states - 1) * layer->U, 1, 1);
        layer->state = (ptrdiff_t)(at / element);
        if (dtype == FASTRNN_F32)
            pack_layer_f32(to, layer, &weights[k]);
        else
            pack_layer_f64(to, layer, &weights[k]);
    }
    float_mode_leave(before);
    *stream = to;
    return FASTRNN_OK;
}

void fastrnn_stream_free(fastrnn_stream *stream) { fastrnn_free(stream); }

ptrdiff_t fastrnn_stream_inputs(const fastrnn_stream *stream) { return stream->layers[0].inputs; }

ptrdiff_t fastrnn_stream_outputs(const fastrnn_stream *stream) { return stream->layers[stream->count - 1].P; }

size_t fastrnn_stream_packed_bytes(const fastrnn_stream *stream) { return stream->bytes; }

size_t fastrnn_stream_state_bytes(const fastrnn_stream *stream)
{
    return (size_t)(stream->states + stream->scratch) * fastrnn_element_bytes(stream->dtype);
}

void fastrnn_stream_reset(const fastrnn_stream *stream, void *state)
{
    memset(state, 0, fastrnn_stream_state_bytes(stream));
}

void fastrnn_stream_step(const fastrnn_stream *stream, void *state, const void *x, void *y)
{
    fastrnn_stream_steps(stream, state, 1, x, y);
}

void fastrnn_stream_steps(const fastrnn_stream *stream, void *state, ptrdiff_t T, const void *x, void *y)
{
    const float_mode before = float_mode_enter();
    if (stream->dtype == FASTRNN_F32)
        steps_f32(stream, state, T, x, y);
    else
        steps_f64(stream, state, T, x, y);
    float_mode_leave(before);
}

/* State n of a layer within a block of states, and its size. */
static size_t find_state(const fastrnn_stream *stream, int layer, int n, size_t *bytes)
{
    assert(layer >= 0 && layer < stream->count && n >= 0 && n < stream->layers[layer].states);
    const fastrnn_stream_layer *l = &stream->layers[layer];
    const size_t element = fastrnn_element_bytes(stream->dtype);
    *bytes = (size_t)(n ? l->H : l->P) * element;
    return (size_t)(l->state + (n ? l->V + (n - 1) * l->U : 0)) * element;
}

void fastrnn_stream_get_state(const fastrnn_stream *stream, const void *state, int layer, int n, void *array)
{
    size_t bytes;
    const size_t at = find_state(stream, layer, n, &bytes);
    memcpy(array, (const char *)state + at, bytes);
}

void fastrnn_stream_set_state(const fastrnn_stream *stream, void *state, int layer, int n, const void *array)
{
    size_t bytes;
    const size_t at = find_state(stream, layer, n, &bytes);
    memcpy((char *)state + at, array, bytes);
}
