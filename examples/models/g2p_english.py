"""Spelling to phonemes in English: the GRU encoder and decoder of g2p-en, the whole model.

The package computes its weights, an .npz, in NumPy. The decoder takes the most likely phoneme of each step and feeds it
back; here a stream carries its state.
"""

# /// script
# dependencies = ["nltk==3.10.4", "inflect==7.6.0"]
#
# [tool.fastrnn]
# package = "g2p-en"
# licence = "Apache-2.0"
# cell = "GRU, encoder and decoder"
# line = 'fastrnn.from_weights("gru", arrays, layout="torch")'
# no-deps = ["g2p-en==2.1.0"] # the package "distance" is for its training
# quick = true
# ///

from types import SimpleNamespace

import nltk
import nltk.corpus

import fastrnn

from comparison import compare

# Without the tagger and the dictionary of known words, which g2p_en would download: the model spells every word.
nltk.download = lambda name: None
nltk.corpus.cmudict = SimpleNamespace(dict=dict)

from g2p_en import G2p

WORDS = "activationist fastest recurrent kernel phoneme grapheme zyzzyva knightly borough onomatopoeia".split()

g2p = G2p()
layers, weights = {}, {}
for part in ("enc", "dec"):
    arrays = weights[part] = [getattr(g2p, f"{part}_{name}") for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    layers[part] = fastrnn.from_weights("gru", arrays, layout="torch")
    layers[part].freeze()
decoder = layers["dec"].stream()


def predict(word):
    _, decoder.state = layers["enc"](g2p.encode(word)[0])
    phonemes, last = [], 2  # 2 begins a word, 3 ends it
    while len(phonemes) < 20:
        last = (g2p.fc_w @ decoder.step(g2p.dec_emb[last]) + g2p.fc_b).argmax()
        if last == 3:
            break
        phonemes.append(g2p.idx2p[last])
    return phonemes


compare(__file__, "10 words", lambda: [predict(word) for word in WORDS], lambda: [g2p.predict(word) for word in WORDS])
x, encoder = g2p.encode(WORDS[0]), layers["enc"]  # (1, 14, 256)
compare(__file__, "encoder, 14 letters", lambda: encoder(x[0])[0], lambda: g2p.gru(x, 14, *weights["enc"])[0])
