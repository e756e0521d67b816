"""examples/models/traineddata.py: the network and the characters of a file of Tesseract, written here."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "examples" / "models"))
import traineddata

sys.path.pop()

RNG = np.random.default_rng(0)
WEIGHTS = [RNG.integers(-127, 128, (4, 3 + 4 + 1)).astype("i1") for _ in range(4)]
OUTPUT = RNG.integers(-127, 128, (3, 5)).astype("i1")


def text(value):
    return struct.pack("<I", len(value)) + value.encode()


def header(kind, flags=0):
    return b"\0" + text(kind) + b"\0\0" + struct.pack("<4i", flags, 3, 4, 0) + text("name")


def matrix(weights, mode=0x81):
    scales = np.arange(1, len(weights) + 1) / 64
    start = struct.pack("<B2ib", mode, *weights.shape, 0)
    return start + weights.tobytes() + struct.pack("<I", len(scales)) + scales.tobytes()


def lstm(mode=0x81):
    return header("LSTM") + struct.pack("<i", 7) + b"".join(matrix(one, mode) for one in WEIGHTS)


def model(tmp_path, inner):
    """A file with a network of `inner` in reverse and an output layer, with learning rates."""
    network = header("Series", 64) + struct.pack("<I", 3)
    network += header("Input") + struct.pack("<5i", 1, 36, 0, 1, 0)
    network += header("RTLReversed") + struct.pack("<I", 1) + inner
    network += header("Softmax") + matrix(OUTPUT)
    network += struct.pack("<I3f", 3, 0.1, 0.1, 0.1)
    characters = "5\nNULL 0 Common 0\nJoined 7 x\n|Broken|0|1 f x\nA 5 x\nb 3 x\n"
    codes = b"".join(struct.pack("<b2i", 0, 1, code) for code in (0, 3, 3, 1, 2))
    sections = {17: network, 21: characters.encode(), 22: struct.pack("<I", 5) + codes}
    offsets, data = np.full(24, -1, "<i8"), b""
    for part, section in sections.items():
        offsets[part] = 4 + offsets.nbytes + len(data)
        data += section
    path = tmp_path / "words.traineddata"
    path.write_bytes(struct.pack("<I", len(offsets)) + offsets.tobytes() + data)
    return path


def test_network_and_characters(tmp_path):
    network, characters = traineddata.load(model(tmp_path, lstm()))
    assert characters == {0: " ", 1: "A", 2: "b"}
    assert network.kind == "Series"
    first, reversed_, output = network.layers
    assert (first.kind, first.sizes) == ("Input", [1, 36, 0, 1, 0])
    assert reversed_.kind == "RTLReversed"
    (layer,) = reversed_.layers
    assert layer.kind == "LSTM"
    scales = np.arange(1, 5)[:, None] / 64
    for found, weights in zip(layer.matrices, WEIGHTS, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, weights * scales)
    np.testing.assert_array_equal(output.matrices[0], OUTPUT * scales[:3])


def test_what_is_not_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="'TensorFlow' is not read"):
        traineddata.load(model(tmp_path, header("TensorFlow")))
    with pytest.raises(ValueError, match="LSTM: weights that are not of 8 bits"):
        traineddata.load(model(tmp_path, lstm(mode=0x80)))
