"""examples/many_to_many.py: its labels, its gradients, and the advantage of both directions."""

import numpy as np
import pytest

import many_to_many
from test_training import finite_differences

TEXT = '''\
def f(x, index=0x1F):
    """Doc
    string."""
    # note é
    y = """not
a doc""" if x in index else g.h(x)
class A: pass
'''
LETTERS = dict(zip(" .knCD9sdc", range(10)))
LABELS = """\
kkk D.n. nnnnn.9999..
    dddddd
dddddddddddddd
    cccccccc
    n . ssssss
ssssssss kk n kk nnnnn kkkk n.C.n.
kkkkk D. kkkk
"""


def test_labels():
    source = many_to_many.label(TEXT)
    wanted = np.array([LETTERS[letter] for letter in LABELS.replace("\n", " ")])
    # the ends of lines within strings belong to them
    within = [at for at in range(len(TEXT)) if TEXT[at] == "\n" and TEXT[:at].count('"""') % 2]
    wanted[within] = many_to_many.DOCSTRING, many_to_many.STRING
    np.testing.assert_array_equal(source.classes, wanted)
    assert source.place[TEXT.index("index") :][:6].tolist() == [0, 1, 2, 3, 4, 0]
    assert source.ids[TEXT.index("é")] == many_to_many.OTHER


def test_lines_end_where_the_tokenizer_ends_them():
    source = many_to_many.label("x = 1\f\ndef g(): pass\n")
    assert source.classes[7:10].tolist() == [many_to_many.KEYWORD] * 3


@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_by_finite_differences(bidirectional):
    rng = np.random.default_rng(0)
    model = many_to_many.Labeller(2, 2, bidirectional, rng, np.float64)
    ids, classes = rng.integers(many_to_many.V, size=(4, 2)), rng.integers(10, size=(4, 2))
    _, gradient = model.gradient(ids, classes)
    for part, d_params in zip(model.parts, gradient, strict=True):
        expected = finite_differences(part.params.flat, lambda: model.gradient(ids, classes)[0])
        np.testing.assert_allclose(d_params.flat, expected, rtol=1e-6, atol=1e-9)


def test_only_who_reads_on_knows_what_will_be_called(quick):
    numbers, folder = quick("many_to_many")
    ways = numbers["forward"], numbers["in both directions"]
    forward, both = ({name: np.mean(rates) for name, rates in way.items()} for way in ways)
    assert both["all"] < 0.1 and both["all"] < 0.75 * forward["all"]
    assert both["call"] < 0.3 < 0.5 < forward["call"]
    assert both["1st of keyword"] < 0.8 * forward["1st of keyword"]
    assert both["name"] < forward["name"]
    # earlier characters decide: both are right
    assert max(forward["space"], both["space"]) < 0.02
    for name in "many_to_many_errors.png", "many_to_many_snippet.png":
        assert 20_000 < (folder / name).stat().st_size < 150_000
