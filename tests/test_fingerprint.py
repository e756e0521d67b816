"""The fingerprint that detects a changed x: no change of few bits is missed, at any position."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from fastrnn import _core

# Bits of a word of 8 bytes that are hard to hash: signs and exponents of a float64 and of two float32, and bit 63 after
# a shift.
HARD_BITS = [63, 62, 55, 54, 53, 52, 51, 34, 32, 31, 30, 29, 24, 23, 22, 2, 1, 0]


def numbers(words, seed=0):
    """Random float64, and the same memory as 8-byte words."""
    x = np.random.default_rng(seed).standard_normal(words)
    return x, x.view(np.uint64)


def assert_noticed(x, words, changes):
    """Each change is a list of distinct (word, bit)."""
    before = _core.fingerprint(x)
    for change in changes:
        for word, bit in change:
            words[word] ^= 1 << bit
        assert _core.fingerprint(x) != before, change
        for word, bit in change:
            words[word] ^= 1 << bit
    assert _core.fingerprint(x) == before


def test_every_change_of_one_or_two_bits():
    x, words = numbers(5)
    bits = list(itertools.product(range(len(words)), range(64)))
    assert_noticed(x, words, [[one] for one in bits] + list(itertools.combinations(bits, 2)))


def test_a_sign_and_two_bits_of_the_word_32_bytes_on():
    """A multiplication by an odd number keeps bit 63, and a shift by 29 turns it into bits 63 and 34."""
    x, words = numbers(64)
    assert_noticed(x, words, [[(1, 63), (5, 63), (5, 34)]])
    pairs = [(k, k + distance) for distance in range(1, 17) for k in range(len(words) - distance)]
    assert_noticed(x, words, [[(k, 63), (far, 63), (far, bit)] for k, far in pairs for bit in (31, 34, 62)])


@pytest.mark.parametrize("flips", [3, 4])
def test_changes_of_three_and_four_bits_of_nearby_words(flips):
    rng = np.random.default_rng(flips)
    x, words = numbers(300)
    changes = []
    for _ in range(30_000):
        first, width = rng.integers(0, len(words) - 16), rng.integers(1, 17)
        near = list(itertools.product(range(first, first + width), HARD_BITS))
        changes.append([near[k] for k in rng.choice(len(near), flips, replace=False)])
    assert_noticed(x, words, changes)


@pytest.mark.parametrize("words", [1, 2, 7, 16, 130, 1000])
@pytest.mark.parametrize("value", [0.0, 1.0, -np.inf])
def test_equal_numbers(words, value):
    """Equal changes in two words, and exchanged neighbouring words."""
    x, as_words = numbers(words)
    x[...] = value
    rng = np.random.default_rng(0)
    pairs = {tuple(sorted(rng.choice(words, 2, replace=False))) for _ in range(300)} if words > 1 else []
    assert_noticed(x, as_words, [[(k, bit), (m, bit)] for k, m in pairs for bit in HARD_BITS])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_signs(dtype):
    x = np.random.default_rng(0).standard_normal(21).astype(dtype)
    before = _core.fingerprint(x)
    for flips in range(1, 5):
        for places in itertools.combinations(range(len(x)), flips):
            x[list(places)] *= -1
            assert _core.fingerprint(x) != before, places
            x[list(places)] *= -1
    assert _core.fingerprint(x) == before


def test_every_length_and_every_number_of_it():
    """Lengths of 4 bytes up to three blocks of the hash; numbers before and after the array do not matter."""
    memory = np.random.default_rng(0).standard_normal(800).astype(np.float32)
    seen = set()
    for n in range(len(memory) - 2):
        x = memory[1 : n + 1]
        before = _core.fingerprint(x)
        seen.add(before)
        for k in {*range(0, n, 61), *range(max(0, n - 5), n)}:
            x[k] = -x[k]
            assert _core.fingerprint(x) != before, (n, k)
            x[k] = -x[k]
        memory[[0, n + 1]] += 1
        assert _core.fingerprint(x) == before
    assert len(seen) == len(memory) - 2
    assert len({_core.fingerprint(np.zeros(n, np.float32)) for n in range(800)}) == 800


def test_words_that_change_places():
    x, _ = numbers(400)
    seen = {_core.fingerprint(x)}
    for distance in (1, 2, 3, 4, 16, 32, 64, 128, 256):
        for k in range(0, len(x) - distance, 7):
            y = x.copy()
            y[[k, k + distance]] = y[[k + distance, k]]
            seen.add(_core.fingerprint(y))
    expected = 1 + sum(len(range(0, len(x) - distance, 7)) for distance in (1, 2, 3, 4, 16, 32, 64, 128, 256))
    assert len(seen) == expected


def test_memory_of_any_alignment():
    memory = np.random.default_rng(0).standard_normal(401).astype(np.float32)
    x = memory[1:]
    assert _core.fingerprint(x) == _core.fingerprint(x.copy())


def test_each_process_has_a_key_of_its_own():
    code = "import numpy as np; from fastrnn import _core; print(_core.fingerprint(np.ones(9)))"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120) for _ in range(3)]
    assert len({int(run.stdout) for run in runs}) == 3
