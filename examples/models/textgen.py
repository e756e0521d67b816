"""Text, one character at a time: the LSTMs of textgenrnn with weights of CuDNNLSTM, and its other layers in NumPy.

The package's `__init__` needs an older TensorFlow than Python 3.11 has; its network and its generator do not.
"""

# /// script
# dependencies = ["tensorflow-cpu==2.15.1", "scikit-learn==1.7.2", "tqdm==4.67.1"]
#
# [tool.fastrnn]
# package = "textgenrnn"
# licence = "MIT"
# cell = "LSTM, 2 layers"
# line = 'fastrnn.from_keras(weights, name)'
# no-deps = ["textgenrnn==2.0.0"]
# ///

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tensorflow as tf

import fastrnn

from comparison import compare, file_of

weights = file_of("textgenrnn", "textgenrnn/textgenrnn_weights.hdf5")
sys.modules["textgenrnn"] = SimpleNamespace(__path__=[str(Path(weights).parent)], __spec__=None)
from textgenrnn.model import textgenrnn_model
from textgenrnn.utils import textgenrnn_generate

ids = json.loads(Path(weights).with_name("textgenrnn_vocab.json").read_text())
sizes = {"rnn_layers": 2, "rnn_size": 128, "rnn_bidirectional": False, "max_length": 40, "dim_embeddings": 100}
model = textgenrnn_model(len(ids) + 1, sizes, weights_path=weights)
theirs = tf.function(lambda x, **options: model(x))
embedding, *_, attention, kernel, bias = model.get_weights()
layers = [fastrnn.from_keras(weights, name) for name in ("rnn_1", "rnn_2")]
for layer in layers:
    layer.freeze()


def predict(x, **options):
    values = [embedding[x.astype(int)]]
    for layer in layers:
        values.append(layer(values[-1])[0])
    values = np.concatenate(values, axis=-1)
    score = np.exp(values @ attention)
    logits = (values * (score / score.sum(axis=1, keepdims=True))).sum(axis=1) @ kernel + bias
    return np.exp(logits) / np.exp(logits).sum()


def generate(predict):
    stand_in = SimpleNamespace(predict=predict, inputs=["input"])
    return textgenrnn_generate(stand_in, ids, dict(zip(ids.values(), ids)), temperature=0, max_gen_length=30)[0]


x = np.resize([ids[letter] for letter in "the quick brown fox jumps over the lazy dog "], (1, 40))
compare(__file__, "next of 40 letters", lambda: predict(x), lambda: theirs(x).numpy())
compare(__file__, "text of 30 letters", lambda: generate(predict), lambda: generate(theirs))
