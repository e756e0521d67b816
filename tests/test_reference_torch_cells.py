"""The reference against PyTorch implementations of the equations, with autograd, in float64: every cell and option."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings

import recurrent_cases
from depth import DEPTH
from fastrnn import reference

torch = pytest.importorskip("torch")
import torch_cells

TOLERANCE = 1e-13  # relative to the largest number of an array, or to 1


def assert_close(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype and actual[name].shape == array.shape, name
        tolerance = TOLERANCE * max(1.0, np.abs(array).max(initial=0))
        np.testing.assert_allclose(actual[name], array, rtol=0, atol=tolerance, err_msg=name)


@settings(max_examples=100 * DEPTH)
@given(recurrent_cases.cases(features=True))
def test_every_option(case):
    assert_close(recurrent_cases.run(reference, case), torch_cells.run(case))


ACTIVATIONS = list(itertools.product(recurrent_cases.RECURRENT_ACTIVATIONS, ("tanh", "relu"), (None, 0.7)))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru", "other gru", "ugrnn"])
def test_every_activation(cell, reverse):
    """With biases that take the gates to both ends of their range."""
    options = {"lstm": {"P": 3, "peephole": True}, "gru": {}, "other gru": {"reset_after": False}, "ugrnn": {}}[cell]
    for seed, (gate, activation, clip) in enumerate(ACTIVATIONS):
        case = recurrent_cases.draw(
            np.random.default_rng(seed), cell.split()[-1], 7, 4, 5, 6, **options, lengths=[3, 7, 0, 6],
            resets=np.random.default_rng(seed).random((7, 4)) < 0.2, reverse=reverse,
            recurrent_activation=gate, activation=activation, clip=clip,
        )  # fmt: skip
        for bias in recurrent_cases.BIASES:
            case.weights[bias] *= 3
        assert_close(recurrent_cases.run(reference, case), torch_cells.run(case))


@pytest.mark.parametrize("num_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_slstm(num_heads, reverse):
    for seed, empty in enumerate([(), range(4), (1, 2)]):
        case = recurrent_cases.draw(
            np.random.default_rng(seed), "slstm", 9, 4, 5, 6, num_heads=num_heads, empty=empty, lengths=[3, 9, 0, 6],
            resets=np.random.default_rng(seed).random((9, 4)) < 0.2, reverse=reverse,
        )  # fmt: skip
        assert_close(recurrent_cases.run(reference, case), torch_cells.run(case))


@pytest.mark.parametrize("num_heads", [1, 3])
def test_the_slstm_without_a_stabilizer(num_heads):
    """The stabilizer cancels in h, and with it in every gradient of a loss of h alone."""
    case = recurrent_cases.draw(np.random.default_rng(1), "slstm", 9, 4, 5, 6, num_heads=num_heads, empty=range(4))
    d_h, *others = case.d_state_n
    zeros = [np.zeros_like(d) for d in others]
    case = case._replace(
        d_state_n=(d_h, *zeros), state=(case.state[0], *zeros), options={"lengths": [3, 9, 5, 6], "reverse": False}
    )
    found = recurrent_cases.run(reference, case)
    expected = torch_cells.run(case, torch_cells.SLSTMWithoutStabilizer)
    for results in (found, expected):  # these are scaled, or of an empty state
        for name in ("c_n", "n_n", "m_n", "d_c_0", "d_n_0", "d_m_0"):
            del results[name]
    assert_close(found, expected)
