"""Detection of speech: the LSTM of Silero VAD behind its convolutions, the whole network.

The ONNX model that takes a chunk of 32 ms a call has four copies of its LSTM, in branches for two sampling rates and
two forms of its input. Another model has the same weights and takes all chunks in one call; the arrays of the
convolutions are read from that. The package gives ONNX Runtime one thread.
"""

# /// script
# dependencies = ["onnx==1.23.2", "onnxruntime==1.32.0"]
#
# [tool.fastrnn]
# package = "silero-vad"
# licence = "MIT"
# cell = "LSTM, in If branches"
# line = 'fastrnn.from_onnx(paths[0], "If_0_then_branch__Inline_0__/decoder/rnn/LSTM")'
# no-deps = ["silero-vad==6.2.3", "pyannote.audio==4.0.7"] # it depends on torch, for another format of the model
# quick = true
# ///

import numpy as np
import onnx
import onnxruntime

import fastrnn

from comparison import compare, file_of
from speech import speech

paths = [file_of("silero-vad", f"silero_vad/data/silero_vad{x}.onnx") for x in ("", "_16k_sequence")]
layer = fastrnn.from_onnx(paths[0], "If_0_then_branch__Inline_0__/decoder/rnn/LSTM")
layer.freeze()
a = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(paths[1]).graph.initializer}
kernels = [a[f"encoder.{k}.weight"].transpose(2, 1, 0).reshape(-1, len(a[f"encoder.{k}.bias"])) for k in range(4)]
# 30 s, (937, 576): the first 64 samples of a chunk are the last of the one before.
chunks = np.lib.stride_tricks.sliding_window_view(np.pad(speech()[: 937 * 512], (64, 0)), 576)[::512].copy()


def convolutions(x):
    x = np.concatenate([x, x[:, -2:-66:-1]], axis=1)
    x = np.stack([x[:, k : k + 256] for k in range(0, 512, 128)], axis=1) @ a["stft.forward_basis_buffer"][:, 0].T
    x = np.sqrt(x[..., :129] ** 2 + x[..., 129:] ** 2)
    for k, stride in enumerate((1, 2, 2, 1)):
        T, padded = x.shape[1], np.zeros((len(x), x.shape[1] + 2, x.shape[2]), np.float32)
        padded[:, 1:-1] = x
        x = np.concatenate([padded[:, j : j + T : stride] for j in range(3)], axis=2)
        x = np.maximum(x @ kernels[k] + a[f"encoder.{k}.bias"], 0)
    return x[:, 0]


def probability(h):
    return 1 / (1 + np.exp(-np.maximum(h, 0) @ a["output.weight"][0, :, 0] - a["output.bias"]))


def ours():
    stream = layer.stream(1)
    return [probability(stream.step(convolutions(chunk[None])))[0] for chunk in chunks]


def theirs():
    outputs, state = [], np.zeros((2, 1, 128), np.float32)
    for chunk in chunks:
        output, state = sessions[0].run(None, {"input": chunk[None], "state": state, "sr": np.array(16000)})
        outputs.append(output[0, 0])
    return outputs


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
sessions = [onnxruntime.InferenceSession(path, options) for path in paths]
given = {"input": chunks, "h": np.zeros((1, 1, 128), np.float32), "c": np.zeros((1, 1, 128), np.float32)}
compare(__file__, "network, 30 s of speech by chunks", ours, theirs)
at_once = {
    "ours": lambda: probability(layer(convolutions(chunks))[0]),
    "theirs": lambda: sessions[1].run(None, given)[0],
}
compare(__file__, "network, 30 s of speech at once", **at_once)
