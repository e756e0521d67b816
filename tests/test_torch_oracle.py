"""fastrnn against torch.nn: outputs, states and every gradient."""

import numpy as np
import pytest

import fastrnn
from fastrnn import functional, reference

torch = pytest.importorskip("torch")

# Relative to the largest number of an array.
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}


def draw(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def assert_close(actual, expected, name):
    expected = expected.detach().numpy()
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, name
    tolerance = TOLERANCE[actual.dtype.type] * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=name)


def torch_layer(I, H, dtype, **options):
    torch.manual_seed(1)
    return torch.nn.LSTM(I, H, dtype={np.float32: torch.float32, np.float64: torch.float64}[dtype], **options)


def torch_results(oracle, x, state, d_output, d_state_n):
    """Outputs and gradients by name; torch's own arguments, as NumPy arrays."""
    x = torch.tensor(x, requires_grad=True)
    h_0, c_0 = (torch.tensor(s, requires_grad=True) for s in state)
    output, (h_n, c_n) = oracle(x, (h_0, c_0))
    oracle.zero_grad()
    torch.autograd.backward((output, h_n, c_n), [torch.tensor(d) for d in (d_output, *d_state_n)])
    results = {"output": output, "h_n": h_n, "c_n": c_n, "d_x": x.grad, "d_h_0": h_0.grad, "d_c_0": c_0.grad}
    return results | {name: parameter.grad for name, parameter in oracle.named_parameters()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("T", "B", "I", "H"), [(1, 1, 1, 1), (7, 3, 5, 4), (5, 17, 20, 33)])
def test_layer(dtype, num_layers, batch_first, bias, T, B, I, H):
    options = {"num_layers": num_layers, "batch_first": batch_first, "bias": bias}
    oracle = torch_layer(I, H, dtype, **options)
    layer = fastrnn.LSTM(I, H, **options, dtype=dtype)
    layer.load_state_dict(oracle.state_dict())

    axes = (B, T) if batch_first else (T, B)
    x, d_output = draw(1, *axes, I, dtype=dtype), draw(2, *axes, H, dtype=dtype)
    state, d_state_n = (draw(seed, 2, num_layers, B, H, dtype=dtype) for seed in (3, 4))
    expected = torch_results(oracle, x, state, d_output, d_state_n)

    output, (h_n, c_n), tape = layer.forward(x, tuple(state))
    d_x, (d_h_0, d_c_0), d_params = layer.backward(tape, d_output, tuple(d_state_n))
    actual = {"output": output, "h_n": h_n, "c_n": c_n, "d_x": d_x, "d_h_0": d_h_0, "d_c_0": d_c_0, **d_params}
    assert list(actual) == list(expected)
    for name, array in actual.items():
        assert_close(array, expected[name], name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unbatched_and_without_a_state(dtype):
    T, I, H = 6, 3, 5
    oracle = torch_layer(I, H, dtype, num_layers=2)
    layer = fastrnn.LSTM(I, H, num_layers=2, dtype=dtype)
    layer.load_state_dict(oracle.state_dict())
    x, d_output = draw(1, T, I, dtype=dtype), draw(2, T, H, dtype=dtype)
    d_state_n = draw(4, 2, 2, H, dtype=dtype)

    x_torch = torch.tensor(x, requires_grad=True)
    expected, (h_n_expected, c_n_expected) = oracle(x_torch)
    torch.autograd.backward((expected, h_n_expected, c_n_expected), [torch.tensor(d) for d in (d_output, *d_state_n)])
    output, (h_n, c_n), tape = layer.forward(x)
    d_x, _, d_params = layer.backward(tape, d_output, tuple(d_state_n))
    assert_close(output, expected, "output")
    assert_close(h_n, h_n_expected, "h_n")
    assert_close(c_n, c_n_expected, "c_n")
    assert_close(d_x, x_torch.grad, "d_x")
    for name, parameter in oracle.named_parameters():
        assert_close(d_params[name], parameter.grad, name)


@pytest.mark.parametrize("module", [functional, reference])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_functions(module, dtype, bias):
    T, B, I, H = 6, 4, 3, 7
    oracle = torch_layer(I, H, dtype, bias=bias)
    weights = {name.removesuffix("_l0"): array.numpy() for name, array in oracle.state_dict().items()}
    x, d_output = draw(1, T, B, I, dtype=dtype), draw(2, T, B, H, dtype=dtype)
    state, d_state_n = (draw(seed, 2, B, H, dtype=dtype) for seed in (3, 4))
    expected = torch_results(oracle, x, state[:, None], d_output, d_state_n[:, None])

    output, (h_n, c_n), tape = module.lstm_forward(x, tuple(state), **weights)
    d_x, (d_h_0, d_c_0), d_params = module.lstm_backward(tape, d_output, tuple(d_state_n))
    assert_close(output, expected["output"], "output")
    assert_close(d_x, expected["d_x"], "d_x")
    for name, array in {"h_n": h_n, "c_n": c_n, "d_h_0": d_h_0, "d_c_0": d_c_0}.items():
        assert_close(array, expected[name][0], name)
    assert list(d_params) == list(weights)
    for name, array in d_params.items():
        assert_close(array, expected[f"{name}_l0"], name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_state_dict_both_ways(dtype):
    oracle = torch_layer(4, 6, dtype, num_layers=2)
    layer = fastrnn.LSTM(4, 6, num_layers=2, dtype=dtype, rng=1)
    drawn = layer.params.copy()

    oracle.load_state_dict({name: torch.from_numpy(array) for name, array in layer.state_dict().items()})
    for name, tensor in oracle.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), layer.params[name])

    layer.params.flat[...] = 0
    layer.load_state_dict(oracle.state_dict())
    assert layer.params == drawn
    # The parameters themselves require grad; they are taken as well.
    layer.params.flat[...] = 0
    layer.load_state_dict(dict(oracle.named_parameters()))
    assert layer.params == drawn


@pytest.mark.parametrize("module", [functional, reference])
def test_tensors_as_arguments(module):
    T, B, I, H = 3, 2, 4, 5
    arrays = [draw(k, *s, dtype=np.float32) for k, s in enumerate([(T, B, I), (B, H), (B, H), (4 * H, I), (4 * H, H)])]
    x, h_0, c_0, *weights = (torch.tensor(a) for a in arrays)
    output, state_n, tape = module.lstm_forward(x, (h_0, c_0), *weights)
    expected, expected_state_n, _ = module.lstm_forward(arrays[0], tuple(arrays[1:3]), *arrays[3:])
    for a, b in zip((output, *state_n), (expected, *expected_state_n), strict=True):
        assert type(a) is np.ndarray and a.tobytes() == b.tobytes()
    d_x, _, _ = module.lstm_backward(tape, torch.ones(T, B, H))
    assert d_x.shape == (T, B, I)

    with pytest.raises(TypeError, match="^x: not an array"):
        module.lstm(x.to(torch.bfloat16), None, *weights)
    if module is functional:  # it has read x in place
        x += 1
        with pytest.raises(ValueError, match="^x: changed between forward and backward"):
            module.lstm_backward(tape, torch.ones(T, B, H))


# Every kind of layer, padded and ragged


def torch_kind(name, I, H, **options):
    torch.manual_seed(1)
    return getattr(torch.nn, name)(I, H, dtype=torch.float64, **options)


KINDS = [
    ("LSTM", {}),
    ("LSTM", {"proj_size": 3}),
    ("GRU", {}),
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
]


@pytest.mark.parametrize("lengths", [None, [4, 7, 1, 3, 7]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
def test_every_kind_of_layer(name, options, num_layers, bidirectional, batch_first, bias, lengths):
    T, B, I, H = 7, 5, 4, 17
    options = options | {
        "num_layers": num_layers, "bidirectional": bidirectional, "batch_first": batch_first, "bias": bias,
    }  # fmt: skip
    oracle = torch_kind(name, I, H, **options)
    layer = getattr(fastrnn, name)(I, H, **options, dtype=np.float64)
    layer.load_state_dict(oracle.state_dict())
    assert list(layer.params) == list(oracle.state_dict())

    D, P = 1 + bidirectional, options.get("proj_size") or H
    axes = (B, T) if batch_first else (T, B)
    x = torch.tensor(draw(1, *axes, I), requires_grad=True)
    d_output = draw(2, *axes, D * P)
    sizes = [P, H] if name == "LSTM" else [P]
    state, d_state_n = ([draw(s + k, D * num_layers, B, n) for k, n in enumerate(sizes)] for s in (3, 5))
    state_torch = [torch.tensor(s, requires_grad=True) for s in state]

    def as_state(members):
        return tuple(members) if name == "LSTM" else members[0]

    def members(state):
        return state if name == "LSTM" else (state,)

    if lengths is None:
        expected, expected_n = oracle(x, as_state(state_torch))
    else:
        rnn = torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first, enforce_sorted=False)
        packed, expected_n = oracle(packed, as_state(state_torch))
        expected, _ = rnn.pad_packed_sequence(packed, batch_first, total_length=T)
    torch.autograd.backward((expected, *members(expected_n)), [torch.tensor(d) for d in (d_output, *d_state_n)])

    output, state_n, tape = layer.forward(x.detach(), as_state(state), lengths)
    d_x, d_state, d_params = layer.backward(tape, d_output, as_state(d_state_n))
    assert_close(output, expected, "output")
    assert_close(d_x, x.grad, "d_x")
    for k, (found, wanted) in enumerate(zip(members(state_n), members(expected_n), strict=True)):
        assert_close(found, wanted, f"state_n {k}")
    for k, (found, wanted) in enumerate(zip(members(d_state), state_torch, strict=True)):
        assert_close(found, wanted.grad, f"d_state {k}")
    for parameter_name, parameter in oracle.named_parameters():
        assert_close(d_params[parameter_name], parameter.grad, parameter_name)
    # And the way back.
    oracle.load_state_dict({key: torch.from_numpy(array) for key, array in layer.state_dict().items()})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("name", "options"), [("LSTM", {}), ("GRU", {}), ("RNN", {}), ("RNN", {"nonlinearity": "relu"})]
)
def test_every_kind_of_cell(name, options, bias):
    B, I, H = 5, 4, 17
    oracle = torch_kind(f"{name}Cell", I, H, bias=bias, **options)
    cell = getattr(fastrnn, f"{name}Cell")(I, H, bias, **options, dtype=np.float64)
    cell.load_state_dict(oracle.state_dict())
    assert list(cell.params) == list(oracle.state_dict())

    x = torch.tensor(draw(1, B, I), requires_grad=True)
    state, d_state_n = ([draw(s + k, B, H) for k in range(2 if name == "LSTM" else 1)] for s in (3, 5))
    state_torch = [torch.tensor(s, requires_grad=True) for s in state]
    expected = oracle(x, tuple(state_torch) if name == "LSTM" else state_torch[0])
    expected = expected if name == "LSTM" else (expected,)
    torch.autograd.backward(expected, [torch.tensor(d) for d in d_state_n])

    after, tape = cell.forward(x.detach(), tuple(state) if name == "LSTM" else state[0])
    d_x, d_state, d_params = cell.backward(tape, tuple(d_state_n) if name == "LSTM" else d_state_n[0])
    after, d_state = (s if name == "LSTM" else (s,) for s in (after, d_state))
    assert_close(d_x, x.grad, "d_x")
    for k in range(len(state)):
        assert_close(after[k], expected[k], f"state {k}")
        assert_close(d_state[k], state_torch[k].grad, f"d_state {k}")
    for parameter_name, parameter in oracle.named_parameters():
        assert_close(d_params[parameter_name], parameter.grad, parameter_name)
