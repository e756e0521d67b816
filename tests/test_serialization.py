"""fastrnn.save and fastrnn.load: exact round trips, atomic writes, and errors for damaged files."""

import copy
import json
import os
import pickle
import re
import stat
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

import fastrnn
from fastrnn import _files, serialization
from fastrnn._engine.spec import FORMAT_VERSION, OPTIONS
from fastrnn.serialization import NEWEST_VERSION

pytest.importorskip("safetensors")
from safetensors.numpy import load_file, save_file

I, H, L = 3, 4, 2

# Infinities, zeros of both signs, denormals, and NaNs of several signs and payloads.
UNUSUAL = {
    np.float32: np.array(
        [0x7F800000, 0xFF800000, 0x80000000, 1, 0x7FC00000, 0xFFC00001, 0x7F800001, 0xFFFFFFFF, 0x7FABCDEF],
        np.uint32,
    ).view(np.float32),
    np.float64: np.array(
        [0x7FF << 52, 0xFFF << 52, 1 << 63, 1, 0x7FF8 << 48, (0xFFF8 << 48) + 1, (0x7FF << 52) + 1, 2**64 - 1],
        np.uint64,
    ).view(np.float64),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "layer.safetensors"


@pytest.fixture
def layer():
    return fastrnn.LSTM(I, H, L, rng=1)


def assert_same_layer(actual, expected):
    assert type(actual) is type(expected) and actual is not expected
    assert actual._constructor_arguments() == expected._constructor_arguments()
    assert list(actual.params) == list(expected.params)
    assert actual.params.flat.dtype == expected.params.flat.dtype
    assert actual.params.flat.tobytes() == expected.params.flat.tobytes()


# Round trips


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_round_trip(path, num_layers, bias, batch_first, dtype):
    layer = fastrnn.LSTM(I, H, num_layers, bias, batch_first, dtype=dtype, rng=1)
    assert fastrnn.save(path, layer) is None
    other = fastrnn.load(path)
    assert_same_layer(other, layer)
    assert repr(other) == repr(layer)
    x = np.random.default_rng(0).standard_normal((5, 2, I))
    assert other(x)[0].tobytes() == layer(x)[0].tobytes()


def test_every_bit_comes_back(path, dtype):
    layer = fastrnn.LSTM(I, H, dtype=dtype, rng=1)
    values = UNUSUAL[dtype]
    layer.params.flat[: values.size] = values
    assert layer.params.flat[: values.size].tobytes() == values.tobytes()
    fastrnn.save(path, layer)
    assert_same_layer(fastrnn.load(path), layer)


def test_arguments_make_the_layer_again(dtype):
    layer = fastrnn.LSTM(np.int64(I), H, np.uint8(L), np.bool_(False), True, 0, dtype=np.dtype(dtype).newbyteorder())
    arguments = layer._constructor_arguments()
    assert json.loads(json.dumps(arguments)) == arguments
    other = fastrnn.LSTM(**arguments)
    assert repr(other) == repr(layer) and other._constructor_arguments() == arguments


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_kinds_of_path(path, layer, kind):
    fastrnn.save(kind(path), layer)
    assert_same_layer(fastrnn.load(kind(path)), layer)


def test_names_as_long_and_as_strange_as_the_system_allows(tmp_path, layer):
    for name in ("x" * 255, "ä\n b", os.fsdecode(b"\xff.st")):
        fastrnn.save(tmp_path / name, layer)
        assert_same_layer(fastrnn.load(tmp_path / name), layer)


def test_a_relative_path(tmp_path, layer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fastrnn.save("layer", layer)
    assert_same_layer(fastrnn.load("layer"), layer)
    assert os.listdir() == ["layer"]


def test_frozen_layers_come_back_unfrozen(path, layer):
    layer.freeze()
    fastrnn.save(path, layer)
    other = fastrnn.load(path)
    assert layer.frozen and not other.frozen
    other.params.flat += 1
    assert_same_layer(fastrnn.load(path), layer)


def test_the_layer_owns_its_memory(path, layer):
    fastrnn.save(path, layer)
    other = fastrnn.load(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    path.unlink()
    assert_same_layer(other, layer)
    other.params.flat[...] = 0


def test_equal_layers_make_equal_files(tmp_path, layer):
    for k in range(5):
        fastrnn.save(tmp_path / str(k), copy.deepcopy(layer))
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_what_the_file_says(path):
    """The format is stable: later versions must read this version's files."""
    layer = fastrnn.LSTM(1, 1, bias=False)
    layer.params.flat[...] = range(8)
    fastrnn.save(path, layer)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert json.loads(header.pop("__metadata__").pop("fastrnn")) == {
        "format_version": FORMAT_VERSION,
        "class": "LSTM",
        "arguments": {
            "input_size": 1,
            "hidden_size": 1,
            "num_layers": 1,
            "recurrent_activation": "sigmoid",
            "activation": "tanh",
            "clip": None,
            "bias": False,
            "batch_first": False,
            "dropout": 0.0,
            "dropout_per_sequence": False,
            "bidirectional": False,
            "reverse": False,
            "proj_size": 0,
            "peephole": False,
            "dtype": "float32",
        },
    }
    assert header == {
        "weight_hh_l0": {"dtype": "F32", "shape": [4, 1], "data_offsets": [0, 16]},
        "weight_ih_l0": {"dtype": "F32", "shape": [4, 1], "data_offsets": [16, 32]},
    }
    assert data[8 + length :] == struct.pack("<8f", 4, 5, 6, 7, 0, 1, 2, 3)


def test_loading_draws_no_random_numbers(path, layer, monkeypatch):
    states = []

    class LSTM(fastrnn.LSTM):
        def __init__(self, *arguments, rng, **options):
            states.append(str(rng.bit_generator.state))
            super().__init__(*arguments, rng=rng, **options)
            states.append(str(rng.bit_generator.state))

    fastrnn.save(path, layer)
    monkeypatch.setitem(serialization.LAYERS, "LSTM", LSTM)
    assert fastrnn.load(path).params == layer.params
    before, after = states
    assert after == before


def test_another_class_is_a_line_in_the_registry(path, layer, monkeypatch):
    class Other(fastrnn.LSTM):
        pass

    monkeypatch.setitem(serialization.LAYERS, "Other", Other)
    fastrnn.save(path, Other(I, H, rng=1))
    assert_same_layer(fastrnn.load(path), Other(I, H, rng=1))
    monkeypatch.delitem(serialization.LAYERS, "Other")
    with pytest.raises(ValueError, match="class: expected one of LSTM.*, got 'Other'"):
        fastrnn.load(path)


# Other readers


def test_safetensors_reads_the_file(path, layer):
    fastrnn.save(path, layer)
    arrays = load_file(path)
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        name: array.tobytes() for name, array in layer.params.items()
    }


def test_torch_reads_the_file(path, dtype):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file as load_into_torch

    layer = fastrnn.LSTM(I, H, L, dtype=dtype, rng=1)
    fastrnn.save(path, layer)
    oracle = torch.nn.LSTM(I, H, L, dtype={np.float32: torch.float32, np.float64: torch.float64}[dtype])
    oracle.load_state_dict(load_into_torch(path))
    for name, parameter in oracle.named_parameters():
        assert parameter.detach().numpy().tobytes() == layer.params[name].tobytes()


# Arguments


@pytest.mark.parametrize("value", [None, 3, "layer", fastrnn.LSTM, {}, fastrnn.Parameters({})])
def test_what_is_no_layer_is_refused(path, value):
    with pytest.raises(TypeError, match=r"^layer: expected a layer \(LSTM.*\), got "):
        fastrnn.save(path, value)
    assert not path.exists()


def test_subclasses_are_refused(path):
    class LSTM(fastrnn.LSTM):
        pass

    with pytest.raises(TypeError, match=r"^layer: .*got .*test_subclasses.*LSTM$"):
        fastrnn.save(path, LSTM(I, H))


@pytest.mark.parametrize("value", [None, 3, 2.5, [], object()])
def test_what_is_no_path_is_refused(layer, value):
    for call in (lambda: fastrnn.save(value, layer), lambda: fastrnn.load(value)):
        with pytest.raises(TypeError, match="^path: "):
            call()


def test_without_safetensors(path, layer, monkeypatch):
    fastrnn.save(path, layer)
    before = path.read_bytes()
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda: fastrnn.save(path, layer), lambda: fastrnn.load(path)):
        with pytest.raises(ImportError, match="pip install safetensors$"):
            call()
    assert path.read_bytes() == before


def test_the_import_leaves_safetensors_alone():
    code = "import sys, fastrnn; sys.exit('safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


# Writing is all or nothing


class Failed(Exception):
    pass


class Interrupted(BaseException):
    pass


class FailingFile:
    """A file whose write does half of its work."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        raise Failed


@pytest.mark.parametrize("exception", [Failed, Interrupted, OSError, MemoryError])
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("exists", [True, False])
def test_failure_leaves_what_there_was(path, layer, monkeypatch, exception, step, exists):
    if exists:
        fastrnn.save(path, fastrnn.LSTM(1, 1))
    before = {file: file.read_bytes() for file in path.parent.iterdir()}

    def fail(*_):
        assert len(list(path.parent.iterdir())) == len(before) + 1  # the temporary file is in the same directory
        raise exception

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(exception):
            fastrnn.save(path, layer)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
    fastrnn.save(path, layer)
    assert_same_layer(fastrnn.load(path), layer)


def test_errors_name_the_path_that_was_given(path, layer):
    missing = path.parent / "missing" / "layer.safetensors"
    with pytest.raises(FileNotFoundError) as raised:
        fastrnn.save(missing, layer)
    assert raised.value.filename == str(missing)
    for wrong, message in (("", "is empty"), ("a\0b", "has a null character")):
        for call in (lambda: fastrnn.save(wrong, layer), lambda: fastrnn.load(wrong)):
            with pytest.raises(ValueError, match=f"^path: {message}"):
                call()


@pytest.mark.parametrize("exists", [True, False])
def test_a_path_that_names_a_folder(path, layer, exists):
    if exists:
        path.write_bytes(b"kept")
    with pytest.raises(ValueError, match="not a file$"):
        fastrnn.save(f"{path}{os.sep}", layer)
    assert path.read_bytes() == b"kept" if exists else not path.exists()


def test_failure_in_the_middle_of_writing(path, layer, monkeypatch):
    fastrnn.save(path, fastrnn.LSTM(1, 1))
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(_files, "open", lambda *args, **options: FailingFile(open(*args, **options)), raising=False)
        with pytest.raises(Failed):
            fastrnn.save(path, layer)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="folders are opened on POSIX alone")
def test_the_data_are_on_disk_before_the_name_is_and_then_the_name(path, layer, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        status = os.fstat(descriptor)
        is_folder = os.path.samestat(status, path.parent.stat())
        calls.append(("fsync", "folder" if is_folder else status.st_size))
        fsync(descriptor)

    def replaced(source, target):
        calls.append(("replace", os.stat(source).st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    fastrnn.save(path, layer)
    size = path.stat().st_size
    assert calls == [("fsync", size), ("replace", size), ("fsync", "folder")]


def test_a_folder_that_cannot_be_synced_is_no_failure(path, layer, monkeypatch):
    fsync = os.fsync

    def not_of_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError("not of folders")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", not_of_folders)
    fastrnn.save(path, layer)
    assert_same_layer(fastrnn.load(path), layer)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_a_new_file(path, layer, umask):
    before = os.umask(umask)
    try:
        fastrnn.save(path, layer)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o644, 0o666, 0o777, 0o660])
@pytest.mark.parametrize("linked", [False, True])
def test_permissions_of_a_file_that_is_replaced_stay(path, layer, monkeypatch, mode, linked):
    """Other users can never read the new content earlier, for any umask."""
    target = path.with_name("target") if linked else path
    target.write_bytes(b"before")
    target.chmod(mode)
    if linked:
        path.symlink_to(target)
    seen = set()

    def look(*_):
        seen.update(stat.S_IMODE(file.lstat().st_mode) for file in path.parent.glob(".fastrnn-*"))

    class WatchedFile(FailingFile):
        def write(self, data):
            look()
            self.file.write(data[:1])
            self.file.flush()
            look()
            self.file.write(data[1:])

        def __getattr__(self, name):
            look()
            return getattr(self.file, name)

    def opened(*args, **options):
        file = open(*args, **options)
        look()
        return WatchedFile(file)

    replace = os.replace
    monkeypatch.setattr(_files, "open", opened, raising=False)
    monkeypatch.setattr(os, "replace", lambda *names: (look(), replace(*names)))
    before = os.umask(0)
    try:
        fastrnn.save(path, layer)
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == mode and path.is_symlink() == linked
    assert seen and all(other & ~(mode | 0o600) == 0 for other in seen), [oct(other) for other in seen]
    target.chmod(0o600)
    assert_same_layer(fastrnn.load(path), layer)


@pytest.mark.skipif(not hasattr(os, "fchown"), reason="owners of POSIX")
@pytest.mark.parametrize("refused", [(), ("owner",), ("owner", "group")])
def test_the_owner_and_the_group_stay_where_the_system_lets_them(path, layer, monkeypatch, refused):
    """If the group cannot be kept, its members get only the permissions of others: the new group may be larger."""
    path.write_bytes(b"before")
    path.chmod(0o664)
    calls = []

    def fchown(descriptor, user, group):
        calls.append((user, group))
        if user != -1 and "owner" in refused or group != -1 and "group" in refused:
            raise PermissionError

    monkeypatch.setattr(os, "fchown", fchown)
    fastrnn.save(path, layer)
    status = path.stat()
    assert calls == [(status.st_uid, status.st_gid), (-1, status.st_gid)][: 1 + bool(refused)]
    assert stat.S_IMODE(status.st_mode) == (0o644 if "group" in refused else 0o664)


def test_hard_links_keep_the_content_before(tmp_path, path, layer):
    path.write_bytes(b"before")
    other = tmp_path / "other"
    os.link(path, other)
    fastrnn.save(path, layer)
    assert other.read_bytes() == b"before" and path.stat().st_nlink == other.stat().st_nlink == 1
    assert_same_layer(fastrnn.load(path), layer)


def test_through_a_symbolic_link(tmp_path, path, layer):
    folder = tmp_path / "folder"
    folder.mkdir()
    target = folder / "target"
    path.symlink_to(target)
    for _ in range(2):
        fastrnn.save(path, layer)
        assert path.is_symlink() and list(folder.iterdir()) == [target]
        assert_same_layer(fastrnn.load(path), layer)


def test_what_is_no_file_is_not_replaced(tmp_path, layer):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for other in (tmp_path, pipe):
        with pytest.raises(ValueError) as error:
            fastrnn.save(other, layer)
        assert str(error.value) == f"{other}: not a file"
    assert list(tmp_path.iterdir()) == [pipe] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_save_into_a_missing_folder(tmp_path, layer):
    with pytest.raises(FileNotFoundError):
        fastrnn.save(tmp_path / "missing" / "layer", layer)
    assert not list(tmp_path.iterdir())


# Files that cannot be read


def test_a_missing_file(path):
    with pytest.raises(FileNotFoundError) as error:
        fastrnn.load(path)
    assert error.value.filename == str(path)


def test_errors_of_the_system_stay_themselves(path, layer, monkeypatch):
    fastrnn.save(path, layer)
    with pytest.raises(NotADirectoryError):
        fastrnn.load(path / "layer")
    for exception in (PermissionError(13, "no"), OSError(5, "input/output error"), MemoryError()):
        with monkeypatch.context() as patch:

            def refuse(*_):
                raise exception

            patch.setattr(_files, "open", refuse, raising=False)
            with pytest.raises(type(exception)) as error:
                fastrnn.load(path)
            assert error.value is exception


def test_memory_errors_of_the_constructor_stay_themselves(path, layer, monkeypatch):
    class LSTM(fastrnn.LSTM):
        def __init__(self, *_, **__):
            raise MemoryError

    fastrnn.save(path, layer)
    monkeypatch.setitem(serialization.LAYERS, "LSTM", LSTM)
    with pytest.raises(MemoryError):
        fastrnn.load(path)


# Damage


def refused(path, *messages):
    """The message of the ValueError, which starts with the path and contains all of `messages`."""
    with pytest.raises(ValueError) as error:
        fastrnn.load(path)
    text = str(error.value)
    assert text.startswith(f"{path}: "), text
    for message in messages:
        assert message in text, text
    return text


def description(**changes):
    """The JSON of a valid file of the fixture `layer`, with some arguments set; None omits one."""
    arguments = fastrnn.LSTM(I, H, L)._constructor_arguments() | changes
    arguments = {name: value for name, value in arguments.items() if value is not None or name not in changes}
    return {"format_version": FORMAT_VERSION, "class": "LSTM", "arguments": arguments}


def write(path, about, tensors):
    """A file with this description, or text in its place, and these tensors or those of a layer."""
    text = about if isinstance(about, str) else json.dumps(about)
    tensors = tensors.state_dict() if isinstance(tensors, fastrnn.LSTM) else tensors
    save_file(tensors, path, {"fastrnn": text})


def write_raw(path, header, body=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)


def test_the_description_is_right(path, layer):
    write(path, description(), layer)
    assert_same_layer(fastrnn.load(path), layer)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\0" * 8, b"\xff" * 8, b"\xff" * 100, bytes(range(256)), b"{}"],
)
def test_foreign_bytes(path, data):
    path.write_bytes(data)
    refused(path, "damaged, or not a safetensors file")


def test_random_bytes(path):
    for seed in range(50):
        data = np.random.default_rng(seed).bytes(300)
        path.write_bytes(data)
        refused(path)
        path.write_bytes((100).to_bytes(8, "little") + data)
        refused(path)


def test_truncated_files(path):
    fastrnn.save(path, fastrnn.LSTM(1, 1))
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path, "damaged, or not a safetensors file")
    path.write_bytes(data + b"\0")
    refused(path, "damaged, or not a safetensors file")


def test_directories_pipes_and_devices(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for other in (tmp_path, pipe, "/dev/zero"):
        if os.path.exists(other):
            assert refused(other) == f"{other}: not a file"


def test_safetensors_of_somebody_else(path, layer):
    for metadata in (None, {}, {"format": "pt"}):
        save_file(layer.state_dict(), path, metadata)
        refused(path, "not written by fastrnn.save: ", "fastrnn.from_state_dict(fastrnn.load_tensors(path))")
    write_raw(path, {})
    refused(path, "not written by fastrnn.save")
    write_raw(path, {"__metadata__": None})
    refused(path)
    write_raw(path, {"__metadata__": {"fastrnn": 1}})
    refused(path)
    write_raw(path, b'{"a":' + b"[" * 200_000)
    refused(path)


@pytest.mark.parametrize("text", ["", "{", "LSTM", "{'a': 1}", '{"format_version": 1', "\0", "1" * 5000, "import os"])
def test_metadata_that_are_no_json(path, layer, text):
    write(path, text, layer)
    refused(path, "metadata are not JSON")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 4_000, '{"class":' + "[" * 100_000 + "]" * 100_000 + "}"])
def test_deeply_nested_json(path, layer, text):
    write(path, text, layer)
    refused(path, "metadata are not JSON")


@pytest.mark.parametrize("text", ['{"class":"LSTM","class":"GRU"}', '{"a":{"b":1,"b":1}}'])
def test_a_key_that_stands_twice(path, layer, text):
    """Duplicate keys are refused, because readers differ in the one they use."""
    write(path, text, layer)
    refused(path, "metadata are not JSON", "twice")
    tensor = b'"bias_hh_l0":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    write_raw(path, b"{" + tensor + b"," + tensor + b"}", bytes(4))
    refused(path)
    about = b'"__metadata__":{"fastrnn":"{}"}'
    write_raw(path, b"{" + about + b"," + about + b"}")
    refused(path)


PEAK = """
import resource, sys
import fastrnn, safetensors.numpy, json

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

before = peak()
try:
    fastrnn.load(sys.argv[1])
    print("loaded")
except ValueError as error:
    print(error)
print(peak() - before)
"""


def peak_of_load(path):
    """The output of a process that loads the file, and the maximal growth of its memory in bytes."""
    run = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    printed, kibibytes = run.stdout.rsplit("\n", 2)[:2]
    return printed, 1024 * int(kibibytes)


# Headers of about n bytes that take many times their size once they are parsed.
OTHER_FORMATS = {
    "zip": (b"PK\3\4\x14\0\0\0\0\0\0\0\0\0\x21\0", r"a zip archive: .*load_tensors\(path\).*from_keras\(path\)"),
    "pickle": (pickle.dumps({"a": [1, 2, 3]}, 2), r"a pickle: if of torch.save, .*load_tensors\(path\)"),
    "npy": (b"\x93NUMPY\1\0v\0{'descr'", "an array of NumPy, which fastrnn.load_tensors reads"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0", r"an HDF5 file: .*from_keras\(path\)"),
    "onnx": (b"\x08\x0a\x12\x07pytorch\x1a\x062.13.0:", r"an ONNX model: fastrnn.from_onnx\(path\)"),
    "onnx without a producer": (b"\x08\x08:\xc6\x8a\1\x0a\x86\5\x0a", r"an ONNX model: fastrnn.from_onnx\(path\)"),
    "text": (b"weights: 1, 2, 3", "damaged, or not a safetensors file of a layer: a header of"),
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_files_of_other_formats_are_named_with_the_function_that_reads_them(path, name):
    data, message = OTHER_FORMATS[name]
    path.write_bytes(data)
    assert re.search(message, refused(path))


INFLATED = {
    "tensors": lambda n: ",".join(
        f'"{k:x}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for k in range(n // 56)
    ),
    "nothing": lambda n: ",".join(['"":{}'] * (n // 6)),
    "keys": lambda n: '"__metadata__":{' + ",".join(f'"{k:x}":""' for k in range(n // 11)) + "}",
    "objects": lambda n: '"__metadata__":{"fastrnn":"[' + "{}," * (n // 3) + '1]"}',
    "lists": lambda n: '"__metadata__":{"fastrnn":"[' + "[]," * (n // 3) + '1]"}',
    "shape": lambda n: '"a":{"dtype":"F32","shape":[' + "0," * (n // 2) + '0],"data_offsets":[0,0]}',
    "nested": lambda n: '"a":' + "[" * n,
}


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of memory from /proc")
@pytest.mark.parametrize("kind", INFLATED)
def test_a_crafted_header_takes_no_memory(path, kind):
    write_raw(path, ("{" + INFLATED[kind](17_000_000) + "}").encode())
    printed, peak = peak_of_load(path)
    assert printed.startswith(f"{path}: damaged, or not a safetensors file of a layer: a header of 1")
    assert peak < 4 << 20
    write_raw(path, ("{" + INFLATED[kind](1_000_000) + "}").encode())
    printed, peak = peak_of_load(path)
    assert printed.startswith(f"{path}: ")
    assert peak < 40 << 20


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of memory from /proc")
def test_loading_takes_little_more_than_twice_the_file(path):
    fastrnn.save(path, fastrnn.RNN(1000, 4000))
    printed, peak = peak_of_load(path)
    assert printed == "loaded" and peak < 2.2 * path.stat().st_size


def test_the_most_tensors(path, layer, monkeypatch):
    """A header of the maximal number of tensors with the longest names can be loaded; `save` writes no more."""
    largest = fastrnn.LSTM(3, 3, 341, bidirectional=True, proj_size=1, peephole=True, rng=1)
    assert len(largest.params) == 341 * 12 > _files.MOST_TENSORS - 12
    fastrnn.save(path, largest)
    assert_same_layer(fastrnn.load(path), largest)
    most = fastrnn.RNN(1, 1, 1024, rng=1)
    fastrnn.save(path, most)
    assert_same_layer(fastrnn.load(path), most)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="^layer: has 4100 parameters, a file holds at most 4096$"):
        fastrnn.save(path, fastrnn.RNN(1, 1, 1025))
    assert path.read_bytes() == before
    fastrnn.save(path, layer)
    monkeypatch.setattr(_files, "MOST_TENSORS", 3)
    refused(path, "damaged, or not a safetensors file of a layer: more than 3 tensors")


def test_a_header_larger_than_the_file(path):
    for length in (1, 100, _files.MOST_HEADER_BYTES):
        path.write_bytes(length.to_bytes(8, "little") + b"{" * (length - 1))
        refused(path, "damaged, or not a safetensors file")


@pytest.mark.parametrize("value", [None, [], [1], 3, "x", True, float("nan")])
def test_json_that_is_no_object(path, layer, value):
    write(path, json.dumps(value), layer)
    refused(path, "the metadata: expected a JSON object")
    write(path, description() | {"arguments": value}, layer)
    refused(path, "arguments: expected a JSON object")


@pytest.mark.parametrize("value", [NEWEST_VERSION + 1, 10**30])
def test_a_newer_format(path, layer, value):
    write(path, {"format_version": value, "kind": "unheard of"}, layer)
    refused(path, f"format_version: {value}, from a newer fastrnn; this one reads up to {NEWEST_VERSION}")


@pytest.mark.parametrize("cls", [fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN, fastrnn.GRUCell])
def test_files_of_the_first_format(path, cls):
    """They lack the options that came later, which have their defaults."""
    layer = cls(2, 3, rng=0)
    arguments = {name: value for name, value in layer._constructor_arguments().items() if OPTIONS[name].since == 1}
    write(path, {"format_version": 1, "class": cls.__name__, "arguments": arguments}, layer.params)
    loaded = fastrnn.load(path)
    assert repr(loaded) == repr(layer) and loaded.params == layer.params
    for later in (name for name in OPTIONS if name not in arguments):
        write(path, {"format_version": 1, "class": cls.__name__, "arguments": arguments | {later: "x"}}, layer.params)
        with pytest.raises(ValueError):
            fastrnn.load(path)


@pytest.mark.parametrize("value", [None, 0, -1, True, 1.0, "1", [1]])
def test_format_versions_that_are_none(path, layer, value):
    write(path, description() | {"format_version": value}, layer)
    refused(path, "format_version: expected an integer of at least 1")


@pytest.mark.parametrize("value", [None, "", "lstm", "Parameters", "__class__", "os.system", 1, ["LSTM"], "x" * 9999])
def test_unknown_classes(path, layer, value):
    write(path, description() | {"class": value}, layer)
    assert len(refused(path, "class: expected one of LSTM")) < len(str(path)) + 400


@pytest.mark.parametrize("name", list(description()["arguments"]))
def test_every_argument_has_to_be_there(path, layer, name):
    write(path, description(**{name: None}), layer)
    refused(path, name)


@pytest.mark.parametrize("name", ["unknown", "rng", "self", "", "hidden_size "])
def test_unknown_arguments(path, layer, name):
    write(path, description(**{name: 1}), layer)
    refused(path, "arguments of LSTM", name)


@pytest.mark.parametrize("name", list(description()["arguments"]))
@pytest.mark.parametrize("value", ["x", "4", [], [1], {}, {"a": 1}, -1, -2.5, float("nan"), float("inf"), -(10**40)])
def test_wrong_values_of_arguments(path, layer, name, value):
    write(path, description(**{name: value}), layer)
    refused(path, name)


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers", "proj_size"])
@pytest.mark.parametrize("value", [True, False, 3.0, "3"])
def test_sizes_are_integers(path, layer, name, value):
    write(path, description(**{name: value}), layer)
    refused(path, f"{name}: expected an integer")


@pytest.mark.parametrize("name", ["bias", "batch_first", "bidirectional", "peephole"])
@pytest.mark.parametrize("value", [0, 1, "True"])
def test_flags_are_flags(path, layer, name, value):
    write(path, description(**{name: value}), layer)
    refused(path, f"{name}: expected True or False")


@pytest.mark.parametrize("value", ["float16", "f4", "<f4", "float", ">f8", "a", "O", "f4,f4", "(9,9)f4", 0, ["f4"], {}])
def test_dtypes_have_one_name(path, layer, value):
    write(path, description(dtype=value), layer)
    refused(path, "dtype: expected 'float32' or 'float64'")


ABSURD = [
    {name: value}
    for name in ("input_size", "hidden_size", "num_layers", "proj_size")
    for value in (5000, 10**6, 10**12, 2**63, 10**4000)
] + [
    {"hidden_size": 10**4000, "input_size": 10**4000, "num_layers": 10**4000},
    {"hidden_size": 10**12, "proj_size": 10**12 - 1},
    {"num_layers": 10**12, "hidden_size": 1, "input_size": 1},
    {"num_layers": 3},
    {"input_size": 60},
    {"hidden_size": 12},
    {"bidirectional": True},
]


@pytest.mark.parametrize("changes", ABSURD, ids=range(len(ABSURD)))
@pytest.mark.parametrize("empty_tensors", [False, True])
def test_absurd_sizes_allocate_nothing(path, layer, changes, empty_tensors):
    tensors = layer.state_dict()
    if empty_tensors:  # which can have any shape
        tensors |= {f"more{k}": np.zeros((k, 0), np.float32) for k in range(100)}
    write(path, description(**changes), tensors)
    tracemalloc.start()
    try:
        refused(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 21
    finally:
        tracemalloc.stop()


def test_many_layers_have_many_tensors(path):
    """One large tensor does not let the constructor create an unbounded number of small ones."""
    tensors = {"weight_ih_l0": np.zeros(400_000, np.float32)}
    write(path, description(input_size=1, hidden_size=1, num_layers=100_000), tensors)
    tracemalloc.start()
    try:
        refused(path, "more parameters than the file holds, 400000 numbers in 1 tensors")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_sizes_of_an_empty_tensor_are_no_excuse(path):
    n = 10**12
    header = {"__metadata__": {"fastrnn": json.dumps(description(hidden_size=n, num_layers=1, bias=False))}}
    for name, columns in (("weight_ih_l0", 0), ("weight_hh_l0", 0)):
        header[name] = {"dtype": "F32", "shape": [4 * n, columns], "data_offsets": [0, 0]}
    write_raw(path, header)
    refused(path, f"hidden_size={n}", "more parameters than the file holds")


def test_missing_and_additional_tensors(path, layer):
    tensors = layer.state_dict()
    del tensors["bias_hh_l1"]
    write(path, description(), tensors)
    refused(path, "do not fit LSTM(3, 4, num_layers=2): bias_hh_l1: missing")
    write(path, description(), layer.state_dict() | {"bias_hh_l2": np.zeros(1, np.float32)})
    refused(path, "do not fit LSTM(3, 4, num_layers=2): 'bias_hh_l2': not a parameter")
    write(path, description(bias=False), layer)
    refused(path, "'bias_hh_l0': not a parameter")
    write(path, description(), {"BIAS" if n == "bias_ih_l0" else n: a for n, a in layer.state_dict().items()})
    refused(path, "bias_ih_l0: missing", "'BIAS': not a parameter")
    write(path, description(), {"weight_ih_l0": np.zeros((16, 3), np.float32)})
    refused(path, "more parameters than the file holds")


def test_long_lists_of_problems_are_cut(path, layer):
    write(path, description(), layer.state_dict() | {"x" * k: np.zeros(1, np.float32) for k in range(1, 1000)})
    assert len(refused(path, "and 991 more")) < 2000


@pytest.mark.parametrize("shape", [(16,), (3, 16), (16, 3, 1), (48,), (16, 0), (8, 6)])
def test_wrong_shapes(path, layer, shape):
    tensors = layer.state_dict() | {"weight_ih_l0": np.zeros(shape, np.float32)}
    write(path, description(), tensors)
    refused(path, f"weight_ih_l0: expected (16, 3), got {shape}" if 0 not in shape else "")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8, np.int64, bool])
def test_wrong_dtypes(path, layer, dtype):
    tensors = layer.state_dict() | {"weight_ih_l0": np.zeros((16, 3), dtype)}
    write(path, description(), tensors)
    refused(path, "'weight_ih_l0': expected F32, got ")
    write(path, description(dtype="float64"), layer)
    refused(path, "expected F64, got F32")


@pytest.mark.parametrize("code, bits", [("BF16", 16), ("F8_E5M2", 8), ("F128", 128)])
def test_dtypes_that_numpy_lacks(path, code, bits):
    """Which of them safetensors knows depends on its version."""
    header = {"__metadata__": {"fastrnn": json.dumps(description())}}
    header["weight_ih_l0"] = {"dtype": code, "shape": [16, 3], "data_offsets": [0, 6 * bits]}
    write_raw(path, header, bytes(6 * bits))
    refused(path)


# Fuzz

# A file may describe a layer whose dropout has no effect.
MAY_WARN = pytest.mark.filterwarnings("ignore:dropout")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    """One file for all examples of hypothesis."""
    return tmp_path_factory.mktemp("fuzz") / "layer.safetensors"


@pytest.fixture(scope="module")
def valid(fuzzed):
    fastrnn.save(fuzzed, fastrnn.LSTM(2, 1, rng=1))
    return fuzzed.read_bytes()


@pytest.fixture(scope="module")
def state_dict():
    return fastrnn.LSTM(I, H, L, rng=1).state_dict()


def refused_or_sound(path):
    try:
        layer = fastrnn.load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")
        return
    expected = fastrnn.LSTM(**layer._constructor_arguments()).params
    assert {n: a.shape for n, a in layer.params.items()} == {n: a.shape for n, a in expected.items()}
    assert layer.params.flat.dtype == expected.flat.dtype and not layer.frozen


positions = st.integers(0, 2**20)
damages = st.one_of(
    st.tuples(st.just("flip"), positions, st.integers(0, 7)),
    st.tuples(st.just("set"), positions, st.integers(0, 255)),
    st.tuples(st.just("insert"), positions, st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("delete"), positions, st.integers(1, 9)),
    st.tuples(st.just("truncate"), positions, st.none()),
    st.tuples(st.just("repeat"), positions, st.integers(1, 99)),
)


def damaged(data, kind, position, what):
    position %= len(data) + (kind == "insert") or 1
    before, after = data[:position], data[position:]
    match kind:
        case "flip":
            return before + bytes([after[0] ^ 1 << what]) + after[1:] if after else before
        case "set":
            return before + bytes([what]) + after[1:]
        case "insert":
            return before + what + after
        case "delete":
            return before + after[what:]
        case "truncate":
            return before
        case "repeat":
            return before + after[:what] + after


@MAY_WARN
@given(st.lists(damages, min_size=1, max_size=4), st.booleans())
def test_fuzzed_bytes(fuzzed, valid, changes, mend):
    """With `mend` the header's length is corrected, so that more damage passes the first check."""
    data = valid
    for change in changes:
        data = damaged(data, *change)
    if mend:
        header = data[8 : len(data) - (len(valid) - 8 - int.from_bytes(valid[:8], "little"))]
        data = len(header).to_bytes(8, "little") + data[8:]
    fuzzed.write_bytes(data)
    refused_or_sound(fuzzed)


@MAY_WARN
@given(positions, st.text(alphabet='0123456789eE+-.,:"{}[]\\ntrufalsNI', min_size=1, max_size=6), st.integers(0, 6))
def test_fuzzed_metadata(fuzzed, state_dict, position, text, length):
    """Damage to the JSON within the JSON of an otherwise valid file."""
    about = json.dumps(description())
    position %= len(about)
    write(fuzzed, about[:position] + text + about[position + length :], state_dict)
    refused_or_sound(fuzzed)


likely = st.sampled_from([0, 1, 2, 3, 4, 2**62, "float32"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | likely,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@MAY_WARN
@given(values, st.dictionaries(st.sampled_from(list(description()["arguments"])) | st.text(), values, max_size=3))
@example({}, {"input_size": 2, "hidden_size": 4})
@example(None, {"dropout": 10**400})
def test_fuzzed_values(fuzzed, state_dict, value, changes):
    about = description()
    for part in (value, about | {"arguments": value}, about | {"arguments": about["arguments"] | changes}):
        write(fuzzed, part, state_dict)
        refused_or_sound(fuzzed)


@MAY_WARN
def test_every_single_bit(fuzzed, valid):
    """Of the header, where each of them means something."""
    for position in range(8 + int.from_bytes(valid[:8], "little")):
        for bit in range(8):
            fuzzed.write_bytes(damaged(valid, "flip", position, bit))
            refused_or_sound(fuzzed)
