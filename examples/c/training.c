/* Training without Python: a GRU learns the running mean of its input, by forward, backward and plain gradient descent.
 * Prints the error every 50 steps; it ends below 1e-3.
 *
 *   cc -O2 training.c $(pkg-config --cflags --libs fastrnn) -lm -o training && ./training */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastrnn.h"

enum { T = 20, B = 32, I = 1, H = 16, G = 3 * H, STEPS = 300 };

/* All parameters of the layer, and their gradients, in one struct each. */
typedef struct {
    float weight_ih[G * I], weight_hh[G * H], bias_ih[G], bias_hh[G];
} parameters;

static float uniform(float bound)
{
    static uint32_t seed = 1;
    seed = seed * 1664525 + 1013904223;
    return bound * ((float)(seed >> 8) / 8388608 - 1);
}

static void check(fastrnn_status status)
{
    if (status == FASTRNN_OK) return;
    fprintf(stderr, "training: out of memory\n");
    exit(EXIT_FAILURE);
}

int main(void)
{
    static parameters p, d_p;
    static float x[T * B * I], target[T * B], output[T * B * H], d_output[T * B * H], d_x[T * B * I];
    static float h_0[B * H], h_n[B * H], d_h_n[B * H], d_h_0[B * H];
    float head[H], d_head[H]; /* prediction = output . head */
    for (size_t k = 0; k < sizeof p / sizeof(float); k++) ((float *)&p)[k] = uniform(0.25f);
    for (int j = 0; j < H; j++) head[j] = uniform(0.25f);
    for (int b = 0; b < B; b++)
        for (int t = 0; t < T; t++) {
            const float number = uniform(1), before = t ? target[(t - 1) * B + b] : 0;
            x[t * B + b] = number;
            target[t * B + b] = before + (number - before) / 4;
        }

    const fastrnn_isa *isa = fastrnn_isa_at(0);
    for (int k = 0; fastrnn_isa_at(k); k++)
        if (fastrnn_isa_is_supported(fastrnn_isa_at(k))) isa = fastrnn_isa_at(k);
    const fastrnn_weights weights = {.cell = fastrnn_find_cell("gru"),
                                     .I = I,
                                     .H = H,
                                     .P = H,
                                     .weight_ih = p.weight_ih,
                                     .weight_hh = p.weight_hh,
                                     .bias_ih = p.bias_ih,
                                     .bias_hh = p.bias_hh};
    fastrnn_packed *for_forward = NULL, *for_backward = NULL; /* their memory is used again by each packing */
    fastrnn_workspace *workspace = fastrnn_workspace_create();
    void *tape = malloc(fastrnn_tape_layout(FASTRNN_F32, weights.cell, T * B, H, 0).bytes);
    if (!workspace || !tape) check(FASTRNN_OUT_OF_MEMORY);

    float error = 0;
    for (int step = 0; step <= STEPS; step++) {
        check(fastrnn_pack(isa, FASTRNN_F32, FASTRNN_FORWARD, &weights, NULL, 1, &for_forward));
        check(fastrnn_pack(isa, FASTRNN_F32, FASTRNN_BACKWARD, &weights, NULL, 1, &for_backward));
        const fastrnn_forward_args forward = {.T = T,
                                              .B = B,
                                              .packed = for_forward,
                                              .x = x,
                                              .state_0 = {h_0},
                                              .output = output,
                                              .state_n = {h_n},
                                              .tape = tape};
        check(fastrnn_forward(&forward, 1, 0, workspace, NULL, 1));

        error = 0;
        memset(d_head, 0, sizeof d_head);
        for (int row = 0; row < T * B; row++) {
            float difference = -target[row];
            for (int j = 0; j < H; j++) difference += output[row * H + j] * head[j];
            error += difference * difference / (T * B);
            for (int j = 0; j < H; j++) {
                d_output[row * H + j] = 2 * difference / (T * B) * head[j];
                d_head[j] += 2 * difference / (T * B) * output[row * H + j];
            }
        }
        if (step % 50 == 0) printf("step %3d   mean squared error %.5f\n", step, (double)error);

        const fastrnn_backward_args backward = {.T = T,
                                                .B = B,
                                                .packed = for_backward,
                                                .x = x,
                                                .state_0 = {h_0},
                                                .tape = tape,
                                                .d_output = d_output,
                                                .d_state_n = {d_h_n},
                                                .d_x = d_x,
                                                .d_state_0 = {d_h_0},
                                                .d_weight_ih = d_p.weight_ih,
                                                .d_weight_hh = d_p.weight_hh,
                                                .d_bias_ih = d_p.bias_ih,
                                                .d_bias_hh = d_p.bias_hh};
        check(fastrnn_backward(&backward, 1, 0, workspace, NULL, 1));
        const float rate = 0.5f;
        for (size_t k = 0; k < sizeof p / sizeof(float); k++) ((float *)&p)[k] -= rate * ((const float *)&d_p)[k];
        for (int j = 0; j < H; j++) head[j] -= rate * d_head[j];
    }
    fastrnn_packed_free(for_forward);
    fastrnn_packed_free(for_backward);
    fastrnn_workspace_free(workspace);
    free(tape);
    if (error < 1e-3f) return EXIT_SUCCESS;
    fprintf(stderr, "training: the error is still %g\n", (double)error);
    return EXIT_FAILURE;
}
