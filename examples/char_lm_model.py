"""The model of char_lm.py: embedding, LSTM layers, linear head; its cost on a text, and its samples.

Sizes: T steps, B streams, V distinct characters, E embedding, H hidden, L layers.
A gradient is named after its array: d_logits, d_embedding.
"""

import math

import training  # noqa: F401, before NumPy: it sets NumPy's threads
import numpy as np

import fastrnn

BITS = 1 / math.log(2)  # bits per nat


class CharModel:
    """Embedding, LSTM layers, linear head, softmax cross-entropy.

    The embedding is a linear layer without bias on the one-hot vectors of the characters. So its gradient is a product
    of the kernels, too, with one order of its sums.
    """

    def __init__(self, V, E, H, layers=1, *, dtype=np.float32, rng=None):
        rng = np.random.default_rng(rng)
        self.lstm = fastrnn.LSTM(E, H, layers, dtype=dtype, rng=rng)
        self.embedding = fastrnn.Linear(V, E, bias=False, dtype=dtype, rng=0)
        self.embedding.params["weight"][...] = rng.normal(size=(V, E)).T
        self.head = fastrnn.Linear(H, V, dtype=dtype, rng=0)
        self.head.params["weight"][...] = rng.uniform(-1, 1, size=(V, H)) / math.sqrt(H)
        self.head.params["bias"][...] = 0
        self.one_hot = np.eye(V, dtype=dtype)

    @property
    def params(self):
        """Every parameter, of the embedding, the LSTM and the head."""
        return [self.embedding.params, self.lstm.params, self.head.params]

    def gradient(self, inputs, targets, state, fraction=1.0):
        """inputs, targets (T, B), state (h, c) -> mean loss in nats, state, its gradient by `params`.

        Loss and gradient are multiplied by `fraction`, the part that the B streams are of all.
        """
        # 1. embed                                                        x      (T, B, E)
        x, embedding_tape = self.embedding.forward(self.one_hot[inputs])
        # 2. read                                                         output (T, B, H)
        output, state, tape = self.lstm.forward(x, state)
        # 3. score                                                        logits (T, B, V)
        logits, head_tape = self.head.forward(output)
        # 4. compare, forward and backward
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, targets)
        d_logits *= fraction
        # 3. the head
        d_output, d_head = self.head.backward(head_tape, d_logits)
        # 2. the LSTM
        d_x, _, d_lstm = self.lstm.backward(tape, d_output)
        # 1. each character's embedding sums the gradients at its positions
        _, d_embedding = self.embedding.backward(embedding_tape, d_x)
        return fraction * loss, state, [d_embedding, d_lstm, d_head]

    def embed(self, inputs):
        """inputs (...) -> their embeddings (..., E)."""
        return np.ascontiguousarray(self.embedding.params["weight"].T)[inputs]

    def predict(self, inputs, state):
        """inputs (T, B) -> the logits of the next characters (T, B, V), state."""
        output, state = self.lstm(self.embed(inputs), state)
        return self.head(output), state


def bits_per_character(model, ids, shortest=16384):
    """The cost of reading `ids` (n,) once from beginning to end, with the state carried.

    Every character but the first is predicted from all before it. A long text is read as several parallel streams, none
    shorter than `shortest`; the remainder of the division is left out.
    """
    n = len(ids) - 1
    B = max(1, n // shortest)
    inputs = ids[: n // B * B].reshape(B, -1).T
    targets = ids[1 : n // B * B + 1].reshape(B, -1).T
    T = max(1, 4096 // B)
    total, state = 0.0, None
    for start in range(0, len(inputs), T):
        logits, state = model.predict(inputs[start : start + T], state)
        loss, _ = fastrnn.softmax_cross_entropy(logits, targets[start : start + T])
        total += loss * logits[..., 0].size
    return total / targets.size * BITS


def sample(model, prompt, samples, length, temperature, rng):
    """Continues prompt (P,) by `length` characters, `samples` times; returns ids (P + length, S)."""
    ids = np.repeat(np.asarray(prompt)[:, None], samples, axis=1)
    written, state = [ids], None
    for _ in range(length):
        logits, state = model.predict(ids, state)
        scores = logits[-1].astype(np.float64)  # (S, V)
        scores -= scores.max(axis=1, keepdims=True)
        with np.errstate(over="ignore"):
            scores /= temperature
        # the largest of score + Gumbel noise is a draw from softmax(scores)
        ids = np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)[None]
        written.append(ids)
    return np.concatenate(written)
