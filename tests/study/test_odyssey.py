"""examples/odyssey.py: the equations and gradients of each variant, and the effect of removing a part."""

import numpy as np
import pytest

import fastrnn
import odyssey
import odyssey_variants
from many_to_one import Sequences
from odyssey_variants import IDENTITY, OPEN, VARIANTS, Activations, Block

T, B, I, H = 5, 3, 2, 3
IN_NUMPY = {
    "V": {},
    "NIG": {"activations": Activations(i=OPEN)},
    "NFG": {"activations": Activations(f=OPEN)},
    "NOG": {"activations": Activations(o=OPEN)},
    "CIFG": {},
    "NP": {},
    "NIAF": {"activations": Activations(g=IDENTITY)},
    "NOAF": {"activations": Activations(a=IDENTITY)},
    "FGR": {"recurrent_gates": True},
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make(variant, rng, dtype=np.float64):
    """The variant, with weights that are not small."""
    block = VARIANTS[variant][1](I, H, rng, dtype)
    block.params.flat[...] *= np.where(block.params.flat == odyssey_variants.OPEN_BIAS, 1, 8)
    return block


def in_numpy(variant, block):
    """The same variant in NumPy, by its activations instead of its parameters, except coupled gates and peepholes."""
    twin = Block(I, H, np.random.default_rng(0), block.params.flat.dtype, **IN_NUMPY[variant])
    twin.params.flat[...] = 0
    for name, array in block.params.items():
        twin.params[name] = array
    return twin


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_by_finite_differences(variant, rng):
    block = make(variant, rng)
    x, d_output = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, H))
    d_params = block.backward(block.forward(x)[1], d_output)
    for k in range(block.params.flat.size):
        # along a direction that the variant allows: for coupled gates, both rows move
        direction = np.zeros_like(block.params.flat)
        direction[k] = 1
        if variant == "CIFG":
            moved = block.params.zeros_like()
            moved.flat[k] = 1
            for of_i, of_f in zip(odyssey_variants.rows(moved, "i"), odyssey_variants.rows(moved, "f")):
                of_i[...] -= of_f
                of_f[...] = -of_i
            direction = moved.flat
        sums = []
        start = block.params.flat.copy()
        for step in (1e-6, -1e-6):
            block.params.flat[...] = start + step * direction
            sums.append(np.sum(block.forward(x)[0] * d_output))
        block.params.flat[...] = start
        difference = (sums[0] - sums[1]) / 2e-6
        assert d_params.flat @ direction == pytest.approx(difference, rel=1e-5, abs=1e-7), k


@pytest.mark.parametrize("variant", ["V", "NIG", "NFG", "NOG", "CIFG", "NP"])
def test_the_kernels_compute_what_numpy_does(variant, rng):
    block = make(variant, rng)
    twin = in_numpy(variant, block)
    x, d_output = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, H))
    (output, tape), (expected, twin_tape) = block.forward(x), twin.forward(x)
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)
    d_params, d_expected = block.backward(tape, d_output), twin.backward(twin_tape, d_output)
    if variant == "CIFG":
        for _, _, _, i, f, *_ in twin_tape[1]:
            np.testing.assert_allclose(f, 1 - i, atol=1e-15)
        for d_i, d_f in zip(odyssey_variants.rows(d_expected, "i"), odyssey_variants.rows(d_expected, "f")):
            d_i[...] = (d_i - d_f) / 2
            d_f[...] = -d_i
    for name, d in d_params.items():
        np.testing.assert_allclose(d, d_expected[name], rtol=1e-10, atol=1e-12, err_msg=name)


def train(block, rng, steps=20):
    x, d_output = rng.normal(size=(2, T, B, H))
    optimizer = fastrnn.optim.Adam(block.params, lr=0.1)
    for _ in range(steps):
        output, tape = block.forward(x[..., :I].astype(np.float32))
        gradient = block.backward(tape, (output - d_output).astype(np.float32))
        fastrnn.optim.clip_by_global_norm(gradient, 1.0)
        optimizer.step(gradient)


@pytest.mark.parametrize("variant, gate", [("NIG", "i"), ("NFG", "f"), ("NOG", "o")])
def test_a_gate_held_open_is_exactly_open_and_stays_so(variant, gate, rng):
    block = make(variant, rng, np.float32)
    start = [array.copy() for array in odyssey_variants.rows(block.params, gate)]
    free = block.params["weight_ih_l0"].copy()
    train(block, rng)
    for array, before in zip(odyssey_variants.rows(block.params, gate), start):
        np.testing.assert_array_equal(array, before)
    assert not np.array_equal(block.params["weight_ih_l0"], free)
    # with another open bias the same bits: its sigmoid is 1, not nearly 1
    x = rng.normal(size=(T, B, I))
    output, tape = block.forward(x)
    d_params = block.backward(tape, np.ones((T, B, H)))
    assert not any(d.any() for d in odyssey_variants.rows(d_params, gate))
    odyssey_variants.rows(block.params, gate)[2][...] = 80
    assert block.forward(x)[0].tobytes() == output.tobytes()


def test_coupled_gates_stay_coupled_to_the_last_bit(rng):
    block = make("CIFG", rng, np.float32)
    start = block.params["weight_ih_l0"].copy()
    train(block, rng)
    assert not np.array_equal(block.params["weight_ih_l0"][:H], start[:H])
    for of_i, of_f in zip(odyssey_variants.rows(block.params, "i"), odyssey_variants.rows(block.params, "f")):
        np.testing.assert_array_equal(of_f, -of_i)


def test_a_conversation_is_all_utterances_once_each_in_its_own_order(rng):
    lengths, labels = np.array([3, 1, 2]), np.array([7, 8, 9])
    x = np.arange(3.0)[:, None, None] + 10 * labels[:, None]  # of step and speaker
    utterances = Sequences(x.astype(np.float32), lengths, labels)
    seen = set()
    for _ in range(20):
        (x, speakers), whole = odyssey.conversation(utterances, 2, 0, rng), [70, 71, 72, 80, 90, 91]
        assert x.shape == (2, 3, 1) and speakers.shape == (2, 3)
        frames = x[..., 0].T.ravel().tolist()
        assert sorted(frames) == whole and [frame // 10 for frame in frames] == speakers.T.ravel().tolist()
        at = frames.index(70)
        assert frames[at : at + 3] == [70, 71, 72] and frames.index(91) == frames.index(90) + 1
        seen.add(tuple(frames))
    assert len(seen) == 6
    x, speakers = odyssey.conversation(utterances, 4, 0, rng)  # an incomplete window is left out
    assert x.shape == (4, 1, 1) and speakers.shape == (4, 1)
    noise = (
        odyssey.conversation(utterances, 6, 5, np.random.default_rng(1))[0]
        - odyssey.conversation(utterances, 6, 0, np.random.default_rng(1))[0]
    )
    assert 1 < noise.std() < 12


def test_without_a_forget_gate_it_is_worse(quick):
    numbers, folder = quick("odyssey")
    found = numbers["variants"]
    mean = {variant: found[variant]["mean"] for variant in VARIANTS}
    assert mean["V"] < numbers["single_frames"] - 12
    assert mean["NFG"] > mean["V"] + 2
    assert max(mean, key=mean.get) == "NFG"
    for name in "odyssey", "odyssey_search":
        assert 15_000 < (folder / f"{name}.png").stat().st_size < 150_000
