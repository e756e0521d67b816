"""The next bit again, by an LSTM of one direction whose targets come one step late."""

import numpy as np

import fastrnn

rng = np.random.default_rng(1)
layer, head = fastrnn.LSTM(1, 16, rng=rng), fastrnn.Linear(16, 2, rng=rng)
optimizer = fastrnn.optim.Adam([layer.params, head.params], lr=0.01)


def bits(n):
    """x (40, n, 1), and as target of each step the label of the step before: the bit of the step itself."""
    drawn = rng.integers(2, size=(40, n))
    labels = np.concatenate([drawn[1:], np.full((1, n), -100)])  # the label of t is the bit of t + 1
    return drawn[..., None].astype(np.float32), np.concatenate([np.full((1, n), -100), labels[:-1]])


for _ in range(300):
    x, targets = bits(32)
    output, _, tape = layer.forward(x)
    logits, head_tape = head.forward(output)
    _, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
    d_output, d_head = head.backward(head_tape, d_logits)
    _, _, d_layer = layer.backward(tape, d_output)
    optimizer.step([d_layer, d_head])
x, targets = bits(500)
print(f"{np.mean(head(layer(x)[0])[1:].argmax(axis=-1) == targets[1:]):.0%}")
