"""A printed line to text: the convolution, the four LSTMs and the output layer of Tesseract's model of English.

The model is that of the Debian package tesseract-ocr-eng, with weights of 8 bits. Tesseract rounds the values between
its layers to 8 bits, too, and searches with a dictionary; here they are float32, and the likeliest characters are
taken. So the texts are compared, and no numbers.
"""

# /// script
# dependencies = ["tesserocr==2.13.0", "pillow==12.0.0"]
#
# [tool.fastrnn]
# package = "tesserocr"
# licence = "Apache-2.0"
# cell = "LSTM, 4 layers, one along columns, one reversed"
# line = 'fastrnn.from_weights("lstm", [weights, bias[:, 0]], gates="cifo", fused="xh", **options)'
# ///

from itertools import groupby
from pathlib import Path

import numpy as np
import tesserocr
from PIL import Image, ImageDraw, ImageFont

import fastrnn

from comparison import compare
from traineddata import load

TEXT = "Kernels read packed weights, and each result has the same bits on every run."


def make_lstms(layer, **options):
    if "LSTM" in layer.kind:
        weights, bias = np.split(np.concatenate(layer.matrices), [-1], axis=1)
        layer.lstm = fastrnn.from_weights("lstm", [weights, bias[:, 0]], gates="cifo", fused="xh", **options)
        layer.lstm.freeze()
    for one in layer.layers:
        make_lstms(one, batch_first=True, reverse=layer.kind == "RTLReversed")


def run(layer, x):
    """The output (rows, columns, features) of a layer."""
    match layer.kind:
        case "Convolve":
            windows = np.lib.stride_tricks.sliding_window_view(np.pad(x[..., 0], 1, "edge"), (3, 3))
            return windows.swapaxes(2, 3).reshape(*x.shape[:2], 9)
        case "Maxpool":
            rows, columns = x.shape[0] // 3, x.shape[1] // 3
            return x[: 3 * rows, : 3 * columns].reshape(rows, 3, columns, 3, -1).max(axis=(1, 3))
        case "Tanh" | "Softmax":
            x = x @ layer.matrices[0][:, :-1].T + layer.matrices[0][:, -1]
            return np.tanh(x) if layer.kind == "Tanh" else x
        case "LSTM" | "SummLSTM":
            return layer.lstm(x)[0][:, 0 if layer.kind == "LSTM" else -1 :]
        case "XYTranspose":
            return run(layer.layers[0], x.swapaxes(0, 1)).swapaxes(0, 1)
    for one in layer.layers:
        x = run(one, x)
    return x


def ours():
    best = run(network, np.asarray(line, np.float32)[..., None] / 127.5 - 1)[0].argmax(axis=1)
    return "".join(characters.get(int(code), "") for code, _ in groupby(best))


files = sorted(Path("/usr/share/tesseract-ocr").glob("*/tessdata/eng.traineddata"))
if not files:
    raise SystemExit("no model: apt-get install tesseract-ocr-eng")
network, characters = load(files[-1])
make_lstms(network)
tesseract = tesserocr.PyTessBaseAPI(path=str(files[-1].parent), psm=tesserocr.PSM.RAW_LINE)
line = Image.new("L", (800, 36), "white")  # of 36 rows, to which Tesseract would scale it
ImageDraw.Draw(line).text((8, 2), TEXT, "black", ImageFont.load_default(22))
compare(__file__, f"{len(TEXT)} letters", ours, lambda: tesseract.SetImage(line) or tesseract.GetUTF8Text().strip())
