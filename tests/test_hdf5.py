"""`fastrnn._hdf5` beside h5py: the same groups, texts and arrays, and errors for files that are damaged."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth import DEPTH
from fastrnn import _hdf5

h5py = pytest.importorskip("h5py")

DTYPES = ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"]


def opened(data):
    return _hdf5.File(io.BytesIO(data), len(data)).root


def written(write):
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        write(file)
    return memory.getvalue()


def same(ours, theirs):
    """Whether the group has the members, the texts and the numbers that h5py sees."""
    assert sorted(ours.links) == sorted(theirs)
    assert set(ours.attributes) == set(theirs.attrs)
    for name, value in theirs.attrs.items():
        if isinstance(value, np.ndarray):
            assert _hdf5.names_in(ours, name) == [v.decode() if isinstance(v, bytes) else v for v in value.tolist()]
        else:
            assert _hdf5.attribute(ours, name) == (value.decode() if isinstance(value, bytes) else value)
    for name, member in theirs.items():
        if isinstance(member, h5py.Group):
            same(_hdf5.child(ours, name), member)
        else:
            weight = _hdf5.dataset_in(ours, name)
            array = weight.read()
            assert weight.shape == member.shape and weight.place == member.name[1:]
            assert array.dtype == member.dtype.newbyteorder("=") and array.flags.writeable
            np.testing.assert_array_equal(array, member[()])


def fill(group, rng, depth):
    """Random members and attributes."""
    letters = np.array(list("abcxyz019_é:"))
    for _ in range(rng.integers(0, 4)):
        name = "".join(rng.choice(letters, rng.integers(1, 12)))
        texts = ["".join(rng.choice(letters, rng.integers(0, 300))) for _ in range(rng.integers(1, 5))]
        form = rng.integers(4)
        if form == 0:
            group.attrs[name] = texts[0]
        elif form == 1:
            group.attrs[name] = texts[0].encode() or b"x"
        elif form == 2:
            group.attrs[name] = [text.encode() for text in texts]
        else:
            group.attrs[name] = np.array([text.encode() + b"x" for text in texts], "S")
    count = rng.choice([0, 1, 3, 20])
    for k in range(count):
        of_name = letters if count < 8 else letters[letters != "é"]  # with which many links have another form
        name = f"{k}_{''.join(rng.choice(of_name, rng.integers(1, 12)))}"
        if depth and rng.random() < 0.4:
            fill(group.create_group(name), rng, depth - 1)
        else:
            shape = tuple(rng.integers(0, 4, rng.integers(0, 4)))
            group[name] = rng.standard_normal(shape).astype(rng.choice(DTYPES))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40 * DEPTH)
def test_random_files(seed):
    data = written(lambda file: fill(file, np.random.default_rng(seed), 3))
    with h5py.File(io.BytesIO(data)) as file:
        same(opened(data), file)


def test_many_members_and_texts():
    """Symbol tables of more than one level, heaps of more than one block, headers that are continued."""

    def write(file):
        for k in range(700):
            file.create_group(f"layer_{k}").attrs["weight_names"] = [f"layer_{k}/{leaf}".encode() for leaf in "abc"]
        for k in range(60):
            file.attrs[f"text_{k}"] = "long " * 500 + str(k)
        file.attrs["huge"] = b"x" * 500000

    data = written(write)
    root = opened(data)
    with h5py.File(io.BytesIO(data)) as file:
        same(root, file)
    assert len(root.links) == 700


def test_forms_that_are_refused():
    def refused(message, write, read, **options):
        memory = io.BytesIO()
        with h5py.File(memory, "w", **options) as file:
            write(file)
        with pytest.raises(ValueError, match=message):
            read(opened(memory.getvalue()))

    def add_group(file):
        file.create_group("a")

    refused("superblock: version 3: a form of HDF5 that Keras does not write", add_group, list, libver="latest")
    refused("superblock: a base address of 512|not an HDF5 file", add_group, list, userblock_size=512)
    refused("a: object header of version", lambda file: file.create_group("a", track_order=True),
            lambda root: _hdf5.child(root, "a").links)  # fmt: skip
    refused("expected text", lambda file: file.attrs.__setitem__("a", 5), lambda root: _hdf5.attribute(root, "a"))
    refused("expected text", lambda file: file.attrs.__setitem__("a", ["x"]), lambda root: _hdf5.attribute(root, "a"))
    refused(
        "expected a list of names",
        lambda file: file.attrs.__setitem__("a", "x"),
        lambda root: _hdf5.names_in(root, "a"),
    )
    refused("a group with many links of another kind", lambda file: [file.create_group(f"é{k}") for k in range(20)],
            lambda root: root.links)  # fmt: skip
    refused("'b': missing", add_group, lambda root: _hdf5.child(root, "a/b"))
    refused("a: not contiguous", lambda file: file.create_dataset("a", data=np.zeros((4, 4)), chunks=(2, 2)),
            lambda root: _hdf5.dataset_in(root, "a"))  # fmt: skip
    for dtype in ("i4", "u8", "c8", "S4", bool, np.longdouble):
        array = np.zeros(3, dtype)
        refused("a: expected float16, float32 or float64", lambda file: file.create_dataset("a", data=array),
                lambda root: _hdf5.dataset_in(root, "a"))  # fmt: skip


def visit(node, depth=0):
    """Read all that there is."""
    for name in node.attributes:
        try:
            _hdf5.names_in(node, name)
        except ValueError:
            pass
    if depth < 20 and node.is_group:
        for name in node.links:
            member = _hdf5.child(node, name)
            if member.is_dataset:
                assert _hdf5.dataset_in(node, name).read().nbytes <= node.file.size
            else:
                visit(member, depth + 1)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files(seed):
    """Whatever the bytes are, nothing but a ValueError comes out, and soon."""
    rng = np.random.default_rng(seed)

    def write(file):
        fill(file, rng, 2)
        file.attrs["names"] = [b"one", b"two"]
        file["group/data"] = np.ones((3, 4), np.float32)

    data = written(write)
    outcomes = {"read": 0, "refused": 0}
    meaningful = np.flatnonzero(np.frombuffer(data, np.uint8))  # most bytes are zeros that nobody reads
    for _ in range(200 * DEPTH):
        changed = bytearray(data)
        if rng.random() < 0.1:
            del changed[rng.integers(len(changed)) :]
        else:
            for place in rng.choice(meaningful, rng.integers(1, 4)):
                changed[place] = rng.choice([0, 1, 255, rng.integers(256)])
        try:
            visit(opened(bytes(changed)))
            outcomes["read"] += 1
        except ValueError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 0


def test_structures_that_lead_back():
    def write(file):
        for k in range(300):
            file.create_group(f"{k}")

    data = bytearray(written(write))
    tree = data.index(b"TREE")
    while data[tree + 5] != 1:  # a node above others
        tree = data.index(b"TREE", tree + 1)
    first = tree + 24 + 8
    changed = data.copy()
    changed[first + 16 : first + 24] = changed[first : first + 8]  # the same child twice
    with pytest.raises(ValueError, match="damaged: .*a symbol table that leads back to itself"):
        opened(bytes(changed)).links  # noqa: B018
    changed = data.copy()
    changed[first : first + 8] = tree.to_bytes(8, "little")
    with pytest.raises(ValueError, match="damaged: .*a symbol table that leads back to itself"):
        opened(bytes(changed)).links  # noqa: B018
    file = _hdf5.File(io.BytesIO(data), len(data))
    with pytest.raises(ValueError, match="more structures than are read"):
        for _ in range(_hdf5.MOST_READS):
            file.read(0, 1, "byte")
