"""Words of Thai, which is written without spaces: the three GRUs and the output layer of cutkum, the whole model.

The weights are constants of a frozen graph of TensorFlow 1. The reset gate of its GRUCell comes before the product. The
package imports tensorflow.contrib, which is gone, for its training only.
"""

# /// script
# dependencies = ["tensorflow-cpu==2.15.1", "setuptools==80.9.0"]
#
# [tool.fastrnn]
# package = "cutkum"
# licence = "MIT"
# cell = "GRU, 3 layers, reset gate before the product"
# line = 'fastrnn.from_weights("gru", arrays, layout="tf1")'
# no-deps = ["cutkum==2.4"]
# ///

import sys
from types import ModuleType

import numpy as np
import tensorflow

import fastrnn

from comparison import compare

tf = sys.modules["tensorflow"] = tensorflow.compat.v1
for name in ("contrib", "contrib.layers", "contrib.rnn"):
    sys.modules[f"tensorflow.{name}"] = ModuleType(name)
tf.contrib = sys.modules["tensorflow.contrib"]
tf.contrib.layers = tf.contrib.rnn = None
from cutkum.tokenizer import Cutkum

TEXT = "สารานุกรมไทยสำหรับเยาวชนฯ"
model = Cutkum()
nodes = model.graph.as_graph_def().node
constants = {node.name: tensorflow.make_ndarray(node.attr["value"].tensor) for node in nodes if node.op == "Const"}
layers = []
for k in range(3):
    cell = f"prefix/rnn/multi_rnn_cell/cell_{k}/gru_cell/"
    arrays = [constants[cell + name] for name in ("gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias")]
    layers.append(fastrnn.from_weights("gru", arrays, layout="tf1"))
    layers[-1].freeze()
weights, biases = (constants[f"prefix/fully_connected/{name}"] for name in ("weights", "biases"))
session = tf.Session(graph=model.graph)  # the package makes one for each sentence


def ours(one_hot):
    x = one_hot[:, 0]
    for layer in layers:
        x = layer(x)[0]
    x = np.exp(1 / (1 + np.exp(-(x @ weights + biases))))  # the softmax of a sigmoid
    return x / x.sum(axis=1, keepdims=True)


def theirs(one_hot):
    v, state = model.model_vars, np.zeros((1, 1, model.model_settings["total_cells"]))
    feed = {v["inputs"]: one_hot, v["fw_state"]: state, v["seq_lengths"]: [len(one_hot)], v["keep_prob"]: 1.0}
    return session.run(v["probs"], feed)[:, 0]


def words(probabilities):
    model._process_sentence = probabilities
    return model.tokenize(TEXT)


one_hot = np.eye(80, dtype=np.float32)[model.char_dict.chars2cids(TEXT)][:, None]
compare(__file__, f"{len(TEXT)} letters", lambda: ours(one_hot), lambda: theirs(one_hot))
compare(__file__, "words of them, with the package's Viterbi search", lambda: words(ours), lambda: words(theirs))
