/* One second of audio at 48 kHz, sample by sample, through LSTM(1, 40): a stream of fastrnn beside RTNeural's LSTMLayerT,
 * whose sizes are constants of the compiler. Both have the same weights; the outputs are compared first.
 *
 * The head of docs/c.md's section on speed has the commands. */
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <RTNeural/RTNeural.h>

#include "fastrnn_stream.h"

namespace
{
constexpr int T = 48000, H = 40, G = 4 * H, ROUNDS = 15;

using Clock = std::chrono::steady_clock;
double milliseconds(Clock::time_point from) { return std::chrono::duration<double, std::milli>(Clock::now() - from).count(); }

std::vector<float> uniform(size_t n, float bound)
{
    std::vector<float> numbers(n);
    for (float &number : numbers) number = bound * (2 * static_cast<float>(std::rand()) / static_cast<float>(RAND_MAX) - 1);
    return numbers;
}

double median(std::vector<double> times)
{
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}
} // namespace

int main()
{
    std::srand(1);
    const std::vector<float> weight_ih = uniform(G, 0.16f), weight_hh = uniform(G * H, 0.16f), bias = uniform(G, 0.16f),
                             x = uniform(T, 1);
    std::vector<float> y(T * H), other(T * H);

    fastrnn_weights weights{};
    weights.cell = fastrnn_find_cell("lstm");
    weights.I = 1;
    weights.H = weights.P = H;
    weights.weight_ih = weight_ih.data();
    weights.weight_hh = weight_hh.data();
    weights.bias_ih = bias.data();
    fastrnn_stream *stream = nullptr;
    if (fastrnn_stream_pack(nullptr, FASTRNN_F32, &weights, 1, &stream) != FASTRNN_OK) return 1;
    void *state = std::aligned_alloc(64, (fastrnn_stream_state_bytes(stream) + 63) / 64 * 64);

    /* RTNeural has Keras' layout: (inputs, 4 H), and the gates i, f, g, o as here. */
    static RTNeural::LSTMLayerT<float, 1, H> layer;
    std::vector<std::vector<float>> W(1, std::vector<float>(G)), U(H, std::vector<float>(G));
    for (int g = 0; g < G; g++) {
        W[0][g] = weight_ih[g];
        for (int k = 0; k < H; k++) U[k][g] = weight_hh[g * H + k];
    }
    layer.setWVals(W);
    layer.setUVals(U);
    layer.setBVals(bias);

    std::vector<double> own, theirs;
    for (int round = 0; round < ROUNDS; round++) {
        fastrnn_stream_reset(stream, state);
        auto from = Clock::now();
        for (int t = 0; t < T; t++) fastrnn_stream_step(stream, state, &x[t], &y[t * H]);
        own.push_back(milliseconds(from));

        layer.reset();
        from = Clock::now();
        for (int t = 0; t < T; t++) {
#if RTNEURAL_USE_XSIMD
            xsimd::batch<float> in[1] = {xsimd::batch<float>(x[t])};
            layer.forward(in);
            for (int j = 0; j * static_cast<int>(xsimd::batch<float>::size) < H; j++) {
                constexpr int lanes = static_cast<int>(xsimd::batch<float>::size);
                if ((j + 1) * lanes <= H) layer.outs[j].store_unaligned(&other[t * H + j * lanes]);
                else {
                    alignas(64) float rest[lanes];
                    layer.outs[j].store_aligned(rest);
                    std::copy(rest, rest + H - j * lanes, &other[t * H + j * lanes]);
                }
            }
#elif RTNEURAL_USE_EIGEN
            Eigen::Matrix<float, 1, 1> in;
            in(0) = x[t];
            layer.forward(in);
            std::copy(layer.outs.data(), layer.outs.data() + H, &other[t * H]);
#else
            float in[1] = {x[t]};
            layer.forward(in);
            std::copy(layer.outs, layer.outs + H, &other[t * H]);
#endif
        }
        theirs.push_back(milliseconds(from));
    }
    float most = 0;
    for (int k = 0; k < T * H; k++) most = std::max(most, std::fabs(y[k] - other[k]));
    std::printf("fastrnn %.2f ms, RTNeural %.2f ms: %.2f times; largest difference of the outputs %.1e\n", median(own),
                median(theirs), median(theirs) / median(own), static_cast<double>(most));
    fastrnn_stream_free(stream);
    std::free(state);
    return most < 1e-4f ? 0 : 1;
}
