/* One second of audio at 48 kHz through an LSTM of 40 units, sample by sample, as an audio plug-in calls it. Prints the
 * time, and checks that the outputs are those of one call over the whole second.
 *
 *   cc -O2 stream.c $(pkg-config --cflags --libs fastrnn) -o stream && ./stream */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fastrnn.h"
#include "fastrnn_stream.h"

enum { T = 48000, I = 1, H = 40, G = 4 * H };

/* The same numbers on every machine, from -bound to bound. */
static void fill(float *numbers, size_t n, float bound)
{
    static uint32_t seed = 1;
    for (size_t k = 0; k < n; k++) {
        seed = seed * 1664525 + 1013904223;
        numbers[k] = bound * ((float)(seed >> 8) / 8388608 - 1);
    }
}

static int fail(const char *what)
{
    fprintf(stderr, "stream: %s\n", what);
    return EXIT_FAILURE;
}

int main(void)
{
    static float weight_ih[G * I], weight_hh[G * H], bias[G], x[T * I], y[T * H], whole[T * H];
    fill(weight_ih, G * I, 0.16f);
    fill(weight_hh, G * H, 0.16f);
    fill(bias, G, 0.16f);
    fill(x, T * I, 1);
    const fastrnn_weights weights = {.cell = fastrnn_find_cell("lstm"),
                                     .I = I,
                                     .H = H,
                                     .P = H,
                                     .weight_ih = weight_ih,
                                     .weight_hh = weight_hh,
                                     .bias_ih = bias};

    fastrnn_stream *stream = NULL;
    if (fastrnn_stream_pack(NULL, FASTRNN_F32, &weights, 1, &stream) != FASTRNN_OK)
        return fail("the stream was refused");
    void *state = malloc(fastrnn_stream_state_bytes(stream)); /* one block for each sequence in progress */
    if (!state) return fail("out of memory");
    fastrnn_stream_reset(stream, state);
    const clock_t begin = clock();
    for (int t = 0; t < T; t++) fastrnn_stream_step(stream, state, x + t * I, y + t * H);
    printf("%d samples in %.1f ms of processor time\n", T, 1e3 * (double)(clock() - begin) / CLOCKS_PER_SEC);
    free(state);
    fastrnn_stream_free(stream);

    /* The same layer in one call. */
    const fastrnn_isa *isa = fastrnn_isa_at(0);
    for (int k = 0; fastrnn_isa_at(k); k++)
        if (fastrnn_isa_is_supported(fastrnn_isa_at(k))) isa = fastrnn_isa_at(k);
    fastrnn_packed *packed = NULL;
    if (fastrnn_pack(isa, FASTRNN_F32, FASTRNN_FORWARD, &weights, NULL, 1, &packed)) return fail("out of memory");
    float h[H] = {0}, c[H] = {0};
    const fastrnn_forward_args call = {
        .T = T, .B = 1, .packed = packed, .x = x, .state_0 = {h, c}, .output = whole, .state_n = {h, c}};
    if (fastrnn_forward(&call, 1, 0, NULL, NULL, 1)) return fail("out of memory");
    fastrnn_packed_free(packed);
    if (memcmp(y, whole, sizeof y)) return fail("the outputs differ from those of one call");
    printf("the same bits as one call, with the kernels for %s\n", fastrnn_isa_name(isa));
    return EXIT_SUCCESS;
}
