"""Six symbols copied through one vector: the share of sequences without an error."""

import numpy as np

import fastrnn

T, V, H, B, rng = 6, 8, 64, 64, np.random.default_rng(1)
one_hot = np.eye(V + 1, dtype=np.float32)  # V is the mark that begins the writing
reader, writer = fastrnn.GRU(V + 1, H, rng=rng), fastrnn.GRU(V + 1, H, rng=rng)
head = fastrnn.Linear(H, V, rng=rng)
optimizer = fastrnn.optim.Adam([reader.params, writer.params, head.params], lr=0.01)
for _ in range(600):
    symbols = rng.integers(V, size=(T, B))
    last = np.concatenate([np.full((1, B), V), symbols[:-1]])
    _, state, reader_tape = reader.forward(one_hot[symbols])
    output, _, writer_tape = writer.forward(one_hot[last], state)
    logits, head_tape = head.forward(output)
    _, d_logits = fastrnn.softmax_cross_entropy(logits, symbols)
    d_output, d_head = head.backward(head_tape, d_logits)
    _, d_state, d_writer = writer.backward(writer_tape, d_output)
    _, _, d_reader = reader.backward(reader_tape, None, d_state)
    gradient = [d_reader, d_writer, d_head]
    fastrnn.optim.clip_by_global_norm(gradient, 1.0)
    optimizer.step(gradient)

symbols = rng.integers(V, size=(T, 1000))
stream, written = writer.stream(1000), [np.full(1000, V)]
stream.state = reader(one_hot[symbols])[1]
for _ in range(T):
    written.append(head(stream.step(one_hot[written[-1]])).argmax(axis=1))
print(f"{np.mean((np.array(written[1:]) == symbols).all(axis=0)):.0%}")
