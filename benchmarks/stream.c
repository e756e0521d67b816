/* The time of every single step of a stream, LSTM(1, 40), over 10 million steps: its distribution and its worst case,
 * beside those of a loop that only reads the clock for as long: the system interrupts both alike.
 *
 *   cc -O2 benchmarks/stream.c $(pkg-config --cflags --libs fastrnn) -o stream_latency && ./stream_latency */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fastrnn.h"
#include "fastrnn_stream.h"

enum { STEPS = 10000000, H = 40, G = 4 * H, BINS = 1 << 20 /* ns */ };

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static float uniform(float bound)
{
    static uint32_t seed = 1;
    seed = seed * 1664525 + 1013904223;
    return bound * ((float)(seed >> 8) / 8388608 - 1);
}

static uint32_t bins[BINS];

/* The time below which so many of the steps stay. */
static int quantile(double part)
{
    int64_t seen = 0;
    for (int ns = 0; ns < BINS; ns++)
        if ((double)(seen += bins[ns]) >= part * STEPS) return ns;
    return BINS;
}

/* Returns the median. wait: the time of a step without a stream. */
static int measure(const char *name, const fastrnn_stream *stream, void *state, int wait)
{
    float y[H] = {0}, sum = 0;
    int64_t worst = 0;
    for (int k = 0; k < BINS; k++) bins[k] = 0;
    for (int t = 0; t < STEPS; t++) {
        const float x = uniform(1);
        const int64_t begin = now();
        int64_t time;
        if (stream) fastrnn_stream_step(stream, state, &x, y);
        do time = now() - begin;
        while (time < wait);
        bins[time < BINS ? time : BINS - 1]++;
        if (time > worst) worst = time;
        sum += y[0];
    }
    printf("%-20s median %4d ns, 99%% %4d, 99.9%% %5d, 99.99%% %6d, 99.999%% %6d, largest %7.1f us   (%g)\n", name,
           quantile(0.5), quantile(0.99), quantile(0.999), quantile(0.9999), quantile(0.99999), (double)worst / 1e3,
           (double)sum);
    return quantile(0.5);
}

int main(void)
{
    static float weight_ih[G], weight_hh[G * H], bias[G];
    for (int k = 0; k < G; k++) weight_ih[k] = uniform(0.16f), bias[k] = uniform(0.16f);
    for (int k = 0; k < G * H; k++) weight_hh[k] = uniform(0.16f);
    const fastrnn_weights weights = {.cell = fastrnn_find_cell("lstm"),
                                     .I = 1,
                                     .H = H,
                                     .P = H,
                                     .weight_ih = weight_ih,
                                     .weight_hh = weight_hh,
                                     .bias_ih = bias};
    fastrnn_stream *stream = NULL;
    if (fastrnn_stream_pack(NULL, FASTRNN_F32, &weights, 1, &stream)) return EXIT_FAILURE;
    void *state = malloc(fastrnn_stream_state_bytes(stream));
    if (!state) return EXIT_FAILURE;
    fastrnn_stream_reset(stream, state);
    for (int round = 0; round < 2; round++) {
        const int median = measure("a step", stream, state, 0);
        measure("waiting for as long", NULL, NULL, median - 8);
    }
    free(state);
    fastrnn_stream_free(stream);
    return EXIT_SUCCESS;
}
