"""examples/gradients.py: gradients vanish and explode, gates keep them, and clipping saves a training."""

import numpy as np

import fastrnn
import gradients


def test_the_norms_are_those_of_a_layer_cut_in_two():
    rng = np.random.default_rng(0)
    T, B, I, H, cut = 7, 3, 2, 4, 3
    for name, Layer in (("RNN", fastrnn.RNN), ("GRU", fastrnn.GRU), ("LSTM", fastrnn.LSTM)):
        cell = gradients.CELLS[name](I, H, dtype=np.float64, rng=rng)
        layer = Layer(I, H, dtype=np.float64)
        layer.load_state_dict({f"{key}_l0": array for key, array in cell.params.items()})
        x, d_h = rng.normal(size=(T, B, I)), rng.normal(size=(B, H))
        norms = gradients.norms_back(cell, x, d_h)

        _, state = layer(x[:cut])
        _, _, tape = layer.forward(x[cut:], state)
        _, d_state, _ = layer.backward(tape, None, (d_h[None], None) if name == "LSTM" else d_h[None])
        for found, d in zip(norms, d_state if name == "LSTM" else (d_state,), strict=True):
            np.testing.assert_array_equal(found[T - cut], np.linalg.norm(d[0], axis=1))


def test_a_recurrent_matrix_has_its_radius():
    matrix = gradients.recurrent_matrix(20, 1.5, np.random.default_rng(0))
    assert np.isclose(abs(np.linalg.eigvals(matrix)).max(), 1.5)


def test_gradients_vanish_and_explode_and_clipping_helps(quick):
    numbers, folder = quick("gradients")
    rnn = numbers["factors"]["RNN, dL/dh"]
    assert abs(rnn["0.5"] - 0.5) < 0.02 and rnn["1.0"] < 1 < rnn["1.5"] < rnn["2.0"] < 2
    for label in ("GRU, dL/dh, open", "LSTM, dL/dc, open"):
        assert all(0.98 < factor < 1.0 for factor in numbers["factors"][label].values()), label
    for label in ("GRU, dL/dh", "LSTM, dL/dc"):
        assert numbers["factors"][label]["0.5"] < 0.7, label

    clipping = numbers["clipping"]
    assert max(clipping["clipped to norm 1"]["losses"]) < 0.8 * min(clipping["not clipped"]["losses"])
    assert clipping["clipped to norm 1"]["largest_norm"] > 5  # there was something to clip
    for name in ("gradients_flow", "gradients_clipping"):
        picture = (folder / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and 20_000 < len(picture) < 150_000
