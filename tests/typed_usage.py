"""The public interface for type checkers: mypy checks this file, and tests/test_types.py runs it.

A `type: ignore` marks a line at which a checker must complain; an unneeded one is an error, too.
"""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fastrnn
from fastrnn import functional, reference
from fastrnn.serialization import Layer

Array = NDArray[Any]
x: NDArray[np.float32] = np.zeros((5, 3, 4), np.float32)

# An LSTM's state is a pair, other states are arrays.
lstm = fastrnn.LSTM(4, 6, num_layers=2, dtype=np.float64, rng=0)
output, (h_n, c_n) = lstm(x)
assert_type(output, Array)
assert_type(lstm(x, (h_n, None), lengths=[5, 3, 0]), tuple[Array, tuple[Array, Array]])
assert_type(lstm(x, [h_n, c_n]), tuple[Array, tuple[Array, Array]])
output, state_n, tape = lstm.forward(x, checkpoint_every=2)
asked: bool = len(h_n) > 1
with_or_without = lstm.forward(x, return_gates=asked)
assert_type(with_or_without[1], tuple[Array, Array])
d_x, (d_h_0, d_c_0), d_params = lstm.backward(tape, output, (None, c_n))
assert_type(d_params, fastrnn.Parameters)
assert_type(d_params["weight_ih_l0"], Array)
lstm.params.flat -= 0.1 * d_params.flat

for layer in (fastrnn.GRU(4, 6, bidirectional=True), fastrnn.RNN(4, 6, nonlinearity="relu", bidirectional=True)):
    assert_type(layer(x, np.zeros((2, 3, 6))), tuple[Array, Array])
    output, h_n, tape = layer.forward(x)
    assert_type(layer.backward(tape, output), tuple[Array, Array, fastrnn.Parameters])
    assert_type(layer.backward(tape, output, input_gradient=False)[0], Array | None)

# That of an sLSTM has four members.
slstm = fastrnn.SLSTM(4, 6, num_heads=2)
output, (h_n, c_n, n_n, m_n) = slstm(x)
assert_type(slstm(x, (h_n, c_n, n_n, None)), tuple[Array, tuple[Array, Array, Array, Array]])
output, four, tape = slstm.forward(x)
assert_type(slstm.backward(tape, output)[1], tuple[Array, Array, Array, Array])
assert_type(slstm.stream().state, tuple[Array, Array, Array, Array])

ugrnn = fastrnn.UGRNN(4, 6, activation="relu")
assert_type(ugrnn(x), tuple[Array, Array])
assert_type(fastrnn.UGRNNCell(4, 6)(x[0]), Array)

stream = fastrnn.LSTM(4, 6).stream()
assert_type(stream.step(x[0, 0]), Array)
assert_type(stream.state, tuple[Array, Array])
stream.state = None, np.zeros((1, 6))
assert_type(fastrnn.GRU(4, 6).stream(batch_size=3).state, Array)

cell = fastrnn.LSTMCell(4, 6)
assert_type(cell(x[0]), tuple[Array, Array])
assert_type(fastrnn.GRUCell(4, 6).forward(x[0])[0], Array)
(h, c), cell_tape = cell.forward(x[0])
assert_type(cell.backward(cell_tape, (h, None)), tuple[Array, tuple[Array, Array], fastrnn.Parameters])

weights = np.zeros((24, 4)), np.zeros((24, 6))
assert_type(functional.lstm(x, None, *weights), tuple[Array, tuple[Array, Array]])
assert_type(reference.gru(x, None, np.zeros((18, 4)), np.zeros((18, 6))), tuple[Array, Array])
functional_tape = functional.lstm_forward(x, None, *weights)[2]
assert_type(functional.lstm_backward(functional_tape, x[..., :1].repeat(6, -1))[2], dict[str, Array])

state_dict: dict[str, Array] = lstm.state_dict()
lstm.load_state_dict(state_dict)
fastrnn.set_num_threads(fastrnn.get_num_threads())


def saved_and_loaded(path: str) -> Layer:
    fastrnn.save(path, lstm)
    loaded = fastrnn.load(path)
    if isinstance(loaded, fastrnn.LSTM):
        assert_type(loaded(x), tuple[Array, tuple[Array, Array]])
    return loaded


def tensors_of(path: str) -> dict[str, Array]:
    return fastrnn.load_tensors(path)


padded, padded_lengths = fastrnn.pad([np.ones((2, 4)), np.ones((3, 4))])
assert_type(padded_lengths, NDArray[np.int64])
assert_type(fastrnn.unpad(lstm(padded, lengths=padded_lengths)[0], padded_lengths), list[Array])


def mistakes() -> None:
    fastrnn.RNN(4, 6, nonlinearity="gelu")  # type: ignore[arg-type]
    fastrnn.LSTM("4", 6)  # type: ignore[arg-type]
    fastrnn.LSTM(4, 6, True, 0.5)  # type: ignore[arg-type]
    fastrnn.LSTM(4, 6)(x, x)  # type: ignore[arg-type]
    slstm(x, (h_n, c_n))  # type: ignore[arg-type]
    fastrnn.set_num_threads("2")  # type: ignore[arg-type]
    functional.gru_backward(functional_tape)  # type: ignore[call-overload]
    fastrnn.LSTM(4, 6)(x)[1].sum()  # type: ignore[attr-defined]
    fastrnn.GRU(4, 6).hidden_size = 7  # type: ignore[misc]
