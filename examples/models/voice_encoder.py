"""Vectors of voices: the three LSTMs of Resemblyzer's encoder and its dense layer, the whole network.

The package computes a PyTorch module. Its input is a batch of windows of 1.6 s, as mel spectrograms.
"""

# /// script
# dependencies = ["torch==2.13.0", "librosa==0.11.0", "webrtcvad-wheels==2.0.14.post1"]
#
# [tool.fastrnn]
# package = "Resemblyzer"
# licence = "Apache-2.0"
# cell = "3 LSTM"
# line = 'fastrnn.from_state_dict(tensors, "model_state.lstm", batch_first=True)'
# no-deps = ["Resemblyzer==0.1.4", "pyannote.audio==4.0.7"] # webrtcvad, which it depends on, has no wheel
# ///

import numpy as np
import torch
from resemblyzer import VoiceEncoder, wav_to_mel_spectrogram

import fastrnn

from comparison import compare, file_of
from speech import speech

tensors = fastrnn.load_tensors(file_of("Resemblyzer", "resemblyzer/pretrained.pt"))
layer = fastrnn.from_state_dict(tensors, "model_state.lstm", batch_first=True)
layer.freeze()
encoder = VoiceEncoder("cpu", verbose=False)
mel = wav_to_mel_spectrogram(speech())
slices = encoder.compute_partial_slices(480000, 1.3, 0.75)[1][:-1]  # the last one ends after the recording
windows = np.stack([mel[one] for one in slices])  # (37, 160, 40)
given = torch.from_numpy(windows)


def ours():
    _, (h_n, _) = layer(windows)
    x = np.maximum(h_n[-1] @ tensors["model_state.linear.weight"].T + tensors["model_state.linear.bias"], 0)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def theirs():
    with torch.inference_mode():
        return encoder(given).numpy()


compare(__file__, f"network, {len(windows)} windows of 1.6 s", ours, theirs)
