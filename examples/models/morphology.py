"""Parts of speech and cases of Russian words: the whole model of rnnmorph, with its two bidirectional LSTMs.

The gates have the hard sigmoid of Keras 2, 0.2 x + 0.5. That of Keras 3 and PyTorch, x / 6 + 0.5, changes a label, as
the two lines that are printed first show.
"""

# /// script
# dependencies = [
#   "tensorflow-cpu==2.15.1", "pymorphy2==0.9.1", "russian-tagsets==0.6", "nltk==3.9.1", "jsonpickle==4.0.5",
#   "tqdm==4.67.1", "setuptools==80.9.0",
# ]
#
# [tool.fastrnn]
# package = "rnnmorph"
# licence = "Apache-2.0"
# cell = "LSTM, 2 bidirectional layers, hard sigmoid 0.2 x + 0.5"
# line = 'fastrnn.from_weights("lstm", arrays, layout="keras", **options)'
# no-deps = ["rnnmorph==0.4.1"]
# ///

import inspect

import numpy as np
import tensorflow as tf

import fastrnn

from comparison import compare

# What the packages use of older versions of Python and NumPy.
inspect.getargspec = lambda function: inspect.getfullargspec(function)[:4]
vars(np).update(int=int, float=float)
from rnnmorph.predictor import RNNMorphPredictor

WORDS = "простой простой сильно затянулся".split()
predictor, inputs = RNNMorphPredictor(language="ru"), []
model, labels = predictor.model.eval_model, predictor.model.grammeme_vectorizer_output
model.predict = lambda x, **options: (
    inputs.extend(map(np.float32, x)) or np.zeros((1, len(WORDS), model.output_shape[2]))
)
predictor.predict(WORDS)
w = {layer.name: layer.get_weights() for layer in model.layers}
stacks = [[w["LSTM_1_forward"], w["LSTM_1_backward"]], w["bidirectional_1"]]
embedding, kernel, bias, *last = w["time_distributed_1"]
scale, shift, mean, variance = w["time_distributed_4"]


def dense(x, name):
    return x @ w[name][0] + w[name][1]


def probabilities(layers):
    grammemes, letters = inputs
    spelled = embedding[letters.astype(int)].reshape(*letters.shape[:2], -1)
    spelled = np.maximum(spelled @ kernel + bias, 0) @ last[0] + last[1]
    x = np.concatenate([np.maximum(dense(grammemes, "dense_1"), 0), spelled], axis=-1)
    x = np.maximum(dense(x, "dense_4"), 0)
    for layer in layers:
        x = layer(x)[0]
    x = (dense(x, "time_distributed_2") - mean) / np.sqrt(variance + 1e-3) * scale + shift
    x = np.exp(dense(np.maximum(x, 0), "main_pred"))
    return x / x.sum(axis=-1, keepdims=True)


theirs = tf.function(model)
for gates in ("hard_sigmoid_sixth", "hard_sigmoid_fifth"):
    layers, options = [], {"bidirectional": True, "batch_first": True, "recurrent_activation": gates}
    for arrays in stacks:
        layers.append(fastrnn.from_weights("lstm", arrays, layout="keras", **options))
        layers[-1].freeze()
    best = probabilities(layers)[0, :, 1:].argmax(axis=-1)
    print(gates, *(f"{word} {labels.get_name_by_index(k)}" for word, k in zip(WORDS, best)), sep="; ")
compare(__file__, f"{len(WORDS)} words", lambda: probabilities(layers), lambda: theirs(inputs).numpy())
