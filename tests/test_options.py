"""Layers of every kind with all their options: against the reference, and their guarantees to the last bit."""

import concurrent.futures
import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from depth import DEPTH
from fastrnn._engine.pool import POOL
from layer_cases import (
    CLASSES,
    draw,
    layers,
    members,
    reference_gates,
    reference_results,
    results,
    state_like,
    states_of,
)


def case_of(layer, T, B, lengths=None, seed=1):
    """x, state, lengths, d_output and d_state_n."""
    D, P = 1 + layer.bidirectional, getattr(layer, "proj_size", 0) or layer.hidden_size
    axes = (B, T) if layer.batch_first else (T, B)
    x, d_output = draw(seed, *axes, layer.input_size), draw(seed + 1, *axes, D * P)
    x, d_output = x.astype(layer.dtype), d_output.astype(layer.dtype)
    return x, state_like(layer, B, seed + 2), lengths, d_output, state_like(layer, B, seed + 4)


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].shape == array.shape and actual[name].tobytes() == array.tobytes(), name


def assert_close(actual, expected, tolerance=2e-13):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        scale = max(1.0, np.abs(array).max(initial=0))
        np.testing.assert_allclose(actual[name], array, rtol=0, atol=tolerance * scale, err_msg=name)


def one_of_each(**options):
    yield fastrnn.LSTM(5, 7, **options, rng=1)
    yield fastrnn.LSTM(5, 7, proj_size=3, peephole=True, **options, rng=1)
    yield fastrnn.GRU(5, 7, **options, rng=1)
    yield fastrnn.RNN(5, 7, **options, rng=1)
    yield fastrnn.RNN(5, 7, nonlinearity="relu", **options, rng=1)
    yield fastrnn.SLSTM(5, 8, num_heads=2, **options, rng=1)
    yield fastrnn.UGRNN(5, 7, **options, rng=1)


@given(layer=layers(), data=st.data(), T=st.sampled_from([4, 1, 3, 0]), B=st.sampled_from([3, 1, 9, 0]))
@settings(max_examples=150 * DEPTH)
def test_against_the_reference(layer, data, T, B):
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    case = case_of(layer, T, B, lengths)
    assert_close(results(layer, *case), reference_results(layer, *case))


@given(layer=layers(), data=st.data(), T=st.sampled_from([5, 1, 0]), B=st.sampled_from([3, 1, 6]))
@settings(max_examples=80 * DEPTH)
def test_every_way_gives_the_same_bits(layer, data, T, B):
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    x, state, _, d_output, d_state_n = case = case_of(layer, T, B, lengths)
    expected = results(layer, *case)
    output, state_n = layer(x, state, lengths)
    forward = {"output": output} | {f"{n}_n": s for n, s in zip(states_of(layer), members(state_n), strict=True)}
    assert_same(forward, {name: expected[name] for name in forward})

    every = data.draw(st.integers(1, T + 2))
    assert_same(results(layer, *case, checkpoint_every=every), expected)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    layer.freeze()
    for other in (layer, *copies):
        assert_same(results(other, *case), expected)
        assert_same(results(other, *case, checkpoint_every=every), expected)


def named_gates(gates):
    """The dictionaries of all layers and directions as one."""
    return {f"{name} {k}": array for k, one in enumerate(gates) for name, array in one.items()}


@given(layer=layers(), data=st.data(), T=st.sampled_from([4, 1, 3, 0]), B=st.sampled_from([3, 1, 9, 0]))
@settings(max_examples=150 * DEPTH)
def test_gates_against_the_reference(layer, data, T, B):
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    x, state, *_ = case_of(layer, T, B, lengths)
    gates = layer.forward(x, state, lengths, return_gates=True)[-1]
    assert_close(named_gates(gates), named_gates(reference_gates(layer, x, state, lengths)))


@given(layer=layers(), data=st.data(), T=st.sampled_from([5, 1, 0]), B=st.sampled_from([3, 1, 6]))
@settings(max_examples=80 * DEPTH)
def test_gates_are_copies_and_change_nothing(layer, data, T, B):
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    x, state, _, d_output, d_state_n = case = case_of(layer, T, B, lengths)
    expected = results(layer, *case)
    output, state_n, tape, gates = layer.forward(x, state, lengths, return_gates=True)
    layer.freeze()
    assert_same(named_gates(layer.forward(x, state, lengths, return_gates=True)[-1]), named_gates(gates))
    top = np.concatenate([one["h"] for one in gates[-1 - layer.bidirectional :]], axis=-1)
    assert top.tobytes() == output.tobytes()
    for array in named_gates(gates).values():
        array[...] = np.nan
    d_x, _, d_params = layer.backward(tape, d_output, d_state_n)
    found = {"output": output, "d_x": d_x} | {f"d_{name}": array for name, array in d_params.items()}
    found |= {f"{name}_n": s for name, s in zip(states_of(layer), members(state_n), strict=True)}
    assert_same(found, {name: expected[name] for name in found})


@pytest.mark.parametrize("H", [1, 7, 8, 9, 16, 17, 32, 33, 64, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gates_of_every_width_and_instruction_set(every_isa, H, dtype):
    lengths = [6, 2, 0, 5]
    for cls in CLASSES:
        layer = cls(3, H, num_layers=2, bidirectional=True, dtype=dtype, rng=1)
        x, state, *_ = case_of(layer, 6, 4)
        reference = named_gates(reference_gates(layer, x, state, lengths))
        found = {}
        for isa in every_isa():
            gates = found[isa] = named_gates(layer.forward(x, state, lengths, return_gates=True)[-1])
            assert_close(gates, reference, tolerance=1e-5 if dtype == np.float32 else 2e-13)
            if isa not in ("generic", "avx2"):
                assert_same(gates, found["avx2"])


def test_gates_of_a_single_sequence():
    for layer in one_of_each(num_layers=2, bidirectional=True, batch_first=True):
        x, state, *_ = case_of(layer, 6, 1)
        alone = tuple(s[:, 0] for s in state) if isinstance(state, tuple) else state[:, 0]
        expected = layer.forward(x, state, return_gates=True)[-1]
        gates = layer.forward(x[0], alone, return_gates=True)[-1]
        assert_same(named_gates(gates), {name: array[0] for name, array in named_gates(expected).items()})


@pytest.mark.parametrize("bidirectional", [False, True])
def test_h_among_the_gates_is_that_before_dropout(bidirectional):
    layer = fastrnn.LSTM(5, 6, num_layers=2, dropout=0.5, bidirectional=bidirectional, rng=1)
    x, state, *_ = case_of(layer, 7, 3)
    _, _, tape, gates = layer.forward(x, state, return_gates=True)
    D = 1 + bidirectional
    below = np.concatenate([one["h"] for one in gates[:D]], axis=-1)
    mask = tape.masks[1]
    above = fastrnn.LSTM(6 * D, 6, bidirectional=bidirectional)
    above.load_state_dict({n.replace("_l1", "_l0"): w for n, w in layer.state_dict().items() if "_l1" in n})
    expected = above.forward(below * mask * np.float32(2), tuple(s[D:] for s in state), return_gates=True)[-1]
    assert_same(named_gates(gates[D:]), named_gates(expected))
    assert below.all() and not mask.all()


def test_gates_that_are_refused():
    layer = fastrnn.LSTM(5, 6, rng=1)
    x = np.zeros((3, 2, 5))
    with pytest.raises(TypeError, match="^return_gates: expected True or False, got 1"):
        layer.forward(x, return_gates=1)
    with pytest.raises(ValueError, match="^return_gates: not with checkpoint_every"):
        layer.forward(x, checkpoint_every=2, return_gates=True)
    assert len(layer.forward(x, checkpoint_every=2, return_gates=False)) == 3


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_each_ragged_sequence_is_that_alone(num_layers, bidirectional):
    T, lengths = 6, [3, 0, 6, 1, 4, 6, 2]
    for layer in one_of_each(num_layers=num_layers, bidirectional=bidirectional):
        x, state, _, d_output, d_state_n = case_of(layer, T, len(lengths))
        whole = results(layer, x, state, lengths, d_output, d_state_n)
        for b, length in enumerate(lengths):
            part = slice(b, b + 1)

            def of(state):
                taken = tuple(s[:, part] for s in members(state))
                return taken if isinstance(state, tuple) else taken[0]

            alone = results(layer, x[:length, part], of(state), None, d_output[:length, part], of(d_state_n))
            for name in ("output", "d_x"):
                assert whole[name][:length, part].tobytes() == alone[name].tobytes(), name
                assert not whole[name][length:, b].any()
            for name in {n for s in states_of(layer) for n in (f"{s}_n", f"d_{s}_0")}:
                assert whole[name][:, part].tobytes() == alone[name].tobytes(), name


@pytest.mark.parametrize("bidirectional", [False, True])
def test_threads_and_instruction_sets_give_the_same_bits(every_isa, threads, bidirectional):
    lengths = [30, 7, 30, 0, 12, 25, 30, 1]
    for layer in one_of_each(num_layers=2, bidirectional=bidirectional):
        case = case_of(layer, 30, 8, lengths)
        found = []
        for isa in every_isa():
            for n in (1, 2):
                threads(n)
                found.append((isa, results(layer, *case)))
        first = {isa == "generic": result for isa, result in reversed(found)}
        for isa, result in found:
            assert_same(result, first[isa == "generic"])


def test_streams_of_every_kind():
    T = 6
    for layer in one_of_each(num_layers=2):
        for B in (None, 3):
            x = draw(1, T, B or 1, 5).astype(np.float32)
            state = state_like(layer, B or 1, 2)
            output, state_n = layer(x, state)
            stream = layer.stream(B)
            if B:
                stream.state = state
                y = np.stack([stream.step(x_t) for x_t in x])
            else:
                stream.state = tuple(s[:, 0] for s in state) if isinstance(state, tuple) else state[:, 0]
                y = np.stack([stream.step(x_t[0]) for x_t in x])[:, None]
                state_n = tuple(s[:, 0] for s in members(state_n))
            assert y.tobytes() == output.tobytes()
            assert [s.tobytes() for s in members(stream.state)] == [s.tobytes() for s in members(state_n)]
            stream.reset()
            assert not any(s.any() for s in members(stream.state))
    with pytest.raises(ValueError, match="bidirectional"):
        fastrnn.GRU(5, 7, bidirectional=True).stream()
    stream = fastrnn.LSTM(5, 7, proj_size=3).stream()
    with pytest.raises(ValueError, match=r"^out: expected \(proj_size=3,\), got \(7,\)"):
        stream.step(np.zeros(5), out=np.zeros(7, np.float32))
    with pytest.raises(ValueError, match=r"^state \(h\): expected \(num_layers=1, proj_size=3\), got"):
        stream.state = np.zeros((1, 7)), None


def test_streams_name_the_projection_in_errors():
    stream = fastrnn.LSTM(5, 7, proj_size=3).stream(2)
    with pytest.raises(ValueError, match=r"^out: expected \(B=2, proj_size=3\), got"):
        stream.step(np.zeros((2, 5)), out=np.zeros((2, 7), np.float32))
    with pytest.raises(ValueError, match=r"^state \(h\): expected \(num_layers=1, B=2, proj_size=3\), got"):
        stream.state = np.zeros((1, 2, 7)), None
    with pytest.raises(ValueError, match=r"^state \(c\): expected \(num_layers=1, B=2, hidden_size=7\), got"):
        stream.state = None, np.zeros((1, 2, 3))


def test_dropout_is_of_training_alone():
    for bidirectional in (False, True):
        layer = fastrnn.LSTM(5, 40, num_layers=2, dropout=0.25, bidirectional=bidirectional, rng=1)
        plain = fastrnn.LSTM(5, 40, num_layers=2, bidirectional=bidirectional)
        plain.load_state_dict(layer.state_dict())
        x = draw(1, 50, 3, 5).astype(np.float32)
        assert layer(x)[0].tobytes() == plain(x)[0].tobytes()
        assert layer.forward(x)[0].tobytes() != plain(x)[0].tobytes()
        # The part of the inputs of layer 1 that is dropped, as its gradient shows it.
        output, _, tape = layer.forward(x)
        masks = [tape.masks[1]]
        for mask in masks:
            assert abs(mask.mean() - 0.75) < 0.02


def test_dropout_where_there_is_nothing_between_layers_is_worth_a_warning():
    with pytest.warns(UserWarning, match="^dropout: is between layers") as caught:
        fastrnn.GRU(2, 3, dropout=0.5)
    assert caught[0].filename == __file__
    fastrnn.GRU(2, 3, num_layers=2, dropout=0.5)


def test_dropout_comes_from_the_rng():
    x = draw(1, 7, 3, 5).astype(np.float32)

    def outputs(rng):
        layer = fastrnn.GRU(5, 6, num_layers=3, dropout=0.5, rng=rng)
        return [layer.forward(x)[0].tobytes() for _ in range(2)]

    first, second = outputs(3), outputs(3)
    assert first == second and first[0] != first[1] and outputs(4) != first


@pytest.mark.parametrize("per_sequence", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_layer_has_a_mask_of_its_own(bidirectional, per_sequence):
    options = {"dropout": 0.5, "dropout_per_sequence": per_sequence, "bidirectional": bidirectional}
    layer = fastrnn.RNN(5, 6, num_layers=4, **options, rng=1)
    _, _, tape = layer.forward(np.ones((7, 3, 5), np.float32))
    masks = tape.masks[1:]
    assert len({mask.tobytes() for mask in masks}) == 3


@pytest.mark.parametrize("per_sequence", [False, True])
def test_gradients_of_dropout_are_those_of_the_masked_net(per_sequence):
    """Finite differences in float64, with fixed masks."""
    for bidirectional in (False, True):
        layer = fastrnn.LSTM(
            2, 3, num_layers=2, dropout=0.5, dropout_per_sequence=per_sequence, bidirectional=bidirectional,
            dtype=np.float64, rng=5,
        )  # fmt: skip
        D = 1 + bidirectional
        x, weight = draw(1, 4, 2, 2), draw(2, 4, 2, 3 * D)

        def loss():
            layer._rng = np.random.default_rng(9)
            output, _, tape = layer.forward(x)
            return (output * weight).sum(), tape

        _, tape = loss()
        d_x, _, d_params = layer.backward(tape, weight)
        for array, gradient in ((x, d_x), (layer.params.flat, d_params.flat)):
            for index in list(np.ndindex(array.shape))[::3]:
                value = array[index]
                found = []
                for step in (1e-6, -1e-6):
                    array[index] = value + step
                    found.append(loss()[0])
                array[index] = value
                assert abs((found[0] - found[1]) / 2e-6 - gradient[index]) < 1e-8


@pytest.mark.parametrize("per_sequence", [False, True])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_checkpoints_keep_the_masks_of_dropout(every, per_sequence):
    given = {"num_layers": 3, "dropout": 0.5, "dropout_per_sequence": per_sequence}
    for direction in ({}, {"bidirectional": True}, {"reverse": True}):
        found = []
        for options in ({}, {"checkpoint_every": every}):
            layer = fastrnn.GRU(5, 6, **given, **direction, rng=2)
            found.append(results(layer, *case_of(layer, 8, 4, [8, 3, 0, 5]), **options))
        assert_same(*found)


# One mask for all steps of a sequence


def transparent(H, **options):
    """Two layers whose output in training is the mask of the input of the second, divided by 1 - dropout.

    The first layer has the output 1 at each step, and the second passes its input on.
    """
    layer = fastrnn.RNN(1, H, num_layers=2, nonlinearity="relu", dtype=np.float64, rng=3, **options)
    layer.params.flat[...] = 0
    directions = ("", "_reverse")[: 1 + layer.bidirectional]
    for d, direction in enumerate(directions):
        layer.params[f"bias_ih_l0{direction}"][...] = 1
        layer.params[f"weight_ih_l1{direction}"][:, d * H : (d + 1) * H] = np.eye(H)
    return layer


DIRECTIONS = [{}, {"bidirectional": True}, {"reverse": True}]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_mask_for_all_steps_of_a_sequence(direction, threads):
    T, B, H, p = 9, 40, 50, 0.3
    x, found = np.zeros((T, B, 1)), set()
    for n, options in ((1, {}), (2, {}), (3, {"checkpoint_every": 2})):
        threads(n)
        output, _, _ = transparent(H, dropout=p, dropout_per_sequence=True, **direction).forward(x, **options)
        found.add(output.tobytes())
    assert len(found) == 1
    assert (output == output[0]).all()
    mask = output[0] > 0
    assert np.array_equal(output[0], mask * (1 / (1 - p)))
    # The standard deviation of the mean is 0.0103, or 0.0073 with two directions.
    assert abs(mask.mean() - (1 - p)) < 0.03
    assert len({row.tobytes() for row in mask}) == B and len({unit.tobytes() for unit in mask.T}) == mask.shape[1]
    every_step, _, _ = transparent(H, dropout=p, **direction).forward(x)
    assert not (every_step == every_step[0]).all()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_mask_of_a_sequence_does_not_depend_on_lengths(direction):
    T, lengths = 9, [4, 9, 0, 9, 1, 7]
    B = len(lengths)
    valid = np.arange(T)[:, None] < lengths
    for resets in (None, draw(2, T, B) > 0.5):
        found = []
        for ends in (None, lengths):
            layer = transparent(20, dropout=0.5, dropout_per_sequence=True, **direction)
            found.append(layer.forward(np.zeros((T, B, 1)), lengths=ends, resets=resets)[0])
        padded, ragged = found
        assert np.array_equal(ragged[valid], padded[valid]) and not ragged[~valid].any()


def test_gradients_with_one_mask_do_not_depend_on_the_padding():
    T, lengths = 9, np.array([4, 9, 0, 9, 1, 7])
    valid = np.arange(T)[:, None] < lengths
    x, d_output = draw(1, T, 6, 5), draw(2, T, 6, 7) * valid[..., None]
    found = []
    for ends in (None, lengths):
        layer = fastrnn.LSTM(5, 7, num_layers=3, dropout=0.5, dropout_per_sequence=True, dtype=np.float64, rng=1)
        output, _, tape = layer.forward(x, lengths=ends)
        found.append((output[valid], layer.backward(tape, d_output)[0]))
    (output, d_x), (of_ragged, d_x_of_ragged) = found
    assert output.tobytes() == of_ragged.tobytes()
    np.testing.assert_array_equal(d_x, d_x_of_ragged)


def test_a_batch_of_no_sequences_or_steps_with_one_mask():
    layer = fastrnn.GRU(5, 6, num_layers=2, dropout=0.5, dropout_per_sequence=True, rng=1)
    for shape, lengths in (((7, 0, 5), None), ((0, 3, 5), None), ((7, 3, 5), [0, 0, 0])):
        output, h_n, tape = layer.forward(np.zeros(shape), lengths=lengths)
        assert not output.any() and layer.backward(tape, output, h_n)[0].shape == shape
    output, _, _ = layer.forward(np.ones((4, 5)))
    assert output.shape == (4, 6)


def test_one_mask_for_a_sequence_is_of_training_alone():
    layer = fastrnn.GRU(5, 6, num_layers=2, dropout=0.5, dropout_per_sequence=True, rng=1)
    plain = fastrnn.GRU(5, 6, num_layers=2, rng=1)
    x = draw(1, 7, 3, 5).astype(np.float32)
    assert layer.dropout_per_sequence and not plain.dropout_per_sequence
    assert layer(x)[0].tobytes() == plain(x)[0].tobytes()
    again = copy.deepcopy(layer)
    assert repr(again) == "GRU(5, 6, num_layers=2, dropout=0.5, dropout_per_sequence=True)"
    for _ in range(2):
        assert again.forward(x)[0].tobytes() == layer.forward(x)[0].tobytes()
    first, second = (layer.forward(x)[2].masks[1] for _ in range(2))
    assert first.tobytes() != second.tobytes()


def test_one_mask_for_a_sequence_without_dropout():
    with pytest.warns(UserWarning, match="^dropout_per_sequence: has no effect with dropout=0") as caught:
        layer = fastrnn.LSTM(2, 3, num_layers=2, dropout_per_sequence=True)
    assert caught[0].filename == __file__ and len(caught) == 1
    copy.copy(layer)  # warns no more
    with pytest.warns(UserWarning, match="^dropout: is between layers") as caught:
        fastrnn.LSTM(2, 3, dropout=0.5, dropout_per_sequence=True)
    assert len(caught) == 1
    with pytest.raises(TypeError, match="^dropout_per_sequence: expected True or False, got 1"):
        fastrnn.LSTM(2, 3, num_layers=2, dropout=0.5, dropout_per_sequence=1)


def test_checkpoints_take_less_memory():
    import tracemalloc

    T, B, H = 400, 4, 64
    layer = fastrnn.LSTM(3, H, num_layers=2, rng=0)
    x = draw(1, T, B, 3).astype(np.float32)
    kept = {}
    for every in (None, 20):
        tracemalloc.start()
        _, _, tape = layer.forward(x, checkpoint_every=every)
        kept[every] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del tape
        POOL.clear()
    output = T * B * H * 4
    assert kept[None] > 10 * output  # 5 H for each of two layers, and the output
    # The output, and for each 20 steps h and c of two layers.
    assert kept[20] < 1.5 * output

    output, _, tape = layer.forward(x, checkpoint_every=20)
    tracemalloc.start()
    layer.backward(tape, output)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    stretch = 20 * B * 2 * (5 + 1) * H * 4  # tapes and outputs of two layers
    assert peak < 1.5 * stretch + x.nbytes + 3 * layer.params.flat.nbytes


def test_checkpoints_after_a_change_of_the_parameters():
    layer = fastrnn.LSTM(5, 6, num_layers=2, rng=1)
    x, state, _, d_output, d_state_n = case = case_of(layer, 9, 4)
    expected = results(layer, *case)
    _, _, tape = layer.forward(x, state, checkpoint_every=2)
    layer.params.flat[...] = 0
    d_x, _, d_params = layer.backward(tape, d_output, d_state_n)
    assert d_x.tobytes() == expected["d_x"].tobytes()
    assert d_params["weight_hh_l1"].tobytes() == expected["d_weight_hh_l1"].tobytes()
    x[0] += 1
    with pytest.raises(ValueError, match="^x: changed"):
        layer.backward(tape, d_output, d_state_n)


def test_checkpoints_of_no_sequence_take_no_time():
    layer = fastrnn.GRU(5, 6, bidirectional=True, rng=1)
    x = np.zeros((10**12, 0, 5), np.float32)
    output, h_n, tape = layer.forward(x, checkpoint_every=1)
    d_x, d_h_0, d_params = layer.backward(tape, output, h_n)
    assert output.shape == (10**12, 0, 12) and d_x.shape == x.shape and d_h_0.shape == (2, 0, 6)
    assert not d_params.flat.any()


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_refused_checkpoints(value):
    layer = fastrnn.LSTM(5, 6)
    with pytest.raises((TypeError, ValueError), match="^checkpoint_every: expected"):
        layer.forward(np.zeros((3, 2, 5)), checkpoint_every=value)


def test_representations_make_the_layer_again():
    options = {"dropout": 0.5, "dropout_per_sequence": True}
    for layer in one_of_each(num_layers=2, bidirectional=True, **options, batch_first=True, bias=False):
        again = eval(repr(layer), {type(layer).__name__: type(layer)})
        assert repr(again) == repr(layer)
        assert again.params._layout == layer.params._layout


@pytest.mark.parametrize("cls", CLASSES)
def test_names_of_the_parameters(cls):
    layer = cls(3, 4, num_layers=2, bidirectional=True)
    names = [
        f"{n}_l{k}{d}"
        for k in (0, 1)
        for d in ("", "_reverse")
        for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    assert list(layer.params) == names
    gates = {fastrnn.LSTM: 4, fastrnn.GRU: 3, fastrnn.RNN: 1, fastrnn.SLSTM: 4, fastrnn.UGRNN: 2}[cls]
    assert layer.params["weight_ih_l1"].shape == (4 * gates, 8)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("T", "B", "H"), [(100, 1, 128), (1, 1, 256), (1, 3, 128), (30, 40, 96), (40, 16, 256)])
@pytest.mark.parametrize("cls", CLASSES)
def test_layers_side_by_side_or_in_turn_give_the_same_bits(threads, cls, T, B, H, bidirectional):
    """Sizes for which the plan runs layers or directions side by side, with one team, and one after the other."""
    layer = cls(H, H, num_layers=3, bidirectional=bidirectional, rng=1)
    lengths = np.random.default_rng(3).integers(0, T + 1, B)
    for case in (case_of(layer, T, B), case_of(layer, T, B, lengths)):
        threads(1)
        expected = results(layer, *case)
        for n in (2, 3):
            threads(n)
            assert_same(results(layer, *case), expected)
            output, _ = layer(*case[:3])
            assert output.tobytes() == expected["output"].tobytes()


@pytest.mark.parametrize("I", [3, 512])
def test_layers_in_turn_that_need_different_memory(I, threads):
    """Narrow or wide inputs of the lowest layer, whose rows are copied if they are wide."""
    threads(1)
    layer = fastrnn.GRU(I, 70, num_layers=2, dtype=np.float64, rng=1)
    case = case_of(layer, 20, 32)
    assert_close(results(layer, *case), reference_results(layer, *case), tolerance=2e-12)
    assert layer(*case[:2])[0].tobytes() == results(layer, *case)["output"].tobytes()


def test_more_layers_than_run_together():
    layer = fastrnn.GRU(3, 5, num_layers=19, dtype=np.float64, rng=1)
    case = case_of(layer, 6, 4, [6, 2, 0, 5])
    assert_close(results(layer, *case), reference_results(layer, *case))
    stream = layer.stream(4)
    x = draw(1, 6, 4, 3)
    y = np.stack([stream.step(x_t) for x_t in x])
    assert y.tobytes() == layer(x)[0].tobytes()


def test_ragged_calls_do_not_share_what_they_return():
    """Calls reuse each other's memory, of all sizes, also in calls of a signal handler or of a thread."""
    layer = fastrnn.LSTM(5, 40, num_layers=2, rng=1)
    cases = [
        (draw(k, 3 + k, 6, 5).astype(np.float32), np.random.default_rng(k).integers(0, 4 + k, 6)) for k in range(12)
    ]
    cases.append((cases[0][0], np.zeros(6, int)))
    expected = [layer.forward(x, None, lengths)[0] for x, lengths in cases]
    found = [layer(x, None, lengths) for x, lengths in cases]
    for (output, _), wanted in zip(found, expected, strict=True):
        assert output.tobytes() == wanted.tobytes()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for (output, _), wanted in zip(pool.map(lambda case: layer(case[0], None, case[1]), cases), expected):
                assert output.tobytes() == wanted.tobytes()
