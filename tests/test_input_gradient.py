"""backward without d_x: None in its place, and the same bits in all others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn import _core, functional, reference
from fastrnn._engine import spec
from fastrnn._engine.pool import POOL
from layer_cases import draw, layers, members, state_like
from test_stateless import CASES, case_of, flat

KINDS = "lstm", "gru", "rnn", "slstm", "ugrnn"


@given(layer=layers(), data=st.data())
def test_layers(layer, data):
    T, B = data.draw(st.sampled_from([0, 1, 2, 9])), data.draw(st.sampled_from([0, 1, 3]))
    shape = (B, T) if layer.batch_first else (T, B)
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    x, state, d_state_n = draw(0, *shape, layer.input_size), state_like(layer, B, 1), state_like(layer, B, 2)
    *_, tape = layer.forward(x, state, lengths, checkpoint_every=data.draw(st.sampled_from([None, 1, 4])))
    d_x, *others = layer.backward(tape, None, d_state_n)
    without, *found = layer.backward(tape, None, d_state_n, input_gradient=False)
    assert d_x.shape == x.shape and without is None
    assert flat(*map(members, found[:1])) == flat(*map(members, others[:1]))
    assert found[1].flat.tobytes() == others[1].flat.tobytes()


@pytest.mark.parametrize("lengths", [None, [3, 0, 7, 2]], ids=["padded", "ragged"])
@pytest.mark.parametrize("name", CASES)
def test_the_stateless_form(name, lengths, dtype, isa):
    (kind, *arguments), options, d_output, d_state_n = case_of(name, dtype, lengths)
    reserve = functional.forward(kind, *arguments, **options)[2]
    _, *others = functional.backward(kind, reserve, *arguments, d_output, d_state_n, **options)
    without, *found = functional.backward(
        kind, reserve, *arguments, d_output, d_state_n, **options, input_gradient=False
    )
    assert without is None and flat(*found) == flat(*others)


@pytest.mark.parametrize("module", [functional, reference])
@pytest.mark.parametrize("kind", KINDS)
def test_functions(module, kind):
    (weights,), x = functional.weights_of(getattr(fastrnn, kind.upper())(3, 4, rng=0)), draw(0, 5, 2, 3)
    output, _, tape = getattr(module, f"{kind}_forward")(x, None, **weights)
    backward = getattr(module, f"{kind}_backward")
    _, *others = backward(tape, output)
    without, *found = backward(tape, output, input_gradient=False)
    assert without is None and flat(*found) == flat(*others)
    with pytest.raises(TypeError, match="^input_gradient: "):
        backward(tape, output, input_gradient="no")


@pytest.mark.parametrize("cell", [fastrnn.LSTMCell, fastrnn.GRUCell, fastrnn.RNNCell, fastrnn.UGRNNCell])
def test_cells(cell):
    cell = cell(3, 4, rng=0)
    for x in (draw(0, 2, 3), draw(0, 3)):
        state, tape = cell.forward(x)
        _, d_state, d_params = cell.backward(tape, state)
        without, found, d_found = cell.backward(tape, state, input_gradient=False)
        assert without is None and flat(members(found)) == flat(members(d_state))
        assert d_found.flat.tobytes() == d_params.flat.tobytes()


def test_a_fully_connected_layer():
    head = fastrnn.Linear(3, 4, rng=0)
    y, tape = head.forward(draw(0, 5, 3))
    without, found = head.backward(tape, y, input_gradient=False)
    assert without is None and found.flat.tobytes() == head.backward(tape, y)[1].flat.tobytes()
    with pytest.raises(TypeError, match="^input_gradient: "):
        head.backward(tape, y, input_gradient=None)


def test_a_layer_refuses_other_values():
    layer = fastrnn.GRU(3, 4)
    output, _, tape = layer.forward(np.ones((5, 2, 3)))
    with pytest.raises(TypeError, match="^input_gradient: "):
        layer.backward(tape, output, input_gradient=0)


def test_weights_packed_without_weight_ih_are_smaller_and_give_no_d_x():
    kernel, weights = spec.GRU.kernel_of(dict(spec.GRU.defaults)), [(np.ones((60, 50)), np.ones((60, 20)))] * 2
    first, second = _core.pack(kernel, weights, True, 1, fastrnn._config.instruction_set(), POOL, 1)
    assert first.nbytes < second.nbytes
    x, state, output = np.ones((1, 1, 50)), [np.ones((1, 20))], np.ones((1, 1, 20))
    saved, gradients = POOL.bytes(_core.saved_bytes(first, 1)), (np.ones((60, 50)), np.ones((60, 20)))
    call = _core.BackwardCall(first, 0, x, None, state, saved, output, [None], x.copy(), [np.ones((1, 20))], gradients)
    with pytest.raises(ValueError, match="^d_x: these weights were packed without weight_ih"):
        _core.backward([call], False, 1)
