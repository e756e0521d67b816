"""Measures the error of quantized layers, beside ONNX Runtime's int8: the tables of docs/quantization.md.

    python benchmarks/quantization_error.py                           # random layers of every cell
    python benchmarks/quantization_error.py --char-lm char_lm.npz     # also a model of examples/char_lm.py

An error is the root of the mean squared difference from the float32 layer, divided by the root of the mean squared
output. ONNX Runtime, where onnx and onnxruntime are installed, runs the LSTM after its `quantize_dynamic` with a scale
for each row; it has no other quantized cell.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import fastrnn

FORMATS = ("int8", "float16", "bfloat16", "float8")
T, B = 100, 16
CELLS = {
    "LSTM": (fastrnn.LSTM, {}),
    "LSTM, projected": (fastrnn.LSTM, {"projected": True}),
    "GRU": (fastrnn.GRU, {}),
    "GRU, reset_after=False": (fastrnn.GRU, {"reset_after": False}),
    "RNN": (fastrnn.RNN, {}),
    "RNN, relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "SLSTM, 4 heads": (fastrnn.SLSTM, {"num_heads": 4}),
    "UGRNN": (fastrnn.UGRNN, {}),
}


def uniform(layer, rng):
    """Weights as layers are initialized, uniform in 1/sqrt(H); x normal."""
    return rng.standard_normal((T, B, layer.input_size), np.float32)


def heavy_tailed(layer, rng, freedom=3):
    """Weights of Student's t with 3 degrees of freedom, times e^(N/2) for each row; x normal, one feature times 10."""
    spread = layer.hidden_size**-0.5 / 3  # the standard deviation of both factors of t / sqrt(3) and of uniform numbers
    for name, array in layer.params.items():
        if name.startswith("weight"):
            rows = np.exp(rng.standard_normal((len(array), 1)) / 2)
            array[...] = spread * rng.standard_t(freedom, array.shape) * rows
    x = rng.standard_normal((T, B, layer.input_size), np.float32)
    x[..., 0] *= 10
    return x


def very_heavy_tailed(layer, rng):
    """The same with 2 degrees of freedom: weights of infinite variance."""
    return heavy_tailed(layer, rng, freedom=2)


CASES = {"uniform": uniform, "heavy-tailed": heavy_tailed, "very heavy-tailed": very_heavy_tailed}


def layer_of(cell, H):
    cls, options = CELLS[cell]
    options = dict(options)
    if options.pop("projected", False):
        options["proj_size"] = H // 2
    return cls(H, H, **options, rng=1)


def relative_error(actual, expected):
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    return float(np.sqrt(np.mean((actual - expected) ** 2) / np.mean(expected**2)))


def has_onnxruntime():
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def onnxruntime_int8(layer, x):
    """The output of the layer's ONNX model after dynamic quantization with a scale for each row."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("float32.onnx", "int8.onnx")]
        fastrnn.to_onnx(layer, paths[0])
        quantize_dynamic(*paths, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["LSTM"])
        session = onnxruntime.InferenceSession(paths[1], providers=["CPUExecutionProvider"])
        assert any(node == "DynamicQuantizeLSTM" for node in node_types(paths[1]))
        return session.run(["output"], {"x": x})[0]


def node_types(path):
    import onnx

    return [node.op_type for node in onnx.load(path).graph.node]


def random_layers(sizes):
    """Rows of a table: the case, the cell, H, the error of each format, and that of ONNX Runtime or None."""
    for case, draw in CASES.items():
        for cell in CELLS:
            for H in sizes:
                layer = layer_of(cell, H)
                x = draw(layer, np.random.default_rng(2))
                errors = [fastrnn.compare(layer, layer.quantize(form), x).relative for form in FORMATS]
                peer = None
                if cell == "LSTM" and has_onnxruntime():
                    peer = relative_error(onnxruntime_int8(layer, x), layer(x)[0])
                yield case, cell, H, errors, peer


def char_lm_rows(checkpoint):
    """Rows of a table: the format, the bits per character on the held-out text, and the difference from float32."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    from char_lm_checkpoint import load_checkpoint
    from char_lm_model import bits_per_character
    from char_lm_options import parse
    from char_lm_text import read_text
    from char_lm_training import Training

    o = parse(["--checkpoint", checkpoint, "--resume"])
    text = read_text(o.text, o.unroll, o.batch)
    training = Training.begin(len(text.vocabulary), o)
    load_checkpoint(checkpoint, training, text, o)
    model = training.model
    layer, whole = model.lstm, bits_per_character(model, text.held_out)
    yield "float32", whole, 0.0
    for form in FORMATS:
        model.lstm = layer.quantize(form)
        bits = bits_per_character(model, text.held_out)
        yield form, bits, bits - whole


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 512], help="I and H; default %(default)s")
    parser.add_argument(
        "--char-lm", metavar="FILE", help="a checkpoint of examples/char_lm.py with its default options"
    )
    arguments = parser.parse_args()
    print(f"T = {T}, B = {B}, I = H\n")
    print(f"| weights and x | cell | H | {' | '.join(FORMATS)} | ONNX Runtime int8 |")
    print("|---|---|" + "--:|" * (len(FORMATS) + 2))
    for case, cell, H, errors, peer in random_layers(arguments.sizes):
        numbers = " | ".join(f"{error:.1e}" for error in errors)
        print(f"| {case} | {cell} | {H} | {numbers} | {'' if peer is None else f'{peer:.1e}'} |", flush=True)
    if arguments.char_lm:
        print("\n| format | bits per character | difference |\n|---|--:|--:|")
        for form, bits, difference in char_lm_rows(arguments.char_lm):
            print(f"| {form} | {bits:.4f} | {difference:+.4f} |")


if __name__ == "__main__":
    main()
