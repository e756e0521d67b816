"""The text of char_lm.py: characters as indices, cut into streams and windows.

The text is cut into B streams, read in parallel in windows of T characters; the state is carried from window to window
while gradients stop at a window's edge (truncated backpropagation through time). The last twentieth of the text is held
out for evaluation.
"""

import hashlib
from pathlib import Path

from training import Failure  # first, because NumPy's threads are set there
import numpy as np


class Text:
    """The characters as indices into the vocabulary: `train`, and `held_out`, the last twentieth."""

    def __init__(self, characters):
        codes = np.frombuffer(characters.encode("utf-32-le"), np.uint32)
        distinct, ids = np.unique(codes, return_inverse=True)
        self.vocabulary = "".join(map(chr, distinct))
        self.sha256 = hashlib.sha256(codes).hexdigest()
        self.ids = ids
        self.train, self.held_out = np.split(ids, [len(ids) - len(ids) // 20])

    def encode(self, characters):
        unknown = sorted(set(characters) - set(self.vocabulary))
        if unknown:
            raise Failure(f"--prompt: {unknown[0]!r} does not occur in the text")
        return np.array([self.vocabulary.index(character) for character in characters])

    def decode(self, ids):
        return "".join(self.vocabulary[i] for i in ids)

    def window(self, k, T, B):
        """Inputs (T, B), targets (T, B), and whether the window is the first of a pass."""
        length = (len(self.train) - 1) // B  # of each stream
        k %= length // T
        here = slice(k * T, (k + 1) * T)
        inputs = self.train[: B * length].reshape(B, length)[:, here].T
        targets = self.train[1 : B * length + 1].reshape(B, length)[:, here].T
        return inputs, targets, k == 0


def read_text(path, T, B):
    if path is None:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise Failure("this Python comes without pydoc_data.topics: give a --text") from None
        characters = "".join(topics[name] for name in sorted(topics))
    else:
        try:
            characters = Path(path).read_bytes().decode("utf-8")
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise Failure(f"{path}: not UTF-8 at byte {error.start}") from None
    # B streams of T characters and one last target, once a twentieth of at least 2 is held out
    least = max(40, B * T + 1 + B * T // 19)
    if len(characters) < least:
        name = path or "pydoc_data.topics"
        found = f"{len(characters):,} characters" if characters else "no text"
        raise Failure(f"{name}: {found}; --batch {B} --unroll {T} needs at least {least:,}")
    return Text(characters)
