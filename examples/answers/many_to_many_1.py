"""The next bit of random bits, labelled by an LSTM of one direction and by one of both."""

import numpy as np

import fastrnn


def accuracy(bidirectional):
    rng = np.random.default_rng(1)
    layer = fastrnn.LSTM(1, 16, bidirectional=bidirectional, rng=rng)
    head = fastrnn.Linear(16 * (1 + bidirectional), 2, rng=rng)
    optimizer = fastrnn.optim.Adam([layer.params, head.params], lr=0.01)

    def bits(n):
        drawn = rng.integers(2, size=(41, n))
        return drawn[:-1, :, None].astype(np.float32), drawn[1:]

    for _ in range(300):
        x, targets = bits(32)
        targets[-1] = -100  # the bit after the last one is not in x
        output, _, tape = layer.forward(x)
        logits, head_tape = head.forward(output)
        _, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
        d_output, d_head = head.backward(head_tape, d_logits)
        _, _, d_layer = layer.backward(tape, d_output)
        optimizer.step([d_layer, d_head])
    x, targets = bits(5000)
    return np.mean(head(layer(x)[0])[:-1].argmax(axis=-1) == targets[:-1])


print(f"{accuracy(False):.0%} and {accuracy(True):.0%}")
