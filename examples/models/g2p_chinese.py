"""Chinese characters to pinyin: the bidirectional LSTM of g2pM, the whole model.

The package computes its weights, a pickle of arrays named as in a state_dict of PyTorch, in NumPy and in float64.
"""

# /// script
# dependencies = ["g2pM==0.1.2.5"]
#
# [tool.fastrnn]
# package = "g2pM"
# licence = "Apache-2.0"
# cell = "LSTM, bidirectional"
# line = 'fastrnn.from_state_dict(state_dict, "lstm", batch_first=True)'
# quick = true
# ///

import pickle
from pathlib import Path

import numpy as np

import fastrnn

from comparison import compare

from g2pM import g2pM

SENTENCE = "然而,他红了20年以后,他竟退出了大家的视线。银行行长还得还钱,长大了觉得很重要。"

state_dict = pickle.loads(Path(g2pM.__file__).with_name("np_ckpt.pkl").read_bytes())
layer = fastrnn.from_state_dict(state_dict, "lstm", batch_first=True)
layer.freeze()


class Theirs(g2pM.G2pM):
    def fc_layer(self, inputs):
        self.logits = super().fc_layer(inputs)
        return self.logits


class Ours(Theirs):
    def predict(self, inputs, target_idx):
        output, _ = layer(self.get_embedding(inputs))
        return np.argmax(self.fc_layer(output[0, target_idx]), axis=1)


def pinyin(model):
    return model(SENTENCE), model.logits


ours, theirs = Ours(), Theirs()
compare(__file__, f"{len(SENTENCE)} characters", lambda: pinyin(ours), lambda: pinyin(theirs), tolerance=1e-4)
