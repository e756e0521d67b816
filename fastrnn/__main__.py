"""``python -m fastrnn``: print the configuration, then hold every kernel against the reference.

The exit status is 1 if one is off.
"""

import sys

import numpy as np

from fastrnn import _config, functional, reference

# (T, B, I, H): one, odd, and around the widths of the vectors and panels
SHAPES = [(1, 1, 1, 1), (5, 3, 7, 5), (9, 2, 16, 33), (4, 17, 31, 48), (3, 40, 65, 64)]
# The largest difference from the reference in float64, relative to the largest number of the array.
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-13}


def _draw(rng, dtype, T, B, I, H):
    """Random inputs, exactly representable in dtype, as float64: x, state, weights, gradients of the results."""
    shapes = [(T, B, I), (B, H), (B, H), (4 * H, I), (4 * H, H), (4 * H,), (4 * H,), (T, B, H), (B, H), (B, H)]
    x, h_0, c_0, *weights, d_output, d_h_n, d_c_n = (
        rng.uniform(-1, 1, shape).astype(dtype).astype(np.float64) for shape in shapes
    )
    return x, (h_0, c_0), weights, d_output, (d_h_n, d_c_n)


def _results(module, dtype, x, state, weights, d_output, d_state_n):
    """Every number that the functions of a module give for these inputs in this precision, by name."""

    def cast(arrays):
        return [array.astype(dtype) for array in arrays]

    inferred, _ = module.lstm(x.astype(dtype), cast(state), *cast(weights))
    output, (h_n, c_n), tape = module.lstm_forward(x.astype(dtype), cast(state), *cast(weights))
    d_x, (d_h_0, d_c_0), d_params = module.lstm_backward(tape, d_output.astype(dtype), cast(d_state_n))
    results = {"inference": inferred, "output": output, "h_n": h_n, "c_n": c_n}
    results |= {"d_x": d_x, "d_h_0": d_h_0, "d_c_0": d_c_0}
    return results | {f"d_{name}": gradient for name, gradient in d_params.items()}


def self_check() -> bool:
    """Compare every runnable instruction set with the float64 reference, and print a line for each."""
    good = True
    for name in _config.runnable():
        for dtype, tolerance in TOLERANCE.items():
            rng = np.random.default_rng(1)
            worst, where = 0.0, ""
            for shape in SHAPES:
                inputs = _draw(rng, dtype, *shape)
                expected = _results(reference, np.float64, *inputs)
                with _config.using(name):
                    actual = _results(functional, dtype, *inputs)
                for key, value in expected.items():
                    error = np.abs(actual[key] - value).max() / max(1.0, np.abs(value).max())
                    if not error <= worst:
                        worst, where = error, f"{key} at T, B, I, H = {shape}"
            right = worst <= tolerance
            good &= right
            verdict = "ok" if right else f"OFF: {where}"
            print(f"{name:<10} {np.dtype(dtype).name}   largest error {worst:.1e}, allowed {tolerance:.0e}   {verdict}")
    return good


if __name__ == "__main__":
    _config.show_config()
    print()
    sys.exit(0 if self_check() else 1)
