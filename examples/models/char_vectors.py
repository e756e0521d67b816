"""Vectors of words from their spelling: the two LSTMs of chars2vec, the whole model, for its smallest and largest size.

The weights are of Keras 2.2, whose LSTM has the hard sigmoid 0.2 x + 0.5 by default; that of Keras 2.15 has the
sigmoid. The package names neither, so that its vectors depend on the version that is installed. Both are compared. The
zeros before shorter words are computed like letters.
"""

# /// script
# dependencies = ["tensorflow-cpu==2.15.1"]
#
# [tool.fastrnn]
# package = "chars2vec"
# licence = "Apache-2.0"
# cell = "LSTM, 2 layers, hard sigmoid 0.2 x + 0.5"
# line = 'fastrnn.from_keras(weights, name, recurrent_activation=gates, activation="tanh")'
# no-deps = ["chars2vec==0.1.7"]
# ///

from functools import partial

import keras
import numpy as np
import tensorflow as tf

import fastrnn

from comparison import compare, file_of

import chars2vec

WORDS = "mechanical mecbanical natural language understanding undrestanding recurrent network netwrok vector".split()
LSTM = keras.layers.LSTM


def one_hot(model, words):
    x = np.zeros((len(words), max(map(len, words)), model.vocab_size), np.float32)
    for row, word in zip(x, words):
        for place, letter in zip(row[-len(word) :], word):
            place[model.char_to_ix[letter]] = 1
    return x


for size in (50, 300):
    weights = file_of("chars2vec", f"chars2vec/trained_models/eng_{size}/weights.h5")
    for gates, theirs in {"hard_sigmoid_fifth": "hard_sigmoid", "sigmoid": "sigmoid"}.items():
        keras.layers.LSTM = partial(LSTM, recurrent_activation=theirs)
        model = chars2vec.load_model(f"eng_{size}")
        compiled = tf.function(model.embedding_model)
        layers = []
        for name in ("lstm_1", "lstm_2"):
            layers.append(fastrnn.from_keras(weights, name, recurrent_activation=gates, activation="tanh"))
            layers[-1].freeze()
        x = one_hot(model, WORDS)
        what = f"{len(WORDS)} words to {size} numbers, {theirs}"
        compare(__file__, what, lambda: layers[1](layers[0](x)[0])[1][0][0], lambda: compiled(x).numpy())
