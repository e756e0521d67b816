#include "packed.h"

#include <assert.h>

#include "kernels.h"
#include "memory.h"
#include "team.h"

typedef struct {
    const fastrnn_lstm_weights *weights;
    const fastrnn_packed *to;
} packing;

#define real float
#define SUFFIX f32
#include "packed.inc.h"
#undef real
#undef SUFFIX

#define real double
#define SUFFIX f64
#include "packed.inc.h"
#undef real
#undef SUFFIX

void fastrnn_packed_free(fastrnn_packed *packed) { fastrnn_free(packed); }

size_t fastrnn_packed_bytes(const fastrnn_packed *packed) { return packed ? packed->bytes : 0; }

fastrnn_status fastrnn_lstm_pack(const fastrnn_isa *isa, fastrnn_dtype dtype, fastrnn_pass pass,
                                 const fastrnn_lstm_weights *weights, int threads, fastrnn_packed **packed)
{
    const ptrdiff_t I = weights->I, H = weights->H;
    const int is_float = dtype == FASTRNN_F32;
    const size_t element = is_float ? sizeof(float) : sizeof(double);
    const ptrdiff_t width = is_float ? isa->f32->width : isa->f64->width;
    assert(I >= 0 && H > 0);

    fastrnn_layout layout = {0};
    fastrnn_reserve(&layout, sizeof(fastrnn_packed), 1, 1, 1);
    size_t panels_ih, panels_hh, bias;
    if (pass == FASTRNN_FORWARD) {
        const ptrdiff_t panels = fastrnn_panels(4 * H, width);
        panels_ih = fastrnn_reserve(&layout, element, panels, width, I);
        panels_hh = fastrnn_reserve(&layout, element, panels, width, H);
        bias = fastrnn_reserve(&layout, element, panels, width, 1);
    } else {
        panels_ih = fastrnn_reserve(&layout, element, 4, H, fastrnn_panels(I, width) * width);
        panels_hh = fastrnn_reserve(&layout, element, 4, H, fastrnn_panels(H, width) * width);
        bias = 0;
    }

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
    to->I = I;
    to->H = H;
    to->panels_ih = (char *)to + panels_ih;
    to->panels_hh = (char *)to + panels_hh;
    to->bias = pass == FASTRNN_FORWARD ? (char *)to + bias : NULL;

    /* A team is worth its start from some tens of microseconds on. */
    const double numbers = 4.0 * (double)H * (double)(I + H);
    packing p = {weights, to};
    fastrnn_team_run(numbers < 100e3 ? 1 : threads, is_float ? pack_member_f32 : pack_member_f64, &p);
    return FASTRNN_OK;
}
