"""The loss of a name without an image, in bits: a model that spells cannot be better than log2(10)."""

import numpy as np

import fastrnn

NAMES = [name + "." for name in "zero one two three four five six seven eight nine".split()]
ALPHABET = "".join(sorted(set("".join(NAMES))))
targets, lengths = fastrnn.pad([np.array([[ALPHABET.index(letter)] for letter in name]) for name in NAMES])
targets = targets[..., 0]  # (6, 10)
before = np.concatenate([np.zeros((1, 10), int), targets[:-1]])  # "." also begins a name
x = np.eye(len(ALPHABET), dtype=np.float32)[before]
targets[np.arange(len(targets))[:, None] >= lengths] = -100

layer, head = fastrnn.LSTM(len(ALPHABET), 32, rng=1), fastrnn.Linear(32, len(ALPHABET), rng=2)
optimizer = fastrnn.optim.Adam([layer.params, head.params], lr=0.01)
for _ in range(500):
    output, _, tape = layer.forward(x, lengths=lengths)
    logits, head_tape = head.forward(output)
    loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
    d_output, d_head = head.backward(head_tape, d_logits)
    _, _, d_layer = layer.backward(tape, d_output)
    optimizer.step([d_layer, d_head])
print(f"{loss * lengths.sum() / 10 / np.log(2):.2f}")
