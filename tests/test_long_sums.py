"""Gradients of parameters as sums over many rows: their errors, and their bits, which depend only on the rows.

A block of such a sum has 512 rows, a group 64 blocks: 32,768 rows.
"""

import numpy as np
import pytest

import fastrnn
from fastrnn import _config

LAYERS = {
    "lstm": (fastrnn.LSTM, {"proj_size": 3, "peephole": True}),
    "plain lstm": (fastrnn.LSTM, {}),
    "gru": (fastrnn.GRU, {}),
    "rnn": (fastrnn.RNN, {}),
    "relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "ugrnn": (fastrnn.UGRNN, {}),
    "no bias": (fastrnn.LSTM, {"bias": False}),
    "two layers": (fastrnn.GRU, {"num_layers": 2}),
    "both directions": (fastrnn.RNN, {"bidirectional": True}),
}


@pytest.fixture(params=LAYERS)
def make(request):
    """A function that makes a layer of 3 inputs and 4 hidden units, the same one each time."""
    layer, options = LAYERS[request.param]
    return lambda dtype=np.float32: layer(3, 4, dtype=dtype, rng=7, **options)


def gradients(layer, x, lengths=None, checkpoint_every=None):
    """name -> the gradient of the sum of the outputs."""
    output, _, tape = layer.forward(x, lengths=lengths, checkpoint_every=checkpoint_every)
    return layer.backward(tape, np.ones_like(output))[2]


def assert_same_bytes(actual, expected):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("every", [None, 1999])
def test_errors_do_not_grow_with_the_rows(make, every):
    """300,000 rows of a loss of one sign, for which one running sum has errors of 5e-6 to 3e-4."""
    x = np.random.default_rng(1).standard_normal((3000, 100, 3), np.float32)
    actual = gradients(make(), x, checkpoint_every=every)
    exact = gradients(make(np.float64), x.astype(np.float64))
    for name, expected in exact.items():
        assert np.abs(actual[name] - expected).max() < 1e-6 * np.abs(expected).max(), name


def test_an_exactly_known_sum():
    """Rows of 1 + 2^-12 each: their sums by blocks and groups have 24 bits at most, a running sum has more."""
    layer = fastrnn.RNN(1, 1, nonlinearity="relu", dtype=np.float32, rng=1)
    for name in layer.params:
        layer.params[name][...] = name == "weight_ih_l0"
    x = np.full((1281, 512, 1), 1 + 2**-12, np.float32)
    assert gradients(layer, x)["weight_ih_l0"] == x.size * (1 + 2**-12)


def test_the_order_of_the_sums(dtype):
    """Rows from the last to the first, in blocks of 512, these in groups of 64, these again: each a running sum."""
    T, B = 650, 64
    layer = fastrnn.RNN(1, 1, nonlinearity="relu", dtype=dtype, rng=1)
    for name in layer.params:
        layer.params[name][...] = name == "weight_ih_l0"
    _, _, tape = layer.forward(np.ones((T, B, 1), dtype))
    d_output = np.random.default_rng(5).standard_normal((T, B, 1)).astype(dtype)
    sums, of_each = d_output.reshape(-1)[::-1], 512
    while len(sums) > 1:
        sums = np.array([np.add.accumulate(sums[k : k + of_each])[-1] for k in range(0, len(sums), of_each)])
        of_each = 64
    _, _, d_params = layer.backward(tape, d_output)
    for name in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
        assert d_params[name].tobytes() == sums.tobytes(), name


def test_the_order_of_the_sums_of_peepholes(dtype):
    """With gates that keep a state of ones, the gradient of o's peephole has the terms of that of o's bias."""
    T, B, H = 650, 64, 3
    layer = fastrnn.LSTM(1, H, peephole=True, dtype=dtype, rng=1)
    layer.params.flat[...] = 0
    layer.params["bias_ih_l0"][: 2 * H] = np.repeat([-1000, 1000], H)  # i is 0, f is 1
    _, (_, c_n), tape = layer.forward(np.ones((T, B, 1), dtype), (None, np.ones((1, B, H), dtype)))
    assert (c_n == 1).all()
    d_output = np.random.default_rng(6).standard_normal((T, B, H)).astype(dtype)
    _, _, d_params = layer.backward(tape, d_output)
    assert d_params["weight_peephole_l0"][2].tobytes() == d_params["bias_ih_l0"][3 * H :].tobytes()
    assert d_params["bias_ih_l0"][3 * H :].all()


# Rows of a step and steps: below one block, one block and a row, steps larger than blocks, more than one group.
SHAPES = [(7, 73), (1, 513), (700, 3), (64, 600), (999, 41)]


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("B, T", SHAPES)
def test_bits(make, B, T, ragged, threads):
    """Threads, instruction sets and checkpoints, also those that end within a block."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((T, B, 3), np.float32)
    lengths = rng.integers(0, T + 1, B) if ragged else None
    layer = make()
    threads(1)
    expected = {}
    for name in _config.runnable():
        with _config.using(name):
            expected[name] = gradients(layer, x, lengths)
            for every in sorted({T // 2 + 1, T // 3 + 1, T // 7 + 1, T - 1}):
                assert_same_bytes(gradients(layer, x, lengths, every), expected[name])
            threads(2)
            assert_same_bytes(gradients(layer, x, lengths), expected[name])
            assert_same_bytes(gradients(layer, x, lengths, T // 3 + 1), expected[name])
            threads(1)
    fused = [of_set for name, of_set in expected.items() if name != "generic"]
    for other in fused[1:]:
        assert_same_bytes(other, fused[0])


@pytest.mark.parametrize("every", [100, 2047, 4095])
def test_bits_of_two_levels_of_groups(every, dtype):
    """4096 blocks and some rows."""
    layer = fastrnn.RNN(1, 2, dtype=dtype, rng=1)
    x = np.random.default_rng(3).standard_normal((4100, 513, 1)).astype(dtype)
    assert_same_bytes(gradients(layer, x, checkpoint_every=every), gradients(layer, x))


@pytest.mark.parametrize("B", [61, 64])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_bits_where_a_call_takes_several_chunks(B, ragged, threads):
    """Chunks of at most 2,650 rows, 16 MiB: with B = 61 they split blocks, with 64 not. Each checkpoint is one
    chunk."""
    T = 60 if not ragged else 100
    layer = fastrnn.LSTM(3, 300, dtype=np.float32, rng=1, peephole=True, proj_size=33)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((T, B, 3), np.float32)
    lengths = rng.integers(1, T + 1, B) if ragged else None
    threads(1)
    expected = gradients(layer, x, lengths)
    threads(2)
    for every in (None, 37, 7):
        assert_same_bytes(gradients(layer, x, lengths, every), expected)
