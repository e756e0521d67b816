"""An LSTM in plain NumPy, forward and backward, that learns to remember. docs/equations.md derives the steps."""

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(params, x):
    """x (T, B, I) -> output (T, B, H), and the tape: the values of each step that backward needs."""
    W_ih, W_hh, b = params  # (4H, I), (4H, H), (4H,), the gates in the order i, f, g, o
    h = c = np.zeros((x.shape[1], W_hh.shape[1]))
    output, tape = [], []
    for x_t in x:
        h_prev, c_prev = h, c
        z_i, z_f, z_g, z_o = np.split(x_t @ W_ih.T + h_prev @ W_hh.T + b, 4, axis=1)  # (1)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)  # (2), (4)
        c = f * c_prev + i * g  # (3)
        a = np.tanh(c)  # (5)
        h = o * a
        output.append(h)
        tape.append((x_t, h_prev, c_prev, i, f, g, o, a))
    return np.stack(output), tape


def backward(params, tape, d_output):
    """d_output (T, B, H) -> d_x (T, B, I), and the gradients of params."""
    W_ih, W_hh, b = params
    d_W_ih, d_W_hh, d_b = d_params = [np.zeros_like(p) for p in params]
    d_h, d_c, d_x = 0, 0, []
    for d_output_t, (x_t, h_prev, c_prev, i, f, g, o, a) in zip(reversed(d_output), reversed(tape)):
        d_h = d_h + d_output_t
        d_o, d_c = d_h * a, d_c + d_h * o * (1 - a * a)  # (5)
        d_z_o = d_o * o * (1 - o)  # (4)
        d_i, d_f, d_g, d_c = d_c * g, d_c * c_prev, d_c * i, d_c * f  # (3)
        d_z_i, d_z_f, d_z_g = d_i * i * (1 - i), d_f * f * (1 - f), d_g * (1 - g * g)  # (2)
        d_z = np.concatenate([d_z_i, d_z_f, d_z_g, d_z_o], axis=1)  # (1)
        d_W_ih += d_z.T @ x_t
        d_W_hh += d_z.T @ h_prev
        d_b += d_z.sum(axis=0)
        d_x.append(d_z @ W_ih)
        d_h = d_z @ W_hh
    return np.stack(d_x[::-1]), d_params


if __name__ == "__main__":
    T, B, I, H, rng = 20, 32, 1, 16, np.random.default_rng(0)
    params = [rng.normal(0, 0.3, shape) for shape in ((4 * H, I), (4 * H, H), (4 * H,))]
    params[2][H : 2 * H] += 2  # a forget gate that begins nearly open
    for step in range(1001):
        x = rng.uniform(-0.5, 0.5, (T, B, I))
        output, tape = forward(params, x)
        error = output[-1, :, 0] - x[0, :, 0]  # the target of the last h[0] is the first input
        d_output = np.zeros_like(output)
        d_output[-1, :, 0] = 2 * error / B
        for p, d_p in zip(params, backward(params, tape, d_output)[1]):
            p -= 0.2 * d_p
        if step % 200 == 0:
            print(f"step {step}: mean squared error {np.mean(error**2):.4f}")
