"""`from_weights` and `from_state_dict`: each layout against the equations of its library, written out here."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastrnn

T, B, I, H = 6, 3, 5, 4


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def drawn(rng, *shape):
    return rng.standard_normal(shape)


def unrolled(step, x, *states):
    """The first state after each step."""
    outputs = []
    for x_t in x:
        states = step(x_t, *states)
        outputs.append(states[0])
    return np.stack(outputs)


def zeros(count, width=H):
    return [np.zeros((B, width)) for _ in range(count)]


def check(layer, expected, x):
    np.testing.assert_allclose(layer(x)[0], expected, rtol=0, atol=1e-12)


# Keras: rows i, f, c, o and z, r, h, of kernels (I, G*H)


def keras_lstm(x_t, h, c, kernel, recurrent_kernel, bias):
    i, f, c_new, o = np.split(x_t @ kernel + h @ recurrent_kernel + bias, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(c_new)
    return sigmoid(o) * np.tanh(c), c


def keras_gru_after(x_t, h, kernel, recurrent_kernel, bias):
    x_z, x_r, x_h = np.split(x_t @ kernel + bias[0], 3, axis=1)
    h_z, h_r, h_h = np.split(h @ recurrent_kernel + bias[1], 3, axis=1)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    return (z * h + (1 - z) * np.tanh(x_h + r * h_h),)


def keras_gru_before(x_t, h, kernel, recurrent_kernel, bias):
    x_z, x_r, x_h = np.split(x_t @ kernel + bias, 3, axis=1)
    R_z, R_r, R_h = np.split(recurrent_kernel, 3, axis=1)
    z, r = sigmoid(x_z + h @ R_z), sigmoid(x_r + h @ R_r)
    return (z * h + (1 - z) * np.tanh(x_h + (r * h) @ R_h),)


KERAS = {
    "lstm": (keras_lstm, 2, (4 * H,)),
    "gru": (keras_gru_after, 1, (2, 3 * H)),
    "gru before": (keras_gru_before, 1, (3 * H,)),
}


@pytest.mark.parametrize("name", KERAS)
@pytest.mark.parametrize("as_mapping", [True, False])
def test_keras(name, as_mapping, rng):
    step, states, bias_shape = KERAS[name]
    G = 4 if name == "lstm" else 3
    arrays = [drawn(rng, I, G * H), drawn(rng, H, G * H), drawn(rng, *bias_shape)]
    x = drawn(rng, T, B, I)
    expected = unrolled(lambda *a: step(*a, *arrays), x, *zeros(states))
    names = ("kernel", "recurrent_kernel", "bias")
    layer = fastrnn.from_weights(
        name.split()[0], dict(zip(names, arrays)) if as_mapping else arrays, layout="keras", batch_first=True
    )
    assert layer.batch_first and layer.dtype == np.float64
    check(layer, expected.transpose(1, 0, 2), x.transpose(1, 0, 2))


def test_keras_bidirectional_from_get_weights(rng):
    """Six arrays in a row: the forward direction's, then the reverse one's."""
    directions = [[drawn(rng, I, 4 * H), drawn(rng, H, 4 * H), drawn(rng, 4 * H)] for _ in range(2)]
    x = drawn(rng, T, B, I)
    forward = unrolled(lambda *a: keras_lstm(*a, *directions[0]), x, *zeros(2))
    reverse = unrolled(lambda *a: keras_lstm(*a, *directions[1]), x[::-1], *zeros(2))[::-1]
    layer = fastrnn.from_weights("lstm", directions[0] + directions[1], layout="keras", bidirectional=True)
    check(layer, np.concatenate([forward, reverse], axis=2), x)
    nested = fastrnn.from_weights("lstm", directions, layout="keras", bidirectional=True)
    assert nested.params == layer.params


def test_keras_layers_on_top_of_each_other(rng):
    below = [drawn(rng, I, H), drawn(rng, H, H), drawn(rng, H)]
    above = [drawn(rng, H, H), drawn(rng, H, H), drawn(rng, H)]

    def step(x_t, h, kernel, recurrent_kernel, bias):
        return (np.maximum(x_t @ kernel + h @ recurrent_kernel + bias, 0),)

    x = 0.1 * drawn(rng, T, B, I)
    middle = unrolled(lambda *a: step(*a, *below), x, *zeros(1))
    expected = unrolled(lambda *a: step(*a, *above), middle, *zeros(1))
    layer = fastrnn.from_weights("rnn", [below, above], layout="keras", nonlinearity="relu")
    assert layer.num_layers == 2
    np.testing.assert_allclose(layer(x)[0], expected, rtol=1e-12, atol=1e-12)
    assert fastrnn.from_weights("rnn", below + above, layout="keras", num_layers=2).params == layer.params


# Keras' CuDNN layers: a kernel holds the memory of (H, I) for each gate in the shape (I, H)


@pytest.mark.parametrize("kind, G", [("lstm", 4), ("gru", 3)])
def test_cudnn_layers_of_keras_are_converted_as_keras_does(kind, G, rng):
    kernel, recurrent_kernel, bias = drawn(rng, I, G * H), drawn(rng, H, G * H), drawn(rng, 2 * G * H)
    # Keras' own rule: of each gate, reshape(transpose(kernel), order="F"), and the transpose of the recurrent kernel.
    plain = np.hstack([k.T.reshape(k.shape, order="F") for k in np.hsplit(kernel, G)])
    recurrent = np.hstack([k.T for k in np.hsplit(recurrent_kernel, G)])
    biases = bias.reshape(2, -1)
    expected = fastrnn.from_weights(kind, [plain, recurrent, biases if G == 3 else biases.sum(axis=0)], layout="keras")
    layer = fastrnn.from_weights(kind, [kernel, recurrent_kernel, bias], layout="cudnn")
    x = drawn(rng, T, B, I)
    check(layer, expected(x)[0], x)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind, G", [("lstm", 4), ("gru", 3), ("rnn", 1)])
def test_buffer_of_cudnn_has_weights_first_then_biases(kind, G, bidirectional, rng):
    expected = getattr(fastrnn, kind.upper())(I, H, 2, bidirectional=bidirectional, rng=0)
    p = expected.params
    ends = ["_l0", "_l0_reverse", "_l1", "_l1_reverse"] if bidirectional else ["_l0", "_l1"]
    parts = [p[f"weight_{part}{end}"] for end in ends for part in ("ih", "hh")]
    parts += [p[f"bias_{part}{end}"] for end in ends for part in ("ih", "hh")]
    flat = np.concatenate([part.ravel() for part in parts])
    sizes = {"input_size": I, "hidden_size": H, "num_layers": 2, "bidirectional": bidirectional}
    layer = fastrnn.from_weights(kind, flat, layout="cudnn", **sizes)
    assert layer.params == p and layer.dtype == np.float32
    with pytest.raises(ValueError, match=r"^arrays: expected the \(\d+,\) numbers of input_size=5"):
        fastrnn.from_weights(kind, flat[:-1], layout="cudnn", **sizes)
    with pytest.raises(ValueError, match="^input_size, hidden_size: needed"):
        fastrnn.from_weights(kind, flat, layout="cudnn")


# ONNX: rows i, o, f, c and z, r, h, of matrices (D, G*H, I); peepholes i, o, f


def onnx_lstm(x_t, h, c, W, R, B, P, input_forget=False):
    p_i, p_o, p_f = P.reshape(3, H)
    W_b, R_b = B.reshape(2, -1)
    i, o, f, c_new = np.split(x_t @ W.T + h @ R.T + W_b + R_b, 4, axis=1)
    i = sigmoid(i + p_i * c)
    f = 1 - i if input_forget else sigmoid(f + p_f * c)
    c = f * c + i * np.tanh(c_new)
    return sigmoid(o + p_o * c) * np.tanh(c), c


def onnx_gru(x_t, h, W, R, B, linear_before_reset):
    W_b, R_b = B.reshape(2, -1)
    x_z, x_r, x_h = np.split(x_t @ W.T + W_b, 3, axis=1)
    R_z, R_r, R_h = np.split(R, 3)
    b_z, b_r, b_h = np.split(R_b, 3)
    z, r = sigmoid(x_z + h @ R_z.T + b_z), sigmoid(x_r + h @ R_r.T + b_r)
    new = r * (h @ R_h.T + b_h) if linear_before_reset else (r * h) @ R_h.T + b_h
    return ((1 - z) * np.tanh(x_h + new) + z * h,)


@pytest.mark.parametrize("input_forget", [False, True])
def test_onnx_lstm(input_forget, rng):
    W, R, P = drawn(rng, 2, 4 * H, I), drawn(rng, 2, 4 * H, H), drawn(rng, 2, 3 * H)
    bias, x = drawn(rng, 2, 8 * H), drawn(rng, T, B, I)
    sides = []
    for d, flip in enumerate((1, -1)):

        def step(*a, d=d):
            return onnx_lstm(*a, W[d], R[d], bias[d], P[d], input_forget)

        sides.append(unrolled(step, x[::flip], *zeros(2))[::flip])
    layer = fastrnn.from_weights("lstm", {"W": W, "R": R, "B": bias, "P": P}, layout="onnx", input_forget=input_forget)
    assert layer.bidirectional and layer.peephole
    check(layer, np.concatenate(sides, axis=2), x)


@pytest.mark.parametrize("linear_before_reset", [0, 1])
def test_onnx_gru(linear_before_reset, rng):
    W, R, bias = drawn(rng, 1, 3 * H, I), drawn(rng, 1, 3 * H, H), drawn(rng, 1, 6 * H)
    x = drawn(rng, T, B, I)
    expected = unrolled(lambda *a: onnx_gru(*a, W[0], R[0], bias[0], linear_before_reset), x, *zeros(1))
    said = {"reset_after": True} if linear_before_reset else {}
    layer = fastrnn.from_weights("gru", {"W": W, "R": R, "B": bias, "P": None}, layout="onnx", **said)
    check(layer, expected, x)


# TensorFlow 1: one kernel for [x, h]; columns i, j, f, o; the forget bias is added when it runs


@pytest.mark.parametrize("forget_bias", [None, 0.0, 2.5])
@pytest.mark.parametrize("projected", [False, True])
def test_tf1_lstm(projected, forget_bias, rng):
    P = 3 if projected else H
    arrays = {"kernel": drawn(rng, I + P, 4 * H), "bias": drawn(rng, 4 * H)}
    arrays |= {f"w_{gate}_diag": drawn(rng, H) for gate in "ifo"}
    if projected:
        arrays["projection_kernel"] = drawn(rng, H, P)
    added = 1.0 if forget_bias is None else forget_bias

    def step(x_t, h, c):
        i, j, f, o = np.split(np.concatenate([x_t, h], axis=1) @ arrays["kernel"] + arrays["bias"], 4, axis=1)
        f, i = f + arrays["w_f_diag"] * c, i + arrays["w_i_diag"] * c
        c = sigmoid(f + added) * c + sigmoid(i) * np.tanh(j)
        h = sigmoid(o + arrays["w_o_diag"] * c) * np.tanh(c)
        return h @ arrays["projection_kernel"] if projected else h, c

    x = drawn(rng, T, B, I)
    expected = unrolled(step, x, np.zeros((B, P)), np.zeros((B, H)))
    layer = fastrnn.from_weights("lstm", arrays, layout="tf1", forget_bias=forget_bias)
    assert (layer.proj_size, layer.peephole) == (P if projected else 0, True)
    check(layer, expected, x)


def test_a_fused_gru_has_its_reset_gate_before_the_product(rng):
    """As in Olah's text: the candidate sees [r * h, x], and z weighs the new state."""
    W, b = drawn(rng, 3 * H, H + I), drawn(rng, 3 * H)

    def step(x_t, h):
        hx = np.concatenate([h, x_t], axis=1)
        r, z = (sigmoid(hx @ W[k * H : k * H + H].T + b[k * H : k * H + H]) for k in range(2))
        new = np.tanh(np.concatenate([r * h, x_t], axis=1) @ W[2 * H :].T + b[2 * H :])
        return ((1 - z) * h + z * new,)

    x = drawn(rng, T, B, I)
    layer = fastrnn.from_weights("gru", [W, b], gates="rzh", fused="hx", update_gate="new")
    assert not layer.reset_after
    check(layer, unrolled(step, x, *zeros(1)), x)


def test_tf1_gru(rng):
    arrays = {
        "gates_kernel": drawn(rng, I + H, 2 * H),
        "gates_bias": drawn(rng, 2 * H),
        "candidate_kernel": drawn(rng, I + H, H),
        "candidate_bias": drawn(rng, H),
    }

    def step(x_t, h):
        both = sigmoid(np.concatenate([x_t, h], axis=1) @ arrays["gates_kernel"] + arrays["gates_bias"])
        r, u = np.split(both, 2, axis=1)
        new = np.concatenate([x_t, r * h], axis=1) @ arrays["candidate_kernel"] + arrays["candidate_bias"]
        return (u * h + (1 - u) * np.tanh(new),)

    x = drawn(rng, T, B, I)
    layer = fastrnn.from_weights("gru", arrays, layout="tf1")
    assert not layer.reset_after
    check(layer, unrolled(step, x, *zeros(1)), x)


# Spelled out


@given(order=st.permutations("ifgo"), transposed=st.booleans(), form=st.sampled_from(["two", "one", "xh", "hx"]))
def test_any_order_of_gates(order, transposed, form):
    rng = np.random.default_rng(1)
    expected = fastrnn.LSTM(I, H, dtype=np.float64, rng=0)
    p = {name.removesuffix("_l0"): array for name, array in expected.params.items()}

    def turned(array):
        rows = np.concatenate([array[H * k : H * k + H] for k in map("ifgo".index, order)])
        return rows.T if transposed and rows.ndim == 2 else rows

    bias = turned(p["bias_ih"] + p["bias_hh"])
    if form == "two":
        arrays = {name: turned(array) for name, array in p.items()}
    elif form == "one":
        arrays = {"weight_ih": turned(p["weight_ih"]), "weight_hh": turned(p["weight_hh"]), "bias": bias}
    else:
        pair = [p["weight_ih"], p["weight_hh"]][:: 1 if form == "xh" else -1]
        arrays = {"weight": turned(np.concatenate(pair, axis=1)), "bias": bias}
    layer = fastrnn.from_weights(
        "lstm",
        arrays,
        gates="".join(order),
        transposed=transposed,
        fused=form if form in ("xh", "hx") else None,
    )
    x = drawn(rng, T, B, I)
    check(layer, expected(x)[0], x)


def test_other_letters_for_gates(rng):
    arrays = [drawn(rng, 4 * H, I), drawn(rng, 4 * H, H), drawn(rng, 4 * H)]
    layers = [fastrnn.from_weights("lstm", arrays, gates=gates) for gates in ("igfo", "ijfo", "icfo", "IZFO")]
    assert all(layer.params == layers[0].params for layer in layers)
    arrays = [drawn(rng, 3 * H, I), drawn(rng, 3 * H, H), drawn(rng, 3 * H)]
    layers = [fastrnn.from_weights("gru", arrays, gates=gates) for gates in ("zrn", "urh", "zrc")]
    assert all(layer.params == layers[0].params for layer in layers)


def test_update_gate_that_weighs_the_new_state(rng):
    arrays = [drawn(rng, 3 * H, I), drawn(rng, 3 * H, H), drawn(rng, 3 * H)]

    def step(x_t, h):
        x_z, x_r, x_n = np.split(x_t @ arrays[0].T + arrays[2], 3, axis=1)
        R_z, R_r, R_n = np.split(arrays[1], 3)
        z, r = sigmoid(x_z + h @ R_z.T), sigmoid(x_r + h @ R_r.T)
        return ((1 - z) * h + z * np.tanh(x_n + (r * h) @ R_n.T),)

    x = drawn(rng, T, B, I)
    layer = fastrnn.from_weights("gru", arrays, gates="zrn", update_gate="new", reset_after=False)
    check(layer, unrolled(step, x, *zeros(1)), x)


@pytest.mark.parametrize("gates", ["igo", "fgo"])
@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("recurrent_activation", ["sigmoid", "hard_sigmoid_fifth"])
def test_coupled_gates(gates, peephole, recurrent_activation, rng):
    W, R, b = drawn(rng, 3 * H, I), drawn(rng, 3 * H, H), drawn(rng, 3 * H)
    P = drawn(rng, 3, H) * peephole
    squash = sigmoid if recurrent_activation == "sigmoid" else lambda a: np.clip(0.2 * a + 0.5, 0, 1)

    def step(x_t, h, c):
        first, g, o = np.split(x_t @ W.T + h @ R.T + b, 3, axis=1)
        first = squash(first + P["if".index(gates[0])] * c)
        i, f = (first, 1 - first) if gates[0] == "i" else (1 - first, first)
        c = f * c + i * np.tanh(g)
        return squash(o + P[2] * c) * np.tanh(c), c

    arrays = {"weight_ih": W, "weight_hh": R, "bias": b} | ({"weight_peephole": P} if peephole else {})
    layer = fastrnn.from_weights(
        "lstm", arrays, gates=gates, input_forget=True, recurrent_activation=recurrent_activation
    )
    x = drawn(rng, T, B, I)
    check(layer, unrolled(step, x, *zeros(2)), x)


def test_forget_bias_without_biases(rng):
    arrays = [drawn(rng, 4 * H, I), drawn(rng, 4 * H, H)]
    layer = fastrnn.from_weights("lstm", arrays, gates="ifgo", forget_bias=1.0)
    assert layer.bias
    assert np.array_equal(layer.params["bias_ih_l0"], np.repeat([0.0, 1, 0, 0], H))


# What is the same for all layouts


@given(
    cls=st.sampled_from([fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN, fastrnn.SLSTM, fastrnn.UGRNN]),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    variant=st.sampled_from([{}, {"proj_size": 2}, {"peephole": True}, {"proj_size": 1, "peephole": True}]),
    num_heads=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from([np.float32, np.float64]),
    prefix=st.sampled_from(["", "rnn.", "module.encoder.rnn."]),
)
def test_every_layer_comes_back_from_its_state_dict(
    cls, num_layers, bidirectional, bias, variant, num_heads, dtype, prefix
):
    options = variant if cls is fastrnn.LSTM else {"num_heads": num_heads} if cls is fastrnn.SLSTM else {}
    layer = cls(3, 4, num_layers, bias=bias, bidirectional=bidirectional, dtype=dtype, rng=0, **options)
    mapping = {prefix + name: array for name, array in layer.state_dict().items()} | {"head.weight": np.ones(3)}
    kind = cls.__name__.lower()
    again = fastrnn.from_state_dict(mapping, kind=kind)
    assert repr(again) == repr(layer) and again.params == layer.params
    if kind != "ugrnn" and options != {"num_heads": 1}:  # the others are known by their shapes
        assert repr(fastrnn.from_state_dict(mapping)) == repr(layer)
    assert fastrnn.from_state_dict(mapping, prefix.removesuffix("."), kind=kind, batch_first=True).batch_first
    weights = layer._split(layer.params)
    names = layer._spec.weight_names
    arrays = [{name: array for name, array in zip(names, one) if array is not None} for one in weights]
    listed = fastrnn.from_weights(cls.__name__, arrays, layout="torch", bidirectional=bidirectional)
    assert repr(listed) == repr(layer) and listed.params == layer.params


@pytest.mark.parametrize("cls", [fastrnn.LSTMCell, fastrnn.GRUCell, fastrnn.RNNCell, fastrnn.UGRNNCell])
def test_cells_come_back_from_their_state_dicts(cls):
    cell = cls(3, 4, rng=0)
    mapping = {f"cell.{name}": array for name, array in cell.state_dict().items()}
    kinds = [cls.__name__.removesuffix("Cell").lower()] + [None] * (cls is not fastrnn.UGRNNCell)
    for kind in kinds:
        again = fastrnn.from_state_dict(mapping, kind=kind)
        assert type(again) is cls and again.params == cell.params


def test_the_kind_decides_where_shapes_do_not():
    mapping = fastrnn.SLSTM(I, H, rng=0).state_dict()
    assert type(fastrnn.from_state_dict(mapping)) is fastrnn.LSTM
    assert type(fastrnn.from_state_dict(mapping, kind="SLSTM")) is fastrnn.SLSTM


@pytest.mark.parametrize(
    "layer, kind, message",
    [
        (fastrnn.LSTM(I, H), "xlstm", "kind: expected 'lstm' or .* got 'xlstm'"),
        (fastrnn.LSTM(I, H), "gru", r"weight_ih_l0: expected \(3\*H, I\), got \(16, 5\)"),
        (fastrnn.GRU(I, H), "lstm", r"weight_hh_l0: expected \(4\*H=12, H=3\), got \(12, 4\)"),
        (fastrnn.LSTM(I, H, peephole=True), "slstm", "mapping: weight_peephole_l0: not a parameter of SLSTM"),
        (fastrnn.LSTMCell(I, H), "slstm", "mapping: weight_hh: of an SLSTMCell, which fastrnn does not have"),
    ],
)
def test_kinds_that_do_not_fit(layer, kind, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        fastrnn.from_state_dict(layer.state_dict(), kind=kind)
    with pytest.raises(TypeError, match="^kind: expected"):
        fastrnn.from_state_dict(layer.state_dict(), kind=type(layer))


def test_parameters_are_copies_and_the_generator_is_the_callers(rng):
    array = drawn(rng, H, H)
    layer = fastrnn.from_weights("rnn", [array, array], layout="torch")
    layer.params["weight_ih_l0"][...] = 0
    assert array.any() and layer.params["weight_hh_l0"].any()
    mapping = fastrnn.LSTM(3, 4, 2, rng=0).state_dict()
    x = np.ones((5, 2, 3))
    one, two = (fastrnn.from_state_dict(mapping, dropout=0.5, rng=1).forward(x)[0] for _ in range(2))
    assert one.tobytes() == two.tobytes()


def test_torch_layers_come_in_with_one_line():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    x = torch.randn(T, B, I)
    for module in (
        torch.nn.LSTM(I, H, 2, bidirectional=True),
        torch.nn.GRU(I, H, bidirectional=True),
        torch.nn.RNN(I, H, 2, bias=False),
    ):
        model = torch.nn.ModuleDict({"rnn": module, "head": torch.nn.Linear(H, 2)})
        layer = fastrnn.from_state_dict(model.state_dict())
        with torch.no_grad():
            np.testing.assert_allclose(layer(x.numpy())[0], module(x)[0].numpy(), rtol=0, atol=1e-6)


TORCH_MODULES = [
    ("LSTM", {"num_layers": 2, "dropout": 0.25, "bidirectional": True, "batch_first": True}),
    ("LSTM", {"proj_size": 2, "bias": False}),
    ("GRU", {"batch_first": True}),
    ("RNN", {"nonlinearity": "relu", "batch_first": True}),
    ("RNN", {"num_layers": 2, "nonlinearity": "tanh"}),
]


@pytest.mark.parametrize("name, options", TORCH_MODULES)
@pytest.mark.parametrize("prefix", [None, "encoder.rnn", "encoder.rnn."])
def test_torch_modules(name, options, prefix):
    """A state_dict does not say batch_first, dropout and nonlinearity: a module does."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = getattr(torch.nn, name)(I, H, dtype=torch.float64, **options)
    encoder = torch.nn.ModuleDict({"rnn": module, "norm": torch.nn.LayerNorm(H)})
    model = torch.nn.ModuleDict({"encoder": encoder, "head": torch.nn.Linear(H, 2)})
    x = torch.randn(B, T, I, dtype=torch.float64)
    module.eval()
    with torch.no_grad():
        expected = module(x)[0].numpy()
    for source in [model] if prefix else [model, encoder, module]:
        layer = fastrnn.from_state_dict(source, prefix, rng=0)
        np.testing.assert_allclose(layer(x.numpy())[0], expected, rtol=0, atol=1e-12)
        assert (type(layer).__name__, layer.dtype) == (name, np.float64)
        assert layer.batch_first == module.batch_first and layer.dropout == module.dropout
    layer = fastrnn.from_state_dict(model, prefix, batch_first=module.batch_first, dtype=np.float32)
    assert layer.dtype == np.float32


@pytest.mark.parametrize(
    "name, options", [("LSTMCell", {}), ("GRUCell", {"bias": False}), ("RNNCell", {"nonlinearity": "relu"})]
)
def test_torch_cells(name, options):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    cell = getattr(torch.nn, name)(I, H, **options)
    x = torch.randn(B, I)
    with torch.no_grad():
        results = cell(x)
    layer = fastrnn.from_state_dict(torch.nn.Sequential(torch.nn.Identity(), cell))
    assert type(layer).__name__ == name
    h, expected = (results[0], layer(x.numpy())[0]) if name == "LSTMCell" else (results, layer(x.numpy()))
    np.testing.assert_allclose(expected, h.numpy(), rtol=0, atol=1e-6)


def test_torch_modules_of_one_layer_with_dropout_do_not_warn_again():
    torch = pytest.importorskip("torch")
    with pytest.warns(UserWarning, match="dropout"):
        module = torch.nn.GRU(I, H, dropout=0.5)
    layer = fastrnn.from_state_dict(module)  # a warning would be an error
    assert layer.dropout == 0.0 and layer.params == fastrnn.from_state_dict(module.state_dict()).params


@pytest.mark.parametrize(
    "option", [{"batch_first": False}, {"dropout": 0.1}, {"nonlinearity": "tanh"}, {"num_layers": 3}, {"bias": False}]
)
def test_an_option_that_contradicts_a_torch_module(option):
    torch = pytest.importorskip("torch")
    module = torch.nn.RNN(I, H, 2, "relu", batch_first=True, dropout=0.25)
    ((name, _),) = option.items()
    with pytest.raises(ValueError, match=f"^{name}: .* does not agree with the "):
        fastrnn.from_state_dict(module, **option)


def test_torch_modules_that_are_refused():
    torch = pytest.importorskip("torch")
    two = torch.nn.ModuleDict({"a": torch.nn.GRU(I, H, batch_first=True), "b": torch.nn.LSTMCell(I, H)})
    with pytest.raises(ValueError, match="^mapping: more than one .* prefixes found: 'a', 'b'$"):
        fastrnn.from_state_dict(two)
    with pytest.raises(ValueError, match="^prefix: 'c' is no recurrent module .* prefixes found: 'a', 'b'$"):
        fastrnn.from_state_dict(two, "c")
    with pytest.raises(ValueError, match="^prefix: '' is no recurrent module"):
        fastrnn.from_state_dict(two, "")
    with pytest.raises(TypeError, match="^prefix: expected a string, got 3"):
        fastrnn.from_state_dict(two, 3)
    with pytest.raises(ValueError, match="^kind: 'lstm' does not agree with the module, which is of kind 'gru'"):
        fastrnn.from_state_dict(two, "a", kind="lstm")
    assert fastrnn.from_state_dict(two, "a", kind="gru").batch_first
    with pytest.raises(ValueError, match="^mapping: no recurrent module of torch.nn within the Linear"):
        fastrnn.from_state_dict(torch.nn.Linear(I, H))
    parameters = torch.nn.ParameterDict(dict(two["b"].named_parameters()))  # a mapping
    assert isinstance(fastrnn.from_state_dict(parameters), fastrnn.LSTMCell)


@pytest.mark.filterwarnings("ignore")  # PyTorch deprecates both
def test_quantized_and_scripted_torch_modules():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.LSTM(I, H))
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.LSTM}, torch.qint8)
    for prefix in (None, "0"):
        with pytest.raises(ValueError, match="^mapping: 0: torch.ao.nn.quantized.dynamic.*LSTM is quantized; give the"):
            fastrnn.from_state_dict(quantized, prefix)
    with pytest.raises(
        ValueError, match=r"^mapping: 0: LSTM is TorchScript; give its state_dict\(\), with batch_first"
    ):
        fastrnn.from_state_dict(torch.jit.script(model))


@pytest.mark.parametrize("prefix", ["", "encoder."])
@pytest.mark.parametrize("weight", ["weight_ih_l0", "weight_hh_l0"])
@pytest.mark.parametrize(
    "function, remedy",
    [
        ("weight_norm", "remove_weight_norm"),
        ("spectral_norm", "remove_spectral_norm"),
        ("parametrizations.weight_norm", "parametrize.remove_parametrizations"),
        ("parametrizations.spectral_norm", "parametrize.remove_parametrizations"),
        ("prune", "prune.remove"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # PyTorch deprecates weight_norm
def test_reparametrized_torch_modules_are_refused_with_the_remedy(function, remedy, weight, prefix):
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(I, H)
    if function == "prune":
        import torch.nn.utils.prune

        torch.nn.utils.prune.random_unstructured(module, weight, 0.5)
    else:
        utils = torch.nn.utils
        for name in function.split("."):
            utils = getattr(utils, name)
        utils(module, weight)
    model = torch.nn.ModuleDict({"encoder": module}) if prefix else module
    for source in (model, model.state_dict()):
        with pytest.raises(
            ValueError, match=rf"^mapping: '{prefix}.*{weight}.*: not among the .*; in PyTorch.*{remedy}"
        ):
            fastrnn.from_state_dict(source)


def test_import_of_fastrnn_does_not_import_them():
    code = "import sys, fastrnn; before = 'fastrnn.weights' in sys.modules; fastrnn.from_weights; print(before)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("False")


# Errors

LSTM_STATE = fastrnn.LSTM(I, H, 2, rng=0).state_dict()


def without(*names):
    return {name: array for name, array in LSTM_STATE.items() if name not in names}


@pytest.mark.parametrize(
    "mapping, prefix, message",
    [
        ({}, None, "mapping: no recurrent layer; no name ends with weight_ih_l0"),
        ({"a.weight_ih": np.ones(1), "b.weight_ih_l0": np.ones(1)}, None, r"mapping: more than one .*'a\.', 'b\.'"),
        (LSTM_STATE, "encoder", "prefix: no recurrent layer begins with 'encoder'; prefixes found: ''"),
        (without("bias_hh_l1"), None, "mapping: bias_hh_l1: missing"),
        (without("weight_hh_l0"), None, "mapping: weight_hh_l0: missing"),
        (without(*[name for name in LSTM_STATE if name.endswith("_l1")][:3]), None, "mapping: weight_ih_l1: missing"),
        (LSTM_STATE | {"weight_hh_l0_raw": np.ones(1)}, None, "mapping: 'weight_hh_l0_raw': not among the parameters"),
        (LSTM_STATE | {"weight_ln_l0": np.ones(1)}, None, "mapping: weight_ln_l0: not a parameter of LSTM"),
        (LSTM_STATE | {"weight_ih_l3": np.ones(1)}, None, "mapping: expected the parameters of layers l0, l1, l2"),
        (LSTM_STATE | {"weight_ih_l1": np.ones((4 * H, I))}, None, r"weight_ih_l1: expected \(16, 4\), got \(16, 5\)"),
        (LSTM_STATE | {"bias_ih_l0": np.ones(H)}, None, r"bias_ih_l0: expected \(4\*H=16,\), got \(4,\)"),
        (LSTM_STATE | {"weight_hh_l0": np.ones((4 * H, H + 1))}, None, r"mapping: weight_hh_l0: expected \(4\*H, H\)"),
    ],
)
def test_state_dicts_that_do_not_fit(mapping, prefix, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        fastrnn.from_state_dict(mapping, prefix)


def test_state_dict_of_wrong_types():
    with pytest.raises(TypeError, match="^mapping: expected a mapping"):
        fastrnn.from_state_dict([1, 2])
    with pytest.raises(TypeError, match="^weight_ih_l0: expected floating-point numbers, got int64; dequantize"):
        fastrnn.from_state_dict(LSTM_STATE | {"weight_ih_l0": np.ones((4 * H, I), np.int64)})
    with pytest.raises(ValueError, match="^num_layers: 3 does not agree with the arrays, in which it is 2"):
        fastrnn.from_state_dict(LSTM_STATE, num_layers=3)


GRU_BEFORE = [np.ones((I, 3 * H)), np.ones((H, 3 * H)), np.ones(3 * H)]
FOUR = [np.ones((4 * H, I)), np.ones((4 * H, H)), np.ones(4 * H), np.ones(4 * H)]


@pytest.mark.parametrize(
    "kind, arrays, options, message",
    [
        ("blstm", FOUR, {"layout": "torch"}, "kind: expected 'lstm' or"),
        ("lstm", FOUR, {"layout": "mxnet"}, "layout: expected 'torch' or"),
        ("lstm", FOUR, {}, "layout: expected one of .* or give gates"),
        ("lstm", FOUR, {"gates": "ifg"}, "gates: expected the letters of 'ifgo'"),
        ("lstm", FOUR, {"gates": "iffo"}, "gates: expected the letters of 'ifgo'"),
        ("lstm", FOUR, {"gates": "ifgo", "layout": "torch"}, "gates: not together with layout"),
        ("lstm", [], {"layout": "torch"}, "arrays: is empty"),
        ("lstm", FOUR[:1], {"layout": "torch"}, r"arrays: expected weight_ih \(4\*H, I\)"),
        ("lstm", {"kernel": FOUR[0]}, {"layout": "keras"}, r"arrays: expected kernel \(I, 4\*H\), recurrent_kernel"),
        ("lstm", [FOUR, FOUR], {"layout": "torch"}, r"arrays\[1\]: weight_ih_l1: expected \(16, 4\), got \(16, 5\)"),
        ("lstm", FOUR, {"layout": "torch", "bidirectional": True}, r"arrays\[0\]\['weight_ih'\]|arrays\[1\]"),
        ("lstm", [FOUR, FOUR[:2]], {"layout": "torch"}, r"arrays\[1\]: some directions have bias_hh, bias_ih"),
        ("lstm", FOUR[:3], {"layout": "torch"}, r"arrays: expected weight_ih .* got \[\(16, 5\)"),
        ("lstm", FOUR[:2] + [np.ones(3)] * 2, {"layout": "torch"}, r"arrays\['bias_ih'\]: expected \(4\*H=16,\)"),
        ("gru", GRU_BEFORE[:2], {"layout": "keras"}, "reset_after: a GRU of Keras without bias"),
        ("gru", GRU_BEFORE, {"layout": "keras", "reset_after": True}, "reset_after: True does not agree"),
        ("gru", FOUR, {"layout": "torch", "forget_bias": 1.0}, "forget_bias: is only for an LSTM"),
        ("gru", FOUR, {"layout": "torch", "input_forget": True}, "input_forget: only an LSTM"),
        ("lstm", FOUR, {"layout": "torch", "update_gate": "new"}, "update_gate: is only for a GRU"),
        ("lstm", FOUR, {"layout": "torch", "hidden_size": 8}, "hidden_size: 8 does not agree"),
        ("slstm", FOUR, {"layout": "keras"}, "layout: 'keras' has no slstm"),
        ("slstm", np.ones(9), {"layout": "cudnn"}, "layout: 'cudnn' has no slstm"),
        ("lstm", {"W": np.ones((3, 16, 5)), "R": np.ones((3, 16, 4))}, {"layout": "onnx"}, "arrays"),
    ],
)
def test_arrays_that_do_not_fit(kind, arrays, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        fastrnn.from_weights(kind, arrays, **options)


@pytest.mark.parametrize("arrays", [None, 3, "kernel", np.ones((4, 4))])
def test_arrays_of_wrong_types(arrays):
    with pytest.raises(TypeError, match="^arrays: expected a mapping or a sequence of arrays"):
        fastrnn.from_weights("lstm", arrays, layout="keras")


@pytest.mark.parametrize("forget_bias", ["1", True, [1.0]])
def test_forget_bias_of_wrong_types(forget_bias):
    with pytest.raises(TypeError, match="^forget_bias: expected a number"):
        fastrnn.from_weights("lstm", FOUR, layout="torch", forget_bias=forget_bias)


def test_numbers_that_are_too_large_or_no_numbers(rng):
    arrays = [drawn(rng, 4 * H, I), drawn(rng, 4 * H, H)]
    for forget_bias in (10**400, np.inf, np.nan):
        with pytest.raises(ValueError, match="^forget_bias: expected a finite number"):
            fastrnn.from_weights("lstm", arrays, layout="torch", forget_bias=forget_bias)
    with pytest.raises(ValueError, match="^clip: expected None or a positive finite number"):
        fastrnn.from_weights("lstm", arrays, layout="torch", clip=10**400)
    with pytest.raises(ValueError, match=r"^hidden_size: array\(\[4, 4\]\) does not agree"):
        fastrnn.from_weights("lstm", arrays, layout="torch", hidden_size=np.array([H, H]))
    with pytest.raises(ValueError, match=r"^arrays: expected the \(\d+,\) numbers .* num_layers=1000000000000000000"):
        fastrnn.from_weights("lstm", np.zeros(9), layout="cudnn", input_size=1, hidden_size=1, num_layers=10**18)


def test_cudnn_has_no_gru_with_the_gate_before_the_product(rng):
    arrays = [drawn(rng, I, 3 * H), drawn(rng, H, 3 * H), drawn(rng, 6 * H)]
    buffer = drawn(rng, 3 * H * (I + H + 2))
    for weights, sizes in ((arrays, {}), (buffer, {"input_size": I, "hidden_size": H})):
        assert fastrnn.from_weights("gru", weights, layout="cudnn", reset_after=True, **sizes).reset_after
        with pytest.raises(ValueError, match="^reset_after: False does not agree with the arrays"):
            fastrnn.from_weights("gru", weights, layout="cudnn", reset_after=False, **sizes)


@pytest.mark.parametrize("error", [KeyError, IndexError, AttributeError, RuntimeError])
def test_objects_and_mappings_that_raise(error):
    class Raising:
        def __array__(self, *args, **kwargs):
            raise error("of its own")

    class Lacking(dict):
        def __getitem__(self, name):
            raise KeyError(name)

    state_dict = fastrnn.GRU(I, H).state_dict()
    with pytest.raises(TypeError, match="^bias_hh_l0: not an array: .*of its own"):
        fastrnn.from_state_dict(state_dict | {"bias_hh_l0": Raising()})
    with pytest.raises(TypeError, match=r"^arrays\[1\]: not an array: .*of its own"):
        fastrnn.from_weights("rnn", [np.ones((H, I)), Raising()], layout="torch")
    for read in (fastrnn.from_state_dict, fastrnn.GRU(I, H).load_state_dict):
        with pytest.raises(ValueError, match="^mapping: 'weight_ih_l0' is among the keys, but has no value"):
            read(Lacking(state_dict))


def test_bfloat16_is_widened():
    class Tensor:
        """As of PyTorch, which NumPy cannot convert."""

        dtype = "torch.bfloat16"

        def __init__(self, array):
            self.array = array

        def float(self):
            return self.array

    state_dict = fastrnn.GRU(I, H, rng=0).state_dict()
    layer = fastrnn.from_state_dict({name: Tensor(array) for name, array in state_dict.items()})
    assert layer.dtype == np.float32
    assert all(np.array_equal(layer.params[name], array) for name, array in state_dict.items())


def test_bfloat16_of_ml_dtypes():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    state_dict = {name: array.astype(bfloat16) for name, array in fastrnn.GRU(I, H, rng=0).state_dict().items()}
    layer = fastrnn.from_state_dict(state_dict)
    assert all(np.array_equal(layer.params[name], array.astype(np.float32)) for name, array in state_dict.items())


def test_the_list_of_the_same_tensors_in_torchscript():
    """load_tensors finds _flat_weights of torch.nn.LSTM in an archive of torch.jit.save."""
    layer = fastrnn.GRU(I, H, rng=0)
    for prefix in ("", "0."):
        names = {prefix + name: array for name, array in layer.state_dict().items()}
        names |= {f"{prefix}_flat_weights.{k}": array for k, array in enumerate(layer.state_dict().values())}
        assert fastrnn.from_state_dict(names).params == layer.params


def test_parametrizations_without_a_prefix():
    """Of torch.nn.utils.parametrizations.weight_norm: without these biases the layer would be another."""
    state_dict = fastrnn.GRU(I, H).state_dict()
    for name in ("bias_ih_l0", "bias_hh_l0"):
        state_dict[f"parametrizations.{name}.original"] = state_dict.pop(name)
    with pytest.raises(ValueError, match="'parametrizations.bias_ih_l0.original', .*not among the parameters"):
        fastrnn.from_state_dict(state_dict)


def test_modules_and_checkpoints_get_a_hint():
    layer = fastrnn.GRU(I, H)
    with pytest.raises(TypeError, match="^mapping: expected a mapping of .*, got GRU; give its state_dict"):
        fastrnn.from_state_dict(layer)
    with pytest.raises(ValueError, match="^mapping: no recurrent layer; mappings are under 'model': give one of them"):
        fastrnn.from_state_dict({"epoch": 3, "model": layer.state_dict()})
    with pytest.raises(ValueError, match="^mapping: 'weight_ih_l9999999999': not among the parameters"):
        fastrnn.from_state_dict(layer.state_dict() | {"weight_ih_l9999999999": np.ones(3)})


def test_unknown_option_is_named():
    with pytest.raises(TypeError, match="unexpected keyword argument 'reset_before'"):
        fastrnn.from_weights("lstm", FOUR, layout="torch", reset_before=True)
