"""Detection of speech: the LSTM of Silero VAD behind its convolutions, the whole network.

The package's ONNX model holds four copies of its LSTM in branches, for two sampling rates. It takes a chunk of 32 ms a
call, and here a stream carries the state. Another of its models takes all chunks in one call.
"""

# /// script
# dependencies = ["onnx==1.23.2", "onnxruntime==1.32.0"]
#
# [tool.fastrnn]
# package = "silero-vad"
# licence = "MIT"
# cell = "LSTM, in If branches"
# line = 'fastrnn.from_onnx(path, "If_0_then_branch__Inline_0__/decoder/rnn/LSTM")'
# no-deps = ["silero-vad==6.2.3", "pyannote.audio==4.0.7"] # its dependency torch is for other formats of the model
# quick = true
# ///

import numpy as np
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view

import fastrnn

from comparison import compare, file_of
from speech import speech

path = file_of("silero-vad", "silero_vad/data/silero_vad.onnx")
layer = fastrnn.from_onnx(path, "If_0_then_branch__Inline_0__/decoder/rnn/LSTM")
layer.freeze()
weights = fastrnn.load_tensors(file_of("silero-vad", "silero_vad/data/silero_vad_16k.safetensors"))
samples = np.pad(speech()[: 937 * 512], (64, 0))
chunks = sliding_window_view(samples, 576)[::512]  # (937, 576); 64 samples of each belong to the one before, too


def convolutions(x):
    x = np.concatenate([x, x[:, -2:-66:-1]], axis=1)
    x = sliding_window_view(x, 256, axis=1)[:, ::128] @ weights["stft_conv.weight"][:, 0].T
    x = np.sqrt(x[..., :129] ** 2 + x[..., 129:] ** 2)
    for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
        x = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (0, 0))), 3, axis=1)[:, ::stride]
        weight = weights[f"{name}.weight"]
        x = np.maximum(x.reshape(*x.shape[:2], -1) @ weight.reshape(len(weight), -1).T + weights[f"{name}.bias"], 0)
    return x[:, 0]


def probability(h):
    return 1 / (1 + np.exp(-np.maximum(h, 0) @ weights["final_conv.weight"][0] - weights["final_conv.bias"]))


def stream():
    steps = layer.stream(1)
    return np.concatenate([probability(steps.step(convolutions(chunk[None]))) for chunk in chunks])


def their_stream():
    outputs, state = [], zeros
    for chunk in chunks:
        output, state = session.run(None, {"input": chunk[None], "state": state, "sr": rate})
        outputs.append(output)
    return np.concatenate(outputs)


session = onnxruntime.InferenceSession(path)
zeros, rate = np.zeros((2, 1, 128), np.float32), np.array(16000)
compare(__file__, "network, 30 s of speech, chunk by chunk", stream, their_stream)
