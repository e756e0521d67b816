"""The model of translate.py: an encoder, attention, and a decoder.

Sizes: S characters read, T symbols written, B dates, E embedding, H hidden units, M numbers of the encoder per step.
"""

import training  # first, because NumPy's threads are set there
import numpy as np
from translate_dates import START, SYMBOLS

import fastrnn


class Attention:
    """Attention: for each query the mean of the encoder's outputs, weighted by the softmax of Luong's "general" scores.

    queries (T, B, H), read (S, B, M), of which each sequence's first lengths (B,) steps count -> (T, B, M).
    """

    def __init__(self, H, M, rng, dtype=np.float32):
        self.ask = training.linear(H, M, rng, dtype)
        self.params = self.ask.params

    def __call__(self, queries, read, lengths):
        """The means (T, B, M), the weights (B, T, S), and a tape for `backward`."""
        # 1. map the queries to the encoder's space                           asked   (B, T, M)
        asked, ask_tape = self.ask.forward(queries)
        asked = asked.transpose(1, 0, 2)
        # 2. score each input position                                        scores  (B, T, S)
        scores = asked @ read.transpose(1, 2, 0)
        beyond = np.arange(len(read)) >= lengths[:, None]
        scores[np.broadcast_to(beyond[:, None], scores.shape)] = -np.inf
        # 3. the softmax over the positions                                   weights (B, T, S)
        weights = training.softmax(scores)
        # 4. the weighted means                                               means   (T, B, M)
        means = (weights @ read.transpose(1, 0, 2)).transpose(1, 0, 2)
        return means, weights, (ask_tape, asked, read, weights)

    def backward(self, tape, d_means):
        """d_queries, d_read, and the gradient of `params`."""
        ask_tape, asked, read, weights = tape
        by_sequence, d_means = read.transpose(1, 0, 2), d_means.transpose(1, 0, 2)
        # 4.
        d_weights = d_means @ by_sequence.transpose(0, 2, 1)
        d_read = weights.transpose(0, 2, 1) @ d_means
        # 3.
        d_scores = weights * (d_weights - np.sum(weights * d_weights, axis=2, keepdims=True))
        # 2.
        d_asked = d_scores @ by_sequence
        d_read += d_scores.transpose(0, 2, 1) @ asked
        # 1.
        d_queries, d_params = self.ask.backward(ask_tape, d_asked.transpose(1, 0, 2))
        return d_queries, d_read.transpose(1, 0, 2), d_params


class Encoder:
    """Embeddings, a bidirectional LSTM, and the bridge from its last state to the decoder's first."""

    def __init__(self, E, H, rng, dtype=np.float32):
        self.letters = training.Embedding(128, E, rng, dtype)
        self.reader = fastrnn.LSTM(E, H, bidirectional=True, dtype=dtype, rng=rng)
        self.bridge = training.linear(2 * H, 2 * H, rng, dtype)
        self.parts = [self.letters, self.reader, self.bridge]

    def __call__(self, pairs):
        """The outputs read (S, B, 2H), the decoder's first state (h, c), (1, B, H) each, and a tape for `backward`."""
        # 1. read                                                             read    (S, B, 2H)
        read, (h, _), reader_tape = self.reader.forward(self.letters(pairs.x), lengths=pairs.lengths)
        # 2. both directions' last h, mapped to h and c                       first   (B, 2H)
        bridged, bridge_tape = self.bridge.forward(np.concatenate([h[0], h[1]], axis=1))
        first = np.tanh(bridged)
        state = [half[None] for half in np.split(first, 2, axis=1)]
        return read, state, (pairs.x, reader_tape, bridge_tape, first)

    def backward(self, tape, d_read, d_state):
        """The gradient by `parts`; d_read may be None."""
        x, reader_tape, bridge_tape, first = tape
        # 2.
        d_first = np.concatenate([d[0] for d in d_state], axis=1)
        d_ends, d_bridge = self.bridge.backward(bridge_tape, d_first * (1 - first**2))
        # 1.
        d_h = np.stack(np.split(d_ends, 2, axis=1))
        d_x, _, d_reader = self.reader.backward(reader_tape, d_read, (d_h, None))
        return [self.letters.backward(x, d_x), d_reader, d_bridge]


class Decoder:
    """Embeddings, an LSTM, attention or none, and a head that scores the next symbol.

    Without attention, the decoder knows the input only from its first state.
    """

    def __init__(self, E, H, attention, rng, dtype=np.float32):
        self.symbols = training.Embedding(len(SYMBOLS) + 1, E, rng, dtype)
        self.writer = fastrnn.LSTM(E, H, dtype=dtype, rng=rng)
        self.attention = Attention(H, 2 * H, rng, dtype) if attention else None
        self.combine = training.linear(3 * H if attention else H, H, rng, dtype)
        self.head = training.linear(H, len(SYMBOLS), rng, dtype)
        self.parts = [self.symbols, self.writer, self.combine, self.head]
        if attention:
            self.parts.append(self.attention)

    def __call__(self, last, state, read, lengths):
        """The logits (T, B, 11) of symbols that follow `last` (T, B), and a tape for `backward`."""
        # 1. write                                                            queries (T, B, H)
        queries, _, writer_tape = self.writer.forward(self.symbols(last), state)
        # 2. attend and combine                                               hidden  (T, B, H)
        hidden, _, seen_tape = self.look(queries, read, lengths)
        # 3. score
        logits, head_tape = self.head.forward(hidden)
        return logits, (last, writer_tape, seen_tape, head_tape)

    def look(self, queries, read, lengths):
        """Attention's means combined with the queries (T, B, H), the weights (B, T, S) or None, and a tape."""
        seen, weights, attention_tape = queries, None, None
        if self.attention:
            means, weights, attention_tape = self.attention(queries, read, lengths)
            seen = np.concatenate([queries, means], axis=2)
        combined, combine_tape = self.combine.forward(seen)
        hidden = np.tanh(combined)
        return hidden, weights, (attention_tape, combine_tape, hidden)

    def backward(self, tape, d_logits):
        """d_read, or None without attention, d_state, and the gradient by `parts`."""
        last, writer_tape, (attention_tape, combine_tape, hidden), head_tape = tape
        # 3.
        d_hidden, d_head = self.head.backward(head_tape, d_logits)
        # 2.
        d_seen, d_combine = self.combine.backward(combine_tape, d_hidden * (1 - hidden**2))
        d_queries, d_read, d_attention = d_seen, None, []
        if self.attention:
            d_queries, d_means = np.split(d_seen, [hidden.shape[2]], axis=2)
            d_asking, d_read, d_params = self.attention.backward(attention_tape, d_means)
            d_queries, d_attention = d_queries + d_asking, [d_params]
        # 1.
        d_last, d_state, d_writer = self.writer.backward(writer_tape, d_queries)
        return d_read, d_state, [self.symbols.backward(last, d_last), d_writer, d_combine, d_head, *d_attention]


class Translator:
    """The encoder and the decoder.

    E: embeddings, H: hidden units of each direction and of the decoder.
    """

    def __init__(self, E, H, attention, rng, dtype=np.float32):
        self.encoder = Encoder(E, H, rng, dtype)
        self.decoder = Decoder(E, H, attention, rng, dtype)
        self.parts = [*self.encoder.parts, *self.decoder.parts]

    def gradient(self, pairs):
        """The mean loss in nats, and its gradient by `parts`: each symbol is written after the right one."""
        read, state, encoder_tape = self.encoder(pairs)
        last = np.concatenate([np.full_like(pairs.targets[:1], START), pairs.targets[:-1]])
        logits, decoder_tape = self.decoder(last, state, read, pairs.lengths)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, pairs.targets)
        d_read, d_state, d_decoder = self.decoder.backward(decoder_tape, d_logits)
        return loss, [*self.encoder.backward(encoder_tape, d_read, d_state), *d_decoder]

    def translate(self, pairs):
        """The most probable symbols one after the other (T, B), and the weights (B, T, S) or None."""
        read, state, _ = self.encoder(pairs)
        stream = self.decoder.writer.stream(len(pairs))
        stream.state = state
        written, looked = [np.full(len(pairs), START)], []
        for _ in pairs.targets:
            query = stream.step(self.decoder.symbols(written[-1]))
            hidden, weights, _ = self.decoder.look(query[None], read, pairs.lengths)
            written.append(self.decoder.head(hidden[0]).argmax(axis=1))
            looked.append(weights)
        return np.stack(written[1:]), np.concatenate(looked, axis=1) if self.decoder.attention else None

    def exact(self, pairs):
        """Whether all ten symbols are right, for each pair (B,)."""
        return (self.translate(pairs)[0] == pairs.targets).all(axis=0)
