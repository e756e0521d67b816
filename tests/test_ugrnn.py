"""The UGRNN beside cells that others have written, its weights in other layouts, and formats that have no such cell."""

import numpy as np
import pytest

import fastrnn
from fastrnn import functional, reference
from layer_cases import draw

T, B, I, H = 9, 4, 3, 6


def gru_without_a_reset_gate(rows, pad):
    """Rows (2*H, ...) of g and c as those of r, z and n, the rows of r being `pad`."""
    return np.concatenate([np.full_like(rows[:H], pad), rows])


@pytest.mark.parametrize("module", [functional, reference])
def test_a_gru_whose_reset_gate_is_open(module):
    layer = fastrnn.UGRNN(I, H, dtype=np.float64, rng=1)
    W, R, b, c = layer.params.values()
    x, h_0, d_output, d_h_n = draw(2, T, B, I), draw(3, B, H), draw(4, T, B, H), draw(5, B, H)
    open_gate = [gru_without_a_reset_gate(rows, pad) for rows, pad in ((W, 0), (R, 0), (b, 100), (c, 0))]
    for lengths in (None, [9, 0, 4, 6]):
        found, h_n, tape = module.ugrnn_forward(x, h_0, W, R, b, c, lengths=lengths)
        expected, expected_n, of_gru = module.gru_forward(x, h_0, *open_gate, lengths=lengths)
        gradients = module.ugrnn_backward(tape, d_output, d_h_n)
        expected_gradients = module.gru_backward(of_gru, d_output, d_h_n)
        pairs = [(found, expected), (h_n, expected_n), *zip(gradients[:2], expected_gradients[:2])]
        pairs += [(d, expected_gradients[2][name][H:]) for name, d in gradients[2].items()]
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


def test_torch_gru_whose_reset_gate_is_open():
    torch = pytest.importorskip("torch")
    layer = fastrnn.UGRNN(I, H, num_layers=2, bidirectional=True, dtype=np.float64, rng=1)
    gru = torch.nn.GRU(I, H, num_layers=2, bidirectional=True, dtype=torch.float64)
    padded = {n: gru_without_a_reset_gate(p, 100.0 * n.startswith("bias_ih")) for n, p in layer.params.items()}
    gru.load_state_dict({name: torch.from_numpy(p) for name, p in padded.items()})
    x, d_output = draw(2, T, B, I), draw(3, T, B, 2 * H)
    given = torch.tensor(x, requires_grad=True)
    expected, expected_n = gru(given)
    expected.backward(torch.from_numpy(d_output))
    output, h_n, tape = layer.forward(x)
    d_x, _, d_params = layer.backward(tape, d_output)
    pairs = [(output, expected), (h_n, expected_n), (d_x, given.grad)]
    pairs += [(d_params[name], p.grad[H:]) for name, p in gru.named_parameters()]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs.detach(), rtol=0, atol=1e-12)


def test_the_state_is_kept_or_replaced():
    """The sign of g: a gate of 1 keeps h_0, a gate of 0 leaves tanh of the second half of the rows."""
    W, R = draw(1, 2 * H, I), draw(2, 2 * H, H)
    x, h_0 = draw(3, T, B, I), draw(4, B, H)
    for pad, expected in ((100.0, h_0), (-100.0, np.tanh(x[0] @ W[H:].T + h_0 @ R[H:].T))):
        bias = np.repeat([pad, 0.0], H)
        output, _ = functional.ugrnn(x, h_0, W, R, bias)
        np.testing.assert_allclose(output[0], expected, rtol=0, atol=1e-15)


# Weights of others


def test_weights_of_tensorflow_1():
    """tf.contrib.rnn.UGRNNCell: one matrix for [x, h], the gates in the order g, c, and 1 added to the sum of g."""
    kernel, bias, x = draw(1, I + H, 2 * H), draw(2, 2 * H), draw(3, T, B, I)
    layer = fastrnn.from_weights("ugrnn", [kernel, bias], gates="gc", transposed=True, fused="xh")
    layer.params["bias_ih_l0"][:H] += 1
    output, _ = layer(x)
    h = np.zeros((B, H))
    for x_t, h_t in zip(x, output):
        z_g, z_c = np.split(np.concatenate([x_t, h], axis=1) @ kernel + bias, 2, axis=1)
        g = 1 / (1 + np.exp(-(z_g + 1)))
        h = g * h + (1 - g) * np.tanh(z_c)
        np.testing.assert_allclose(h_t, h, rtol=0, atol=1e-14)


@pytest.mark.parametrize("gates", ["cg", "nz", "hu", "CG"])
def test_other_orders_and_letters(gates):
    arrays = [draw(1, 2 * H, I), draw(2, 2 * H, H), draw(3, 2 * H), draw(4, 2 * H)]
    layer = fastrnn.from_weights("ugrnn", arrays, gates=gates)
    for given, array in zip(arrays, layer.params.values(), strict=True):
        assert np.array_equal(np.roll(given, H, axis=0), array)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_its_own_layout(bidirectional):
    layer = fastrnn.UGRNN(I, H, num_layers=2, bidirectional=bidirectional, rng=0)
    arrays = functional.weights_of(layer)
    again = fastrnn.from_weights("ugrnn", arrays, layout="torch", bidirectional=bidirectional)
    assert repr(again) == repr(layer) and again.params == layer.params


# Formats without such a cell


@pytest.mark.parametrize("layout", ["keras", "cudnn", "onnx", "tf1"])
def test_layouts_that_have_no_ugrnn(layout):
    for arrays in ([np.ones((2 * H, I)), np.ones((2 * H, H))], np.ones(2 * H * (I + H + 2))):
        with pytest.raises((TypeError, ValueError), match=f"^layout: '{layout}' has no ugrnn"):
            fastrnn.from_weights("ugrnn", arrays, layout=layout, input_size=I, hidden_size=H)


def test_two_gates_in_a_state_dict():
    """Other cells, too, have two gates, and some have them in the other order: nothing is guessed."""
    for layer in (fastrnn.UGRNN(I, H), fastrnn.UGRNNCell(I, H)):
        with pytest.raises(
            ValueError, match=r"^mapping: weight_hh(_l0)?: expected .* got \(12, 6\); other cells need kind="
        ):
            fastrnn.from_state_dict(layer.state_dict())
        assert fastrnn.from_state_dict(layer.state_dict(), kind="ugrnn").params == layer.params
        again = type(layer)(I, H)
        again.load_state_dict(layer.state_dict())
        assert again.params == layer.params


def test_formats_of_models(tmp_path):
    layer = fastrnn.UGRNN(I, H)
    pytest.importorskip("onnx")
    with pytest.raises(TypeError, match=r"^layer: expected LSTM, GRU or RNN, which ONNX has, got fastrnn\.UGRNN"):
        fastrnn.to_onnx(layer, tmp_path / "layer.onnx")


@pytest.mark.parametrize("arguments", [{"forget_bias": 1.0}, {"update_gate": "new"}, {"input_forget": True}])
def test_conversions_of_other_cells(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"^{name}: "):
        fastrnn.from_weights("ugrnn", [np.ones((2 * H, I)), np.ones((2 * H, H))], gates="gc", **arguments)
