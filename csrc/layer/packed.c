#include "layer/packed.h"

#include <assert.h>
#include <string.h>

#include "kernels/kernels.h"
#include "runtime/memory.h"
#include "runtime/team.h"

typedef struct {
    const fastrnn_weights *weights;
    const fastrnn_packed *to;
    int parts; /* of the panels of each matrix */
} packing;

#define real float
#define SUFFIX f32
#include "layer/packed.inc.h"
#undef real
#undef SUFFIX

#define real double
#define SUFFIX f64
#include "layer/packed.inc.h"
#undef real
#undef SUFFIX

void fastrnn_packed_free(fastrnn_packed *packed) { fastrnn_free(packed); }

size_t fastrnn_packed_bytes(const fastrnn_packed *packed) { return packed ? packed->bytes : 0; }

fastrnn_tape_columns fastrnn_tape(fastrnn_cell cell, ptrdiff_t H, ptrdiff_t projection)
{
    if (cell == FASTRNN_LSTM) return (fastrnn_tape_columns){4 * H, H, projection};
    return cell == FASTRNN_GRU ? (fastrnn_tape_columns){3 * H, H, H} : (fastrnn_tape_columns){0, H, 0};
}

/* One number for all instruction sets, see DEFINE_CELL. */
int fastrnn_gate_block(fastrnn_dtype dtype, fastrnn_cell cell)
{
    const fastrnn_isa *isa = fastrnn_isa_at(0);
    return dtype == FASTRNN_F32 ? isa->f32->cells[cell]->block : isa->f64->cells[cell]->block;
}

fastrnn_status fastrnn_pack(const fastrnn_isa *isa, fastrnn_dtype dtype, fastrnn_pass pass,
                            const fastrnn_weights *weights, const fastrnn_interruption *interruption, int threads,
                            fastrnn_packed **packed)
{
    const ptrdiff_t I = weights->I, H = weights->H, P = weights->P;
    const int is_float = dtype == FASTRNN_F32;
    const size_t element = is_float ? sizeof(float) : sizeof(double);
    const ptrdiff_t width = is_float ? isa->f32->width : isa->f64->width;
    const int gates = is_float ? isa->f32->cells[weights->cell]->gates : isa->f64->cells[weights->cell]->gates;
    const ptrdiff_t G = gates * H; /* numbers of that many rows are in memory */
    const int has_projection = weights->weight_hr != NULL;
    assert(I >= 0 && H > 0 && P > 0 && (P == H || has_projection));

    fastrnn_layout layout = {0};
    fastrnn_reserve(&layout, sizeof(fastrnn_packed), 1, 1, 1);
    size_t panels_ih, panels_hh, panels_hr, bias_ih = 0, bias_hh = 0;
    if (pass == FASTRNN_FORWARD) {
        panels_ih = fastrnn_reserve(&layout, element, fastrnn_panels(G, width), width, I);
        panels_hh = fastrnn_reserve(&layout, element, fastrnn_panels(G, width), width, P);
        panels_hr = fastrnn_reserve(&layout, element, has_projection ? fastrnn_panels(P, width) : 0, width, H);
        bias_ih = fastrnn_reserve(&layout, element, fastrnn_panels(G, width), width, 1);
        bias_hh = fastrnn_reserve(&layout, element, fastrnn_panels(G, width), width, 1);
    } else {
        panels_ih = fastrnn_reserve(&layout, element, G, fastrnn_panels(I, width), width);
        panels_hh = fastrnn_reserve(&layout, element, G, fastrnn_panels(P, width), width);
        panels_hr = fastrnn_reserve(&layout, element, has_projection ? P : 0, fastrnn_panels(H, width), width);
    }
    const size_t peephole = fastrnn_reserve(&layout, element, weights->peephole ? 3 : 0, H, 1);

    fastrnn_packed *to = *packed;
    if (!to || layout.overflow || to->bytes < layout.size) {
        to = fastrnn_allocate(&layout);
        if (!to) return FASTRNN_OUT_OF_MEMORY;
        to->bytes = layout.size;
        fastrnn_free(*packed);
        *packed = to;
    }
    to->isa = isa;
    to->dtype = dtype;
    to->pass = pass;
    to->cell = weights->cell;
    to->I = I;
    to->H = H;
    to->P = P;
    to->has_projection = has_projection;
    char *memory = (char *)to;
    to->panels_ih = memory + panels_ih;
    to->panels_hh = memory + panels_hh;
    to->panels_hr = has_projection ? memory + panels_hr : NULL;
    to->bias_ih = pass == FASTRNN_FORWARD ? memory + bias_ih : NULL;
    to->bias_hh = pass == FASTRNN_FORWARD ? memory + bias_hh : NULL;
    to->peephole = weights->peephole ? memory + peephole : NULL;

    /* A team is worth its start from some tens of microseconds on, and helpers that come late from milliseconds on. */
    const double numbers = (double)G * (double)(I + P) + (has_projection ? (double)P * (double)H : 0);
    const double fewest = 100e3, of_a_part = 2e6, operations = 20, ns = 0.3; /* for each number */
    threads = numbers < fewest ? 1 : fastrnn_team_threads(threads);
    const packing p = {weights, to, threads == 1 || numbers < 2 * of_a_part ? 1 : (int)(numbers / of_a_part)};
    fastrnn_team team;
    fastrnn_team_open(&team, threads, ns * numbers, interruption);
    for (int k = 0; k < p.parts; k++)
        if (!fastrnn_team_phase(&team, threads, operations * numbers / p.parts,
                                is_float ? pack_share_f32 : pack_share_f64, &p, k))
            break;
    return fastrnn_team_close(&team) ? FASTRNN_OK : FASTRNN_INTERRUPTED;
}
