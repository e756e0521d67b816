"""`resets`: states that become zeros before some steps, as if another sequence began there."""

import numpy as np
import pytest

import fastrnn
from layer_cases import CLASSES, draw, members, results, state_like

T, B, I, H = 13, 5, 6, 19

LAYERS = {
    "LSTM": lambda **options: fastrnn.LSTM(I, H, rng=1, **options),
    "LSTM, projection, peephole": lambda **options: fastrnn.LSTM(I, H, proj_size=7, peephole=True, rng=1, **options),
    "GRU": lambda **options: fastrnn.GRU(I, H, rng=1, **options),
    "GRU, reset before": lambda **options: fastrnn.GRU(I, H, reset_after=False, rng=1, **options),
    "RNN": lambda **options: fastrnn.RNN(I, H, rng=1, **options),
    "SLSTM": lambda **options: fastrnn.SLSTM(I, H, num_heads=1, rng=1, **options),
    "SLSTM, heads": lambda **options: fastrnn.SLSTM(I, 20, num_heads=2, rng=1, **options),
    "UGRNN": lambda **options: fastrnn.UGRNN(I, H, rng=1, **options),
}
OPTIONS = [{}, {"num_layers": 3}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}, {"reverse": True}]


def drawn_resets(seed=3, share=0.3):
    resets = np.random.default_rng(seed).random((T, B)) < share
    resets[:, 0], resets[0, 1], resets[-1, 2] = False, True, True
    return resets


def pieces(resets, length):
    """The ranges of steps of one sequence between its resets."""
    cuts = [0, *(t for t in range(1, length) if resets[t]), length]
    return [slice(start, stop) for start, stop in zip(cuts, cuts[1:])]


def directions_of(layer):
    """Of each row of a state, whether its direction reads from the end."""
    return [layer.reverse, True][: 1 + layer.bidirectional] * layer.num_layers


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_the_pieces_by_themselves(make, options, ragged):
    """Every number but the gradients of the parameters has the bits of the pieces."""
    layer, resets = make(**options), drawn_resets()
    lengths = [T, 0, 9, 1, 12] if ragged else [T] * B
    x, state = draw(4, T, B, I, dtype=np.float32), members(state_like(layer, B, 5))
    d_state_n = members(state_like(layer, B, 6))

    def as_state(arrays):
        return tuple(arrays) if len(arrays) > 1 else arrays[0]

    output, state_n, tape = layer.forward(x, as_state(state), lengths if ragged else None, resets)
    d_output = draw(7, *output.shape, dtype=np.float32)
    d_x, d_state, d_params = layer.backward(tape, d_output, as_state(d_state_n))
    inferred = layer(x, as_state(state), lengths if ragged else None, resets)
    assert inferred[0].tobytes() == output.tobytes()
    summed = {name: np.zeros(array.shape) for name, array in d_params.items()}
    reverse = directions_of(layer)
    for b, length in enumerate(lengths):
        if not length:
            continue
        cut = pieces(resets[:, b], length)
        for k, steps in enumerate(cut):
            # A state enters where a direction begins to read, its gradient where it ends.
            first, last = k == 0 and not resets[0, b], k == len(cut) - 1
            before = [s[:, b].copy() for s in state]
            d_after = [d[:, b].copy() for d in d_state_n]
            for row, from_the_end in enumerate(reverse):
                for s, d in zip(before, d_after):
                    s[row] *= last if from_the_end else first
                    d[row] *= k == 0 if from_the_end else last
            y, s_n, one = layer.forward(x[steps, b], as_state(before))
            d_y, d_s, d_p = layer.backward(one, d_output[steps, b], as_state(d_after))
            assert y.tobytes() == output[steps, b].tobytes()
            assert d_y.tobytes() == d_x[steps, b].tobytes()
            for row, from_the_end in enumerate(reverse):
                for whole, part in zip(members(state_n), members(s_n)):
                    if (k == 0) if from_the_end else last:
                        assert part[row].tobytes() == whole[row, b].tobytes()
                for whole, part in zip(members(d_state), members(d_s)):
                    if last if from_the_end else first:
                        assert part[row].tobytes() == whole[row, b].tobytes()
                    elif k == 0 and not from_the_end:
                        assert not whole[row, b].any()
            for name, array in d_p.items():
                summed[name] += array
    for name, array in d_params.items():
        np.testing.assert_allclose(array, summed[name], rtol=1e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_checkpoints_batch_first_threads_and_freezing(make, options, threads, isa):
    layer, resets = make(**options), drawn_resets()
    x, state = draw(4, T, B, I, dtype=np.float32), state_like(layer, B, 5)
    lengths = [T, 3, 9, 1, 12]
    output, _ = layer(x)
    d_output, d_state_n = draw(7, *output.shape, dtype=np.float32), state_like(layer, B, 6)
    threads(1)
    expected = results(layer, x, state, lengths, d_output, d_state_n, resets=resets)
    other = make(**options, batch_first=True)
    other.freeze()
    for n in (1, 2):
        threads(n)
        for every in (None, 1, 4, T):
            found = results(layer, x, state, lengths, d_output, d_state_n, resets=resets, checkpoint_every=every)
            assert {k: v.tobytes() for k, v in found.items()} == {k: v.tobytes() for k, v in expected.items()}
        turned = x.swapaxes(0, 1), state, lengths, d_output.swapaxes(0, 1), d_state_n
        found = results(other, *turned, resets=resets.T)
        for name in ("output", "d_x"):
            found[name] = found[name].swapaxes(0, 1)
        assert {k: v.tobytes() for k, v in found.items()} == {k: v.tobytes() for k, v in expected.items()}


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("cls", [fastrnn.LSTM, fastrnn.GRU])
def test_a_call_of_several_chunks(cls, num_threads, threads):
    """More steps than backward takes at a time, against segments of fewer."""
    threads(num_threads)
    layer, steps, sequences = cls(I, 64, rng=1), 1700, 8
    resets = np.random.default_rng(3).random((steps, sequences)) < 0.5
    x, state = draw(4, steps, sequences, I, dtype=np.float32), state_like(layer, sequences, 5)
    gradients = draw(7, steps, sequences, 64, dtype=np.float32), state_like(layer, sequences, 6)
    expected = results(layer, x, state, None, *gradients, resets=resets, checkpoint_every=500)
    found = results(layer, x, state, None, *gradients, resets=resets)
    assert {k: v.tobytes() for k, v in found.items()} == {k: v.tobytes() for k, v in expected.items()}


@pytest.mark.parametrize("num_layers", [1, 3, 18])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_streams(make, num_layers):
    layer, resets = make(num_layers=num_layers), drawn_resets()
    x = draw(4, T, B, I, dtype=np.float32)
    output, state_n = layer(x, resets=resets)
    stream, alone = layer.stream(B), layer.stream()
    for t in range(T):
        out = np.empty_like(output[0]) if t % 2 else None
        assert stream.step(x[t], out, resets=resets[t] if resets[t].any() else None).tobytes() == output[t].tobytes()
        assert alone.step(x[t, 2], resets=bool(resets[t, 2])).tobytes() == output[t, 2].tobytes()
    assert [s.tobytes() for s in members(stream.state)] == [s.tobytes() for s in members(state_n)]


def test_one_sequence_without_a_batch_axis():
    layer, resets = fastrnn.GRU(I, H, rng=1), drawn_resets()
    x = draw(4, T, B, I, dtype=np.float32)
    output, _ = layer(x, resets=resets)
    assert layer(x[:, 3], resets=resets[:, 3])[0].tobytes() == output[:, 3].tobytes()


def test_flags_that_say_nothing():
    """None, no flag at all, and flags beyond the lengths."""
    layer, lengths = fastrnn.LSTM(I, H, 2, rng=1), [T, 0, 9, 1, 12]
    x, state = draw(4, T, B, I, dtype=np.float32), state_like(layer, B, 5)
    expected = layer(x, state, lengths)[0].tobytes()
    beyond = np.arange(T)[:, None] >= np.array(lengths)
    assert layer(x, state, lengths, np.zeros((T, B), bool))[0].tobytes() == expected
    assert layer(x, state, lengths, beyond)[0].tobytes() == expected


def test_a_nan_does_not_pass():
    layer, resets = fastrnn.LSTM(I, H, rng=1), np.zeros((T, B), bool)
    resets[5] = True
    x = draw(4, T, B, I, dtype=np.float32)
    clean = layer(x, resets=resets)[0]
    x[3] = np.nan
    output, _, tape = layer.forward(x, resets=resets)
    assert np.isnan(output[3:5]).all() and output[5:].tobytes() == clean[5:].tobytes()
    d_x, _, _ = layer.backward(tape, np.ones_like(output))
    assert not np.isnan(d_x[5:]).any()


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("steps", "sequences"), [(T, B), (T, 1), (1, B)])
def test_the_flags_are_copied(steps, sequences, batch_first):
    layer, resets = fastrnn.RNN(I, H, batch_first=batch_first, rng=1), drawn_resets()[:steps, :sequences]
    x = draw(4, steps, sequences, I, dtype=np.float32)
    if batch_first:
        x, resets = x.transpose(1, 0, 2), resets.T
    resets = resets.copy()
    output, _, tape = layer.forward(x, resets=resets)
    expected = layer.backward(tape, output)[0].tobytes()
    resets[...] = ~resets
    assert layer.backward(tape, output)[0].tobytes() == expected


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("resets", "error", "message"),
    [
        (np.zeros((T, B), int), TypeError, "resets: expected booleans, got int64"),
        (np.zeros((B, T), bool), ValueError, f"resets: expected (T={T}, B={B}), got ({B}, {T})"),
        (np.zeros(T, bool), ValueError, f"resets: expected (T={T}, B={B}), got ({T},)"),
        ([[True], [False, True]], ValueError, "resets: not an array"),
    ],
)
def test_refused(cls, resets, error, message):
    layer, x = cls(I, H, rng=1), np.zeros((T, B, I), np.float32)
    for call in (layer, layer.forward):
        with pytest.raises(error) as caught:
            call(x, resets=resets)
        assert str(caught.value).startswith(message)
    stream = layer.stream(B)
    with pytest.raises((TypeError, ValueError), match="^resets: "):
        stream.step(x[0], resets=np.zeros(B + 1, bool))
    with pytest.raises(TypeError, match="^resets: expected booleans"):
        stream.step(x[0], resets=np.zeros(B))
    assert not any(s.any() for s in members(stream.state))
