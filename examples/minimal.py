"""A character model of a text, trained and sampled in a few lines: layer, head, loss, clipping and optimizer.

    python examples/minimal.py                  # learns this file
    python examples/minimal.py --text book.txt --steps 2000

Every number is computed by fastrnn, so that a run has the same bits with any number of threads.
"""

import argparse
from pathlib import Path

import numpy as np

import fastrnn

SEQUENCES, STEPS_OF_A_PIECE, HIDDEN = 16, 50, 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, default=Path(__file__), help="the file to learn (default: this program)")
    parser.add_argument("--steps", type=int, default=600, help="training steps (default: 600)")
    arguments = parser.parse_args()

    text = arguments.text.read_text(encoding="utf-8")
    letters = sorted(set(text))
    ids = np.array([letters.index(letter) for letter in text])
    one_hot = np.eye(len(letters), dtype=np.float32)

    layer = fastrnn.LSTM(len(letters), HIDDEN, rng=0)
    head = fastrnn.Linear(HIDDEN, len(letters), rng=1)
    optimizer = fastrnn.optim.Adam([layer.params, head.params], lr=3e-3)
    rng = np.random.default_rng(2)
    for step in range(1, arguments.steps + 1):
        starts = rng.integers(0, len(ids) - STEPS_OF_A_PIECE, SEQUENCES)
        pieces = ids[starts + np.arange(STEPS_OF_A_PIECE + 1)[:, None]]  # (T + 1, B)
        output, _, tape = layer.forward(one_hot[pieces[:-1]])
        logits, head_tape = head.forward(output)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, pieces[1:])
        d_output, d_head = head.backward(head_tape, d_logits)
        _, _, d_layer = layer.backward(tape, d_output)
        fastrnn.optim.clip_by_global_norm([d_layer, d_head], 1.0)
        optimizer.step([d_layer, d_head])
        if step % 100 == 0 or step == arguments.steps:
            print(f"step {step}: {loss / np.log(2):.2f} bits per character")

    stream, letter, sample = layer.stream(), ids[0], letters[ids[0]]
    for _ in range(300):
        scores = head(stream.step(one_hot[letter])).astype(np.float64)
        letter = np.argmax(scores / 0.5 + rng.gumbel(size=len(letters)))  # softmax with a temperature of 0.5
        sample += letters[letter]
    print(sample)


if __name__ == "__main__":
    main()
