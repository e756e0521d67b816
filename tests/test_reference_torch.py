"""The reference against torch: every cell, projections, both directions, ragged batches, in float64."""

import numpy as np
import pytest

import recurrent_cases
from fastrnn import reference

torch = pytest.importorskip("torch")

TOLERANCE = 1e-13  # relative to the largest number of an array, or to 1
LAYERS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
CELLS = [("lstm", {}), ("lstm", {"P": 2}), ("gru", {}), *(("rnn", {"nonlinearity": f}) for f in ("tanh", "relu"))]
SHAPES = [(1, 1, 1, 3), (7, 4, 5, 6), (5, 17, 20, 33)]  # T, B, I, H
RAGGED = {(1, 1, 1, 3): [1], (7, 4, 5, 6): [3, 7, 1, 6], (5, 17, 20, 33): [1 + (3 * b) % 5 for b in range(17)]}


def torch_results(forward, backward):
    """For each direction of one bidirectional layer, a case and torch's results.

    x and lengths, common to the directions, must be the same in both cases.
    """
    cases = (forward, backward)
    cell = forward.cell
    T, B, I = forward.x.shape
    H = forward.weights["weight_ih"].shape[0] // recurrent_cases.CELLS[cell]
    options = {"bias": "bias_ih" in forward.weights, "bidirectional": True, "dtype": torch.float64}
    if "weight_hr" in forward.weights:
        options["proj_size"] = forward.weights["weight_hr"].shape[0]
    if cell == "rnn":
        options["nonlinearity"] = forward.options["nonlinearity"]
    layer = LAYERS[cell](I, H, **options)
    layer.load_state_dict({
        f"{name}_l0{suffix}": torch.tensor(array)
        for case, suffix in zip(cases, ("", "_reverse")) for name, array in case.weights.items()
    })  # fmt: skip

    x = torch.tensor(forward.x, requires_grad=True)
    state = [torch.tensor(np.stack(pair), requires_grad=True) for pair in zip(*(case.state for case in cases))]
    d_state_n = [torch.tensor(np.stack(pair)) for pair in zip(*(case.d_state_n for case in cases))]
    d_output = torch.tensor(np.concatenate([case.d_output for case in cases], axis=2))
    lengths = forward.options["lengths"]
    given = x if lengths is None else torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    output, state_n = layer(given, recurrent_cases.of_cell(forward, tuple(state)))
    if lengths is not None:
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, total_length=T)
    state_n = recurrent_cases.as_tuple(state_n)
    torch.autograd.backward((output, *state_n), (d_output, *d_state_n))

    outputs = output.detach().numpy().reshape(T, B, 2, -1)
    parameters = dict(layer.named_parameters())
    expected = []
    for k, (case, suffix) in enumerate(zip(cases, ("", "_reverse"))):
        results = {"output": outputs[:, :, k]}
        results |= {name: s[k].detach().numpy() for name, s in zip(("h_n", "c_n"), state_n)}
        results |= {name: s.grad[k].numpy() for name, s in zip(("d_h_0", "d_c_0"), state)}
        expected.append(results | {f"d_{name}": parameters[f"{name}_l0{suffix}"].grad.numpy() for name in case.weights})
    return x.grad.numpy(), expected


def assert_close(actual, expected, name):
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, name
    tolerance = TOLERANCE * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(("cell", "options"), CELLS)
@pytest.mark.parametrize("biases", [recurrent_cases.BIASES, ()])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("T", "B", "I", "H"), SHAPES)
def test_both_directions(cell, options, biases, ragged, T, B, I, H):
    lengths = RAGGED[T, B, I, H] if ragged else None
    rng = np.random.default_rng(1)
    forward, backward = (
        recurrent_cases.draw(rng, cell, T, B, I, H, biases=biases, **options, lengths=lengths, reverse=reverse)
        for reverse in (False, True)
    )
    backward = backward._replace(x=forward.x)
    expected_d_x, expected = torch_results(forward, backward)
    actual = [recurrent_cases.run(reference, case) for case in (forward, backward)]
    assert_close(actual[0].pop("d_x") + actual[1].pop("d_x"), expected_d_x, "d_x")
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            assert_close(ours[name], array, name)


def test_torch_arguments():
    """Tensors, also of lengths, are accepted like arrays."""
    case = recurrent_cases.draw(np.random.default_rng(2), "gru", 3, 2, 4, 5, lengths=np.array([3, 1]))
    tensors = case._replace(
        x=torch.tensor(case.x), state=(torch.tensor(case.state[0]),),
        weights={name: torch.tensor(w) for name, w in case.weights.items()},
        options={"lengths": torch.tensor([3, 1])}, d_output=torch.tensor(case.d_output),
        d_state_n=(torch.tensor(case.d_state_n[0]),),
    )  # fmt: skip
    expected = recurrent_cases.run(reference, case)
    for name, array in recurrent_cases.run(reference, tensors).items():
        assert type(array) is np.ndarray and array.tobytes() == expected[name].tobytes(), name
