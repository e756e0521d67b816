#include "layer/packed.h"

#include <assert.h>
#include <string.h>

#include "runtime/memory.h"
#include "runtime/team.h"

typedef struct {
    const fastrnn_weights *weights;
    const fastrnn_packed *to;
    int items; /* phases in which the panels of each matrix are packed */
} packing;

#define BOTH "layer/packed.inc.h"
#include "kernels/both.inc.h"

void fastrnn_packed_free(fastrnn_packed *packed) { fastrnn_free(packed); }

size_t fastrnn_packed_bytes(const fastrnn_packed *packed) { return packed ? packed->bytes : 0; }

static int parts_of(const cell_f32 *cell) { return cell->parts[1] ? 2 : 1; }

/* A matrix and the offsets of its arrays in the block of packed weights, 0 for none. */
typedef struct {
    fastrnn_matrix matrix;
    size_t panels, scales, offsets;
} fastrnn_place;

/* The places of all matrices, and the layout of the block. */
typedef struct {
    fastrnn_layout layout;
    fastrnn_place weight_ih[MOST_PARTS], weight_hh[MOST_PARTS], weight_hr;
    size_t bias_ih[MOST_PARTS], bias_hh[MOST_PARTS], peephole;
} offsets;

/* The heads of weight_hh, in a matrix that has the columns of `group_units` units in so many panels. Of heads that do
 * not consist of whole groups of the format every panel has all rows. */
static fastrnn_heads heads_of(const fastrnn_weights *weights, ptrdiff_t group_units, ptrdiff_t group_panels)
{
    if (weights->heads <= 1) return (fastrnn_heads){0};
    const ptrdiff_t H = weights->H, head = H / weights->heads;
    const int aligned = !weights->format || head % fastrnn_narrow_layouts[weights->format].group == 0;
    fastrnn_heads heads = {H, head, group_panels, group_units, aligned ? head : H};
    for (ptrdiff_t from = 0; from < H; from += group_units) {
        const ptrdiff_t to = from + group_units < H ? from + group_units : H;
        const ptrdiff_t rows = (fastrnn_panels(to, head) - from / head) * head;
        if (rows > heads.rows) heads.rows = rows;
    }
    return heads;
}

/* Reserves the memory of a matrix (K, N), in a narrow format or else of numbers of `element` bytes. */
static fastrnn_place reserve_matrix(fastrnn_layout *layout, const fastrnn_narrow *narrow, size_t element, int width,
                                    ptrdiff_t K, ptrdiff_t N)
{
    const ptrdiff_t panels = fastrnn_panels(N, width);
    fastrnn_matrix matrix = {.K = K, .N = N, .narrow = narrow};
    if (!narrow) return (fastrnn_place){matrix, fastrnn_reserve(layout, element, panels, width, K), 0, 0};
    fastrnn_place place = {matrix, fastrnn_reserve(layout, 1, panels, fastrnn_panel_bytes(&matrix, width), 1), 0, 0};
    if (fastrnn_narrow_layouts[narrow->format].properties.has_scales) {
        place.scales = fastrnn_reserve(layout, sizeof(float), panels, width, 1);
        place.offsets = fastrnn_reserve(layout, sizeof(int32_t), panels, width, 1);
    }
    return place;
}

static fastrnn_matrix matrix_at(char *memory, fastrnn_place place)
{
    place.matrix.panels = memory + place.panels;
    if (place.scales) place.matrix.scales = (float *)(memory + place.scales);
    if (place.offsets) place.matrix.offsets = (int32_t *)(memory + place.offsets);
    return place.matrix;
}

/* Reserves the memory of all arrays of packed weights. */
static offsets reserve_all(const fastrnn_isa *isa, fastrnn_dtype dtype, fastrnn_pass pass,
                           const fastrnn_weights *weights, const fastrnn_narrow *narrow)
{
    const ptrdiff_t I = weights->I, H = weights->H, P = weights->P;
    const int is_float = dtype == FASTRNN_F32, is_forward = pass == FASTRNN_FORWARD;
    const int width = is_float ? isa->f32->width : isa->f64->width;
    const size_t element = fastrnn_element_bytes(dtype);
    const cell_f32 *cell = isa->f32->cells[weights->cell]; /* that of f64 has the same numbers of gates */
    const ptrdiff_t G = cell->gates * H;                   /* an array of so many rows exists, so no overflow */
    /* Groups of units are the same for all instruction sets: so a NaN of a head reaches the same others. */
    const int block = is_float ? cell->block : isa->f64->cells[weights->cell]->block;
    const ptrdiff_t units = (ptrdiff_t)(128 / element);

    offsets at = {.layout = {0}};
    fastrnn_layout *layout = &at.layout;
    fastrnn_reserve(layout, sizeof(fastrnn_packed), 1, 1, 1);
    for (int k = 0; k < parts_of(cell); k++) {
        const ptrdiff_t rows = cell->parts[k] * H;
        const fastrnn_heads heads = is_forward ? heads_of(weights, block, cell->parts[k] * block / width)
                                               : heads_of(weights, units, units / width);
        if (is_forward) {
            const ptrdiff_t K = heads.head ? heads.rows : P;
            at.weight_ih[k] = reserve_matrix(layout, narrow, element, width, I, rows);
            at.weight_hh[k] = reserve_matrix(layout, narrow, element, width, K, rows);
            at.bias_ih[k] = fastrnn_reserve(layout, element, fastrnn_panels(rows, width), width, 1);
            at.bias_hh[k] =
                fastrnn_reserve(layout, element, cell->recurrent ? fastrnn_panels(rows, width) : 0, width, 1);
        } else {
            const ptrdiff_t K = cell->parts[k] * (heads.head ? heads.rows : H);
            at.weight_ih[k] = reserve_matrix(layout, narrow, element, width, k || !weights->weight_ih ? 0 : G, I);
            at.weight_hh[k] = reserve_matrix(layout, narrow, element, width, K, P);
        }
        at.weight_hh[k].matrix.heads = heads;
    }
    if (weights->weight_hr) {
        const int is_narrow = narrow && fastrnn_narrow_layouts[narrow->format].properties.rounds_projection;
        at.weight_hr =
            reserve_matrix(layout, is_narrow ? narrow : NULL, element, width, is_forward ? H : P, is_forward ? P : H);
    }
    at.peephole = fastrnn_reserve(layout, element, weights->peephole ? cell->peepholes : 0, H, 1);
    return at;
}

/* Points the record of packed weights to its arrays, which follow it in memory. */
static void set_arrays(fastrnn_packed *to, const offsets *at, const cell_f32 *cell, const fastrnn_weights *weights)
{
    const int is_forward = to->pass == FASTRNN_FORWARD;
    char *memory = (char *)to;
    for (int k = 0; k < to->parts; k++) {
        to->weight_ih[k] = matrix_at(memory, at->weight_ih[k]);
        to->weight_hh[k] = matrix_at(memory, at->weight_hh[k]);
        to->bias_ih[k] = is_forward ? memory + at->bias_ih[k] : NULL;
        to->bias_hh[k] = is_forward && cell->recurrent ? memory + at->bias_hh[k] : NULL;
    }
    if (to->has_projection) to->weight_hr = matrix_at(memory, at->weight_hr);
    to->peephole = weights->peephole ? memory + at->peephole : NULL;
}

/* The threads for work on so many numbers of weights, and its phases: a team pays off from some tens of microseconds
 * on, and more phases, for helpers that start late, from milliseconds on. */
static int threads_for(double numbers, int threads) { return numbers < 100e3 ? 1 : fastrnn_team_threads(threads); }
static int items_for(double numbers, int threads)
{
    const double of_an_item = 2e6;
    return threads == 1 || numbers < 2 * of_an_item ? 1 : (int)(numbers / of_an_item);
}

/* Packs all arrays. */
static fastrnn_status pack_arrays(const fastrnn_packed *to, ptrdiff_t G, const fastrnn_weights *weights,
                                  const fastrnn_interruption *interruption, int threads)
{
    const double numbers = (double)G * (double)((weights->weight_ih ? to->I : 0) + to->S) +
                           (to->has_projection ? (double)to->P * (double)to->H : 0);
    const double ns = 0.3; /* for each number */
    threads = threads_for(numbers, threads);
    const packing p = {weights, to, items_for(numbers, threads)};
    fastrnn_team team;
    fastrnn_team_open(&team, threads, ns * numbers, interruption);
    for (int k = 0; k < p.items; k++)
        if (!fastrnn_team_phase(&team, threads, FASTRNN_PACKING * numbers / p.items,
                                to->dtype == FASTRNN_F32 ? pack_share_f32 : pack_share_f64, &p, k))
            break;
    return fastrnn_team_close(&team) ? FASTRNN_OK : FASTRNN_INTERRUPTED;
}

fastrnn_status fastrnn_pack(const fastrnn_isa *isa, fastrnn_dtype dtype, fastrnn_pass pass,
                            const fastrnn_weights *weights, const fastrnn_interruption *interruption, int threads,
                            fastrnn_packed **packed)
{
    const ptrdiff_t I = weights->I, H = weights->H, P = weights->P;
    const ptrdiff_t heads = weights->heads > 1 ? weights->heads : 1;
    const fastrnn_narrow *narrow = fastrnn_find_narrow(isa, weights->format, weights->instructions);
    const cell_f32 *cell = isa->f32->cells[weights->cell];
    const int has_projection = weights->weight_hr != NULL;
    assert(weights->weight_ih || pass == FASTRNN_BACKWARD);
    assert(I >= 0 && H > 0 && P > 0 && (P == H || has_projection) && (!weights->peephole || cell->peepholes));
    assert(!weights->format || (narrow && dtype == FASTRNN_F32 && pass == FASTRNN_FORWARD));
    assert(H % heads == 0 && (heads == 1 || !has_projection));

    offsets at = reserve_all(isa, dtype, pass, weights, narrow);
    fastrnn_layout *layout = &at.layout;
    fastrnn_packed *to = *packed;
    if (!to || layout->overflow || to->bytes < layout->size) {
        to = fastrnn_allocate(layout);
        if (!to) return FASTRNN_OUT_OF_MEMORY;
        to->bytes = layout->size;
        fastrnn_free(*packed);
        *packed = to;
    }
    *to = (fastrnn_packed){.isa = isa,
                           .dtype = dtype,
                           .pass = pass,
                           .cell = weights->cell,
                           .options = weights->options,
                           .has_options = fastrnn_has_options(&weights->options),
                           .I = I,
                           .H = H,
                           .P = P,
                           .heads = heads,
                           .S = P / heads,
                           .has_projection = has_projection,
                           .parts = parts_of(cell),
                           .narrow = narrow,
                           .bytes = to->bytes};
    set_arrays(to, &at, cell, weights);
    return pack_arrays(to, cell->gates * H, weights, interruption, threads);
}

typedef struct {
    const fastrnn_narrow_layout *layout;
    ptrdiff_t rows, columns;
    const float *weight;
    char *values;
    float *scales;
    int items;
    fastrnn_fit *fits; /* of the rows of each member */
} rounding;

static void round_share(const void *context, const fastrnn_member *me)
{
    const rounding *r = context;
    const ptrdiff_t row_bytes = r->columns * (ptrdiff_t)r->layout->element;
    const fastrnn_range rows = fastrnn_share_of_item(r->rows, r->items, me);
    for (ptrdiff_t row = rows.from; row < rows.to; row++) {
        float *scale = r->layout->properties.has_scales ? r->scales + row : NULL;
        const fastrnn_fit fit =
            r->layout->round_row(r->columns, r->weight + row * r->columns, r->values + row * row_bytes, scale);
        if (fit > r->fits[me->index]) r->fits[me->index] = fit;
    }
}

fastrnn_fit fastrnn_round_weight(fastrnn_format format, ptrdiff_t rows, ptrdiff_t columns, const float *weight,
                                 void *values, float *scales, int threads)
{
    const double numbers = (double)rows * (double)columns, ns = 0.6; /* for each number */
    fastrnn_fit fits[FASTRNN_MOST_MEMBERS] = {FASTRNN_FITS}, worst = FASTRNN_FITS;
    threads = threads_for(numbers, threads);
    const rounding r = {&fastrnn_narrow_layouts[format], rows, columns, weight, values, scales,
                        items_for(numbers, threads),     fits};
    fastrnn_team team;
    fastrnn_team_open(&team, threads, ns * numbers, NULL);
    for (int k = 0; k < r.items; k++)
        fastrnn_team_phase(&team, threads, FASTRNN_PACKING * numbers / r.items, round_share, &r, k);
    fastrnn_team_close(&team);
    for (int i = 0; i < FASTRNN_MOST_MEMBERS; i++)
        if (fits[i] > worst) worst = fits[i];
    return worst;
}
