"""examples/precision.py: its rounding of states, and a memory that survives the formats."""

import numpy as np
import pytest

import fastrnn
import precision


def test_states_are_rounded_to_the_formats():
    state = np.random.default_rng(0).standard_normal((1, 3, 200)).astype(np.float32)
    np.testing.assert_array_equal(precision.rounded(state, "float16"), state.astype(np.float16).astype(np.float32))
    bfloat16 = precision.rounded(state, "bfloat16")
    assert not (bfloat16.view(np.uint32) & 0xFFFF).any()
    assert (abs(bfloat16 - state) <= abs(state) * 2.0**-8).all()
    halfway = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8], np.float32)  # ties go to even
    np.testing.assert_array_equal(precision.rounded(halfway, "bfloat16"), np.float32([1, 1 + 2.0**-6]))
    int8 = precision.rounded(state, "int8")
    assert all(len(np.unique(sequence)) <= 255 for sequence in int8[0])
    assert (abs(int8 - state) <= abs(state).max(axis=-1, keepdims=True) / 253).all()


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
def test_float64_has_the_same_weights(cell):
    rng = np.random.default_rng(0)
    layer = precision.Memory(cell, "latch", 20, rng).layer
    wide = precision.converted(layer, "float64")
    assert wide.dtype == np.float64 and precision.converted(layer, "float32") is layer
    for name, array in layer.params.items():
        np.testing.assert_array_equal(wide.params[name], array)
    x = rng.standard_normal((30, 2, 2))
    assert 0 < fastrnn.compare(layer, wide, x).largest < 1e-5


def test_a_bit_survives_every_format(quick):
    numbers, folder = quick("precision")
    assert numbers["gaps"] == [10, 50]
    for cell in "GRU", "LSTM":
        found = numbers[f"latch, {cell}"]
        for name in precision.FORMATS:
            assert min(found["success"][name]) > 0.9, (cell, name)
        drift = {name: max(found["relative"][name]) for name in precision.FORMATS}
        assert drift["float32"] == 0 < drift["float64"] < drift["float16"] < drift["bfloat16"] < drift["int8"] < 0.1
    picture = (folder / "precision.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and 20_000 < len(picture) < 200_000
