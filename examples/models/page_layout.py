"""Lines of text on a page: the LSTMs along rows and columns in the segmentation network of kraken.

Every row, or column, of the page is a sequence. kraken's layers read their weights from a file of Core ML and run in
PyTorch; they are imported without the rest of the package and its many dependencies.
"""

# /// script
# dependencies = ["torch==2.13.0", "coremltools==9.0", "pillow==12.0.0"]
#
# [tool.fastrnn]
# package = "kraken"
# licence = "Apache-2.0"
# cell = "LSTM, 2 times 2 bidirectional layers, along rows and columns"
# line = "fastrnn.from_state_dict(network[name].state_dict())"
# no-deps = ["kraken==7.1.1"]
# ///

import re
import sys
from types import SimpleNamespace

import coremltools
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import fastrnn

from comparison import compare, file_of

folder = file_of("kraken", "kraken/lib/vgsl")
sys.modules["kraken.lib.vgsl"] = SimpleNamespace(__path__=[folder], __spec__=None)
from kraken.lib.vgsl.layers import ActConv2D, GroupNorm, TransposedSummarizingRNN

spec = coremltools.utils.load_spec(file_of("kraken", "kraken/blla.mlmodel"))
network, lstms, channels = {}, {}, 3
for kind, name, sizes in re.findall(r"(Cr|Gn|Lb.)\{(\w+)\}([\d,]+)", spec.description.metadata.userDefined["vgsl"]):
    sizes = [int(size) for size in sizes.split(",")]
    if kind == "Cr":
        network[name] = ActConv2D(channels, sizes[2], sizes[:2], sizes[3:] or (1, 1), "r")
    elif kind == "Gn":
        network[name] = GroupNorm(channels, sizes[0])
    else:
        network[name] = TransposedSummarizingRNN(channels, sizes[0], transpose=kind == "Lby", summarize=False)
    network[name].deserialize(name, spec)
    if kind in ("Lbx", "Lby"):
        lstms[name] = fastrnn.from_state_dict(network[name].state_dict())
        lstms[name].freeze()
    channels = network[name].get_shape((1, channels, 0, 0))[1]


@torch.inference_mode()
def theirs(x, names):
    for name in names:
        x = network[name](x, None)[0]
    return x


def ours(x, names):
    x = x[0].transpose(1, 2, 0)  # (rows, columns, channels)
    for name in names:
        axes = (0, 1, 2) if network[name].transpose else (1, 0, 2)
        x = lstms[name](x.transpose(axes))[0].transpose(axes)
    return x.transpose(2, 0, 1)[None]


page = Image.new("RGB", (300, 900), "white")
text = "\n".join(["One line of text", "stands below another"] * 12)
ImageDraw.Draw(page).multiline_text((20, 40), text, "black", ImageFont.load_default(24), spacing=8)
x = torch.tensor(np.asarray(page) / np.float32(255)).permute(2, 0, 1)[None]
parts = list(network)
for names in (["L_10", "L_11"], ["L_14", "L_15"]):
    x = theirs(x, parts[: parts.index(names[0])])
    what = f"{' and '.join(names)}, {x.shape[2]} rows of {x.shape[3]}"
    compare(__file__, what, lambda: ours(x.numpy(), names), lambda: theirs(x, names).numpy(), tolerance=1e-4)
    parts = parts[parts.index(names[0]) :]
