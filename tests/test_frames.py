"""The Python functions that one call passes through, which small networks pay for at every call."""

import sys

import numpy as np
import pytest

import fastrnn
from fastrnn import functional

LAYERS = {
    "LSTM": lambda: fastrnn.LSTM(5, 8),
    "GRU": lambda: fastrnn.GRU(5, 8),
    "RNN": lambda: fastrnn.RNN(5, 8),
    "SLSTM": lambda: fastrnn.SLSTM(5, 8, num_heads=2),
    "UGRNN": lambda: fastrnn.UGRNN(5, 8),
}
layer = pytest.fixture(params=LAYERS)(lambda request: LAYERS[request.param]())
X = np.random.default_rng(0).standard_normal((20, 3, 5)).astype(np.float32)


def frames(function, *args, **kwargs):
    """The frames of Python functions that a second call of `function` enters."""
    function(*args, **kwargs)
    entered = []

    def on_event(frame, event, _):
        if event == "call":
            entered.append(frame.f_code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        function(*args, **kwargs)
    finally:
        sys.setprofile(before)
    assert entered
    return entered


def test_a_call(layer):
    assert len(frames(layer, X)) <= 4


def test_a_call_of_a_frozen_layer(layer):
    layer.freeze()
    assert len(frames(layer, X)) <= 4


def test_forward(layer):
    assert len(frames(layer.forward, X)) <= 18


def test_backward(layer):
    output, _, tape = layer.forward(X)
    assert len(frames(layer.backward, tape, output)) <= 18


def test_backward_of_checkpoints(layer):
    output, _, tape = layer.forward(X, checkpoint_every=4)
    assert len(frames(layer.backward, tape, output)) <= 40


def test_a_function_has_two_frames_more_than_a_layer():
    """Those that give its arguments their names."""
    layer = fastrnn.LSTM(5, 8)
    weights = [layer.params[f"{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    of_function = frames(functional.lstm, X, None, *weights)
    assert len(of_function) <= len(frames(layer, X)) + 2, of_function
