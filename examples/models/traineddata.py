"""Reads the network and the characters of a model of Tesseract 4 and 5, a file whose name ends with .traineddata.

The file has parts, of which three are read: the network, the characters, and the codes of characters, of which the
network gives probabilities. Source of the format: Tesseract, src/ccutil/tessdatamanager.cpp, src/lstm/network.cpp and
the DeSerialize of each layer.
"""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

NETWORK, CHARACTERS, CODES = 17, 21, 22
LEARNING_RATES = 64  # the flag of layers that are followed by one number for each layer in them
SIZES = {"Input": 5, "Convolve": 2, "Maxpool": 2, "Reconfig": 2}
NESTED = ("Series", "Parallel", "RTLReversed", "TTBReversed", "XYTranspose")
MATRICES = {"LSTM": 4, "SummLSTM": 4, "Tanh": 1, "Relu": 1, "Logistic": 1, "Linear": 1, "Softmax": 1, "SoftmaxNoCTC": 1}


@dataclass
class Layer:
    """A layer of the network.

    Attributes
    ----------
    kind : str
        Its name in the file: "LSTM", "SummLSTM" (of which only the last step is returned), "Series", ...
    sizes : list of int
        Of "Convolve" the neighbours on each side, of "Maxpool" the numbers of columns and rows.
    layers : list of Layer
        Those inside it.
    matrices : list of ndarray of float32
        One for each gate, for c, i, f and o: (H, I + H + 1), for the input, the output before, and the bias.
    """

    kind: str
    sizes: list = field(default_factory=list)
    layers: list = field(default_factory=list)
    matrices: list = field(default_factory=list)


def load(path):
    """The network of a file, and the text of each output.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    network : Layer
    characters : dict of str
        By the index of the output; the index that is not in it means no character.

    Raises
    ------
    ValueError
        If a layer is of a kind that is not read here, or its weights are not of 8 bits.
    """
    data = Path(path).read_bytes()
    offsets = np.frombuffer(data, "<i8", int.from_bytes(data[:4], "little"), 4)
    network, characters, codes = (io.BytesIO(data[offsets[part] :]) for part in (NETWORK, CHARACTERS, CODES))
    names = [characters.readline().decode().split(" ")[0] for _ in range(int(characters.readline()))]
    texts = {}
    for name in names[: _number(codes, "<u4")]:
        _number(codes, "i1")
        code = _numbers(codes, "<i4", _number(codes, "<i4"))
        texts.setdefault(int(code[0]), " " if name == "NULL" else name)
    return _layer(network), {code: text for code, text in texts.items() if text not in ("Joined", "|Broken|0|1")}


def _layer(file):
    _number(file, "i1")
    layer = Layer(_text(file))
    _numbers(file, "i1", 2)
    flags = _numbers(file, "<i4", 4)[0]
    _text(file)
    if layer.kind in NESTED:
        layer.layers = [_layer(file) for _ in range(_number(file, "<u4"))]
        if flags & LEARNING_RATES:
            _numbers(file, "<f4", _number(file, "<u4"))
    elif layer.kind in SIZES:
        layer.sizes = _numbers(file, "<i4", SIZES[layer.kind]).tolist()
    elif layer.kind in MATRICES:
        if "LSTM" in layer.kind:
            _number(file, "<i4")
        layer.matrices = [_matrix(file, layer.kind) for _ in range(MATRICES[layer.kind])]
    else:
        raise ValueError(f"a layer of the kind {layer.kind!r} is not read")
    return layer


def _matrix(file, kind):
    if not _number(file, "u1") & 1:
        raise ValueError(f"{kind}: weights that are not of 8 bits are not read")
    rows, columns = _numbers(file, "<i4", 2)
    _number(file, "i1")
    weights = _numbers(file, "i1", rows * columns).reshape(rows, columns)
    scales = _numbers(file, "<f8", _number(file, "<u4"))
    return weights * scales[:rows, None].astype(np.float32)


def _text(file):
    return file.read(_number(file, "<u4")).decode()


def _number(file, dtype):
    return _numbers(file, dtype, 1)[0]


def _numbers(file, dtype, count):
    return np.frombuffer(file.read(np.dtype(dtype).itemsize * int(count)), dtype)
