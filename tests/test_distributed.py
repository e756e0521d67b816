"""`fastrnn.distributed`: the order of sums, the same bytes on any number of ranks, files, and ranks that fail."""

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastrnn
import ranks
from fastrnn import _config, distributed
from fastrnn._tree import PartialSums, additions, nodes_of_ranks, run_of

FOLDER = Path(sys.executable).parent
MPIEXEC = shutil.which("mpiexec", path=f"{FOLDER}{os.pathsep}{os.environ['PATH']}")
# Open MPI refuses root, and more ranks than cores.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def python(*arguments, prefix=(), **environment):
    """The finished process; it has to end within a minute."""
    path = os.pathsep.join([str(Path(fastrnn.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | OPEN_MPI | {"PYTHONPATH": path} | environment
    command = [*prefix, sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def mpi(number, *arguments, program=Path(ranks.__file__), **environment):
    """The finished mpiexec of a program."""
    pytest.importorskip("mpi4py")
    assert MPIEXEC, "mpi4py is installed, but no mpiexec"
    return python(str(program), *arguments, prefix=(MPIEXEC, "-n", str(number)), **environment)


def result(number, *arguments, **environment):
    """What the program of ranks.py returns, the same on all ranks."""
    finished = mpi(number, *arguments, **environment)
    assert finished.returncode == 0, finished.stderr
    lines = [line for line in finished.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == 1, finished.stdout
    return json.loads(lines[0].removeprefix("RESULT "))


def failed(number, *arguments, **environment):
    """What the ranks have printed, of a program that has to fail."""
    finished = mpi(number, *arguments, **environment)
    assert finished.returncode != 0
    assert "RESULT" not in finished.stdout
    return finished.stdout + finished.stderr


# The order of the sums


def pairwise(terms):
    """The sum of a binary tree, level by level."""
    while len(terms) > 1:
        terms = [f"({a}+{b})" if b else a for a, b in itertools.zip_longest(terms[::2], terms[1::2])]
    return terms[0]


@pytest.mark.parametrize("size", range(1, 9))
def test_ranks_add_in_the_order_of_one_tree(size):
    def add(lefts, term):
        for left in lefts:
            term = f"({left}+{term})"
        return term

    for n in range(1, 34):
        nodes, terms = [], []
        for rank in range(size):
            sums = PartialSums(n, add)
            for leaf in run_of(rank, size, n):
                sums.push((0, leaf), str(leaf))
            assert tuple(sums.nodes) == nodes_of_ranks(size, n)[rank]
            nodes += sums.nodes
            terms += sums.values
        for left, right in additions(tuple(nodes), n):
            terms[left] = f"({terms[left]}+{terms[right]})"
        assert terms[0] == pairwise(list(map(str, range(n))))


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("n", [0, 1, 16384, 40_000])
def test_sum_of_a_group_of_one(shards, n, dtype):
    rng = np.random.default_rng(shards)
    arrays = [rng.standard_normal(n).astype(dtype) for _ in range(shards)]
    group = distributed.group(shards)
    total = group.reduce(array.copy() for array in arrays)
    while len(arrays) > 1:
        arrays = [sum(arrays[k + 1 : k + 2], arrays[k]) for k in range(0, len(arrays), 2)]
    assert total.dtype == dtype and total.tobytes() == arrays[0].tobytes()


def test_shards_may_be_computed_by_threads():
    layer, x = fastrnn.LSTM(4, 24, rng=1), np.random.default_rng(1).standard_normal((30, 16, 4), np.float32)

    def gradient(shard):
        output, _, tape = layer.forward(x[:, shard.rows])
        return layer.backward(tape, output)[2]

    group = distributed.group(8)
    expected = group.reduce(map(gradient, group.my_shards(16)))
    with ThreadPoolExecutor(3) as pool:
        assert group.reduce(pool.map(gradient, group.my_shards(16))).flat.tobytes() == expected.flat.tobytes()


def test_sums_keep_the_structure():
    params = fastrnn.GRU(3, 5, rng=0).params
    value = (1, [params, np.ones((2, 3))], np.float32(0.5), np.zeros((0, 4)), np.ones((5, 5), np.float32).T)
    other = (2, [params.copy(), np.ones((2, 3))], 0.25, *map(np.copy, value[3:]))
    twice = distributed.group(2).reduce([value, other])
    assert twice[0] == 3.0 and twice[2] == 0.75
    assert isinstance(twice[1][0], fastrnn.Parameters) and list(twice[1][0]) == list(params)
    assert twice[1][0].flat.tobytes() == (2 * params.flat).tobytes()
    assert twice[1][0].flat.ctypes.data % 64 == 0
    assert twice[1][1].tolist() == [[2.0] * 3] * 2
    assert [array.shape for array in twice[3:]] == [(0, 4), (5, 5)]


def test_the_result_is_new_memory_and_arguments_are_unchanged():
    group, array = distributed.group(1), np.ones(5000)
    total = group.reduce([array])
    total += 1
    assert array.max() == 1
    first = distributed.group(2).reduce([np.ones(5000), np.ones(5000)])
    second = distributed.group(2).reduce([np.zeros(5000), np.zeros(5000)])
    assert first.max() == 2 and not np.may_share_memory(first, second)


def test_infinite_sums_warn_of_nothing():
    group = distributed.group(2)
    found = group.reduce([np.array([np.inf, 1e308, 1.0]), np.array([-np.inf, 1e308, np.nan])])
    assert np.isnan(found[0]) and found[1] == np.inf and np.isnan(found[2])


# Shards


@pytest.mark.parametrize("B", [1, 3, 16, 17, 100])
def test_shards_are_the_batch_in_order(B):
    shards = distributed.group(16).my_shards(B)
    assert [shard.index for shard in shards] == list(range(min(16, B)))
    assert sum((list(range(B))[shard.rows] for shard in shards), []) == list(range(B))
    lengths = {shard.rows.stop - shard.rows.start for shard in shards}
    assert max(lengths) - min(lengths) <= 1
    assert sum(shard.fraction for shard in shards) == pytest.approx(1)


def test_masks_of_a_shard_depend_on_the_key_and_the_index():
    first, second = distributed.group(2).my_shards(2)
    rng, drawn = np.random.default_rng(), []
    for shard, key in (first, (1, 2)), (second, (1, 2)), (first, (1, 3)), (first, (1, 2)):
        shard.seed(rng, *key)
        drawn.append(rng.integers(2**60))
    assert len(set(drawn)) == 3 and drawn[0] == drawn[3]
    philox = np.random.Generator(np.random.Philox(1))
    first.seed(philox, 1)
    assert philox.integers(2**60) != rng.integers(2**60)


# The same bytes on any number of ranks


def test_training_has_the_same_bytes_on_any_number_of_ranks(threads):
    expected = ranks.train()
    threads(1)
    assert ranks.train() == expected
    assert len(set(expected)) == len(ranks.TRAININGS)
    for number in (1, 2, 3, 4):
        assert result(number, "train", OMP_NUM_THREADS=str(number % 2 + 1)) == expected


@pytest.mark.parametrize("number", [2, 3, 4])
def test_sums_have_the_same_bytes_on_any_number_of_ranks(number):
    assert result(number, "sums") == ranks.sums()


def test_instruction_sets_may_be_mixed_if_their_bits_are_the_same():
    sets = [name for name in _config.runnable() if name != "generic"]
    expected = ranks.train()
    if sets:
        assert result(2, "train", ISA_OF_RANKS=f"{sets[0]},{sets[-1]}") == expected
        output = failed(2, "train", ISA_OF_RANKS=f"generic,{sets[-1]}")
        assert "RuntimeError: fastrnn.distributed: the ranks would compute different bits" in output
        assert "generic" in output and sets[-1] in output


def test_training_goes_on_after_a_rank_was_killed_on_another_number_of_ranks(tmp_path):
    pytest.importorskip("safetensors")
    whole, path = tmp_path / "whole.safetensors", tmp_path / "training.safetensors"
    expected = ranks.resumed(whole, 8, 0)
    failed(2, "resumed", str(path), "8", "5")  # of step 3 there is a checkpoint
    assert result(3, "resumed", str(path), "8", "0") == expected
    assert path.read_bytes() == whole.read_bytes()
    assert ranks.resumed(path, 8, 0) == expected  # from step 6
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_ranks_share_the_cores():
    alone = int(python("-c", "import fastrnn; print(fastrnn.get_num_threads())", OMP_NUM_THREADS="").stdout)
    assert max(result(2, "threads", OMP_NUM_THREADS="")) <= max(1, alone // 2)
    assert result(2, "threads", OMP_NUM_THREADS="1") == [1] * 4


# Ranks that do not fit


@pytest.mark.parametrize(
    "program, message",
    [
        ("versions", "RuntimeError: fastrnn.distributed: the ranks would compute different bits; expected the same"),
        ("shards", "ValueError: shards: expected the same number on all ranks, got rank 0: 4; rank 1: 5"),
        ("more_ranks_than_shards", "ValueError: shards: expected at least the number of ranks, 2, got 1"),
        ("float_formats", "got rank 0: float32 (3,); rank 1: float64 (3,)"),
        ("float_formats_of_parameters", "ValueError: params: expected the same shapes and dtypes on all ranks"),
        ("error_in_a_contribution", "ZeroDivisionError: in the second shard"),
        ("error_elsewhere", "ZeroDivisionError: outside of the group"),
        ("abort", "rank 1 ends all"),
    ],
)
def test_one_rank_that_fails_ends_all(program, message):
    assert message in failed(2, program)


def test_errors_of_files_reach_all_ranks(tmp_path):
    pytest.importorskip("safetensors")
    assert result(2, "error_of_a_file", str(tmp_path / "missing" / "file")) == [True] * 4
    output = failed(2, "parameters_that_differ", str(tmp_path / "file"))
    assert "RuntimeError: checkpoint: the state of rank 1 differs from that of rank 0" in output
    assert os.listdir(tmp_path) == []


def test_the_benchmark_runs():
    program = Path(__file__).parent.parent / "benchmarks" / "distributed.py"
    sizes = "--steps 3 --batches 4 --hidden 8 --shards 2,4 --numbers 1,9999 --rounds 1 --calls 1".split()
    finished = mpi(2, *sizes, program=program)
    assert finished.returncode == 0, finished.stderr
    assert "4 shards: " in finished.stdout and "ratio" in finished.stdout


def test_a_process_of_another_mpi_is_noticed():
    pytest.importorskip("mpi4py")
    finished = python("-c", "import fastrnn; fastrnn.distributed.group(2)", OMPI_COMM_WORLD_SIZE="2")
    assert finished.returncode != 0 and "mpi4py finds one" in finished.stderr


def test_a_group_of_one_aborts_by_its_exit_status():
    with pytest.raises(SystemExit) as caught:
        distributed.group(2).abort(7)
    assert caught.value.code == 7


def test_without_mpi4py():
    code = "import sys; sys.modules['mpi4py'] = None; import fastrnn; print(fastrnn.distributed.group(3))"
    assert python("-c", code).stdout == "<Group: rank 0 of 1, 3 shards>\n"
    finished = python("-c", code, PMI_SIZE="2")
    assert finished.returncode != 0 and "ImportError: fastrnn.distributed: " in finished.stderr
    assert "fastrnn[mpi]" in finished.stderr


def test_a_process_by_itself_does_not_import_mpi():
    code = "import sys, fastrnn; fastrnn.distributed.group(3); print('mpi4py' in sys.modules)"
    assert python("-c", code).stdout == "False\n"


# Arguments

ONES = np.ones(3)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda g: distributed.group(0), ValueError, "shards: expected at least 1"),
        (lambda g: distributed.group(2.0), TypeError, "shards: expected an integer"),
        (lambda g: distributed.group(2, comm=1), TypeError, "comm: expected an intracommunicator"),
        (lambda g: g.my_shards(0), ValueError, "batch: expected at least 1"),
        (lambda g: g.reduce([1.0]), ValueError, "contributions: expected 2, one for each shard of this rank, got 1"),
        (
            lambda g: g.reduce([1.0] * 3),
            ValueError,
            "contributions: expected 2, one for each shard of this rank, got m",
        ),
        (lambda g: g.reduce([1.0] * 2, batch=1), ValueError, "contributions: expected 1, one for each shard"),
        (lambda g: g.reduce(1.0), TypeError, "contributions: expected an iterable, got float"),
        (lambda g: g.reduce([True, True]), TypeError, "contributions: expected a number, an ndarray"),
        (lambda g: g.reduce([ONES, None]), TypeError, "contributions: expected a number, an ndarray"),
        (lambda g: g.reduce([np.arange(3)] * 2), TypeError, "contributions: expected float32 or float64, got int64"),
        (
            lambda g: g.reduce([[np.ones(3, np.float16)]] * 2),
            TypeError,
            "contributions[0]: expected float32 or float64",
        ),
        (lambda g: g.reduce([ONES, ONES]), ValueError, "contributions: that of shard 1 shares memory with one before"),
        (lambda g: g.reduce([ONES, np.ones(4)]), ValueError, "contributions: expected float64 (3,) for each shard"),
        (lambda g: g.reduce([ONES, np.ones(3, np.float32)]), ValueError, "contributions: expected float64 (3,) for"),
        (lambda g: g.reduce([(1.0,), [1.0]]), ValueError, "contributions: expected a tuple of a number for each shard"),
        (lambda g: g.abort(0), ValueError, "status: expected at least 1"),
        (lambda g: g.abort(256), ValueError, "status: expected 1 to 255"),
        (lambda g: g.gather([1]), ValueError, "values: expected 2"),
        (lambda g: g.broadcast([ONES, ONES]), ValueError, "params[1]: shares memory"),
        (lambda g: g.broadcast(ONES[::2]), ValueError, "params: not C-contiguous"),
        (lambda g: g.global_norm([1]), TypeError, "gradients"),
        (lambda g: g.my_shards(2)[0].seed(1), TypeError, "rng: expected a numpy.random.Generator"),
        (lambda g: g.my_shards(2)[0].seed(np.random.default_rng(), -1), ValueError, "key: expected at least 0"),
    ],
)
def test_arguments(call, error, message):
    with pytest.raises(error) as caught:
        call(distributed.group(2))
    assert str(caught.value).startswith(message)


# Files


def state(optimizer=fastrnn.optim.Adam, rng=np.random.PCG64, **options):
    layer = fastrnn.GRU(3, 4, rng=1, **options)
    head = np.ones((4, 2), np.float32)
    arguments = {"rng": np.random.Generator(rng(5)), "arrays": {"h": np.ones(3), "position": np.array(7)}}
    return [layer.params, head], optimizer([layer.params, head]), arguments


@pytest.mark.parametrize("rng", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
@pytest.mark.parametrize("kind", [fastrnn.optim.SGD, fastrnn.optim.AdamW])
def test_a_file_has_the_whole_state(tmp_path, kind, rng):
    pytest.importorskip("safetensors")
    path, group = tmp_path / "file", distributed.group(4)
    params, optimizer, arguments = state(kind, rng)
    arguments["rng"].random(1000, np.float32)
    optimizer.step([params[0].copy(), params[1].copy()])
    optimizer.lr = 0.125
    group.checkpoint(path, params, optimizer, step=12, **arguments)
    others, other, received = state(kind, rng)
    received["arrays"] = {name: np.zeros_like(array) for name, array in received["arrays"].items()}
    assert group.resume(path, others, other, **received) == 12
    assert others[0] == params[0] and others[1].tobytes() == params[1].tobytes()
    assert other.lr == 0.125 and other.steps == 1
    for name, array in optimizer.state_dict().items():
        assert np.asarray(other.state_dict()[name]).tobytes() == np.asarray(array).tobytes()
    assert received["arrays"]["position"] == 7 and received["arrays"]["h"].tolist() == [1, 1, 1]
    assert arguments["rng"].random(9).tobytes() == received["rng"].random(9).tobytes()


@pytest.mark.parametrize(
    "shards, changes, message",
    [
        (5, {}, "shards: made with 4 shards, this group has 5"),
        (4, {"optimizer": fastrnn.optim.SGD}, "optimizer: expected SGD, got Adam"),
        (4, {"rng": np.random.MT19937}, "rng: expected a state of MT19937"),
        (4, {"dtype": np.float64}, "the arrays do not fit: "),
        (4, {"bias": False}, "the arrays do not fit: "),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(tmp_path, shards, changes, message):
    pytest.importorskip("safetensors")
    path = tmp_path / "file"
    params, optimizer, arguments = state()
    distributed.group(4).checkpoint(path, params, optimizer, step=12, **arguments)
    params, optimizer, arguments = state(**changes)
    for array in (params[0].flat, params[1]):
        array[...] = 3
    before = arguments["rng"].bit_generator.state
    with pytest.raises(ValueError) as caught:
        distributed.group(shards).resume(path, params, optimizer, **arguments)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert (params[0].flat == 3).all() and (params[1] == 3).all() and optimizer.steps == 0
    assert str(arguments["rng"].bit_generator.state) == str(before)


@pytest.mark.parametrize(
    "keys, value, message",
    [
        (["step"], "twelve", "step: expected an integer, got 'twelve'"),
        (["step"], -1, "step: expected at least 0, got -1"),
        (["step"], None, "damaged: 'step' is not in the file"),
        (["optimizer", "steps"], -1, "steps: expected at least 0, got -1"),
        (["optimizer", "steps"], 1.5, "steps: expected an integer, got 1.5"),
        (["optimizer", "steps"], None, "damaged: 'steps' is not in the file"),
        (["optimizer", "lr"], -1, "lr: expected a finite number of at least 0, got -1"),
        (["optimizer", "lr"], "1", "lr: expected a number, got '1'"),
        (["optimizer", "lr"], 10**400, "lr: expected a finite number"),
        (["optimizer", "lr"], None, "damaged: 'lr' is not in the file"),
        (["rng", "state", "state"], 10**60, "rng: "),
        (["rng", "state", "inc"], -1, "rng: "),
        (["rng", "has_uint32"], 10**30, "rng: "),
        (["rng", "state", "pos"], 10**30, "rng: "),
    ],
)
def test_a_description_that_is_wrong_changes_nothing(tmp_path, keys, value, message):
    safetensors = pytest.importorskip("safetensors.numpy")
    path, group = tmp_path / "file", distributed.group(4)
    # This one sets its state in two parts.
    kind = np.random.MT19937 if keys[-1] == "pos" else np.random.PCG64
    params, optimizer, arguments = state(rng=kind)
    group.checkpoint(path, params, optimizer, step=12, **arguments)
    with safetensors.safe_open(path, "np") as file:
        about = json.loads(file.metadata()["fastrnn_training"])
    inner = about
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path.write_bytes(safetensors.save(safetensors.load(path.read_bytes()), {"fastrnn_training": json.dumps(about)}))

    for array in (params[0].flat, params[1], *arguments["arrays"].values()):
        array[...] = 3
    optimizer.lr = 0.125
    generator = arguments["rng"]
    generator.random(7, np.float32)
    before = pickle.dumps((params[0], params[1], optimizer, arguments["arrays"], generator.bit_generator.state))
    with pytest.raises(ValueError) as caught:
        group.resume(path, params, optimizer, **arguments)
    assert str(caught.value).startswith(f"{path}: {message}")
    after = pickle.dumps((params[0], params[1], optimizer, arguments["arrays"], generator.bit_generator.state))
    assert after == before


def test_the_most_arrays_of_a_file(tmp_path):
    """More could be written, but not be read again."""
    pytest.importorskip("safetensors")
    path, group = tmp_path / "file", distributed.group(4)
    params, optimizer, arguments = state()
    most = 4088 - len(params[0]) - 1 - len(optimizer.state_dict().keys() - {"steps"})
    arguments["arrays"] = {f"{k}": np.full(1, k) for k in range(most)}
    group.checkpoint(path, params, optimizer, step=12, **arguments)
    assert group.resume(path, params, optimizer, **arguments) == 12
    arguments["arrays"]["one more"] = np.zeros(1)
    with pytest.raises(ValueError, match="^params, optimizer, arrays: 4089 arrays, a file holds at most 4088$"):
        group.checkpoint(path, params, optimizer, step=13, **arguments)


def test_a_file_is_read_once(tmp_path, monkeypatch):
    """Another process may replace it at any time."""
    pytest.importorskip("safetensors")
    path, group = tmp_path / "file", distributed.group(4)
    params, optimizer, arguments = state()
    group.checkpoint(path, params, optimizer, step=12, **arguments)
    opened, builtin = [], open

    def count(name, *others, **options):
        opened.append(name)
        return builtin(name, *others, **options)

    monkeypatch.setattr("builtins.open", count)
    assert group.resume(path, params, optimizer, **arguments) == 12
    assert opened == [str(path)]


def test_missing_parts_are_errors(tmp_path):
    pytest.importorskip("safetensors")
    path, group = tmp_path / "file", distributed.group(4)
    params, optimizer, arguments = state()
    group.checkpoint(path, params, optimizer, step=12, **arguments)
    with pytest.raises(ValueError, match="optimizer: is in the file"):
        group.resume(path, params, **arguments)
    with pytest.raises(ValueError, match="rng: is in the file"):
        group.resume(path, params, optimizer, arrays=arguments["arrays"])
    with pytest.raises(ValueError, match=r"arrays\.h: not expected"):
        group.resume(path, params, optimizer, rng=arguments["rng"])
    group.checkpoint(path, params, step=12)
    with pytest.raises(ValueError, match="optimizer: is not in the file"):
        group.resume(path, params, optimizer)
    layer = fastrnn.GRU(3, 4)
    fastrnn.save(path, layer)
    with pytest.raises(ValueError, match="not written by Group.checkpoint"):
        group.resume(path, params)
    with pytest.raises(FileNotFoundError):
        group.resume(tmp_path / "other", params)


def test_damaged_files_are_errors(tmp_path):
    pytest.importorskip("safetensors")
    path, group = tmp_path / "file", distributed.group(4)
    params, optimizer, arguments = state()
    group.checkpoint(path, params, optimizer, step=12, **arguments)
    data = path.read_bytes()
    for k in range(0, len(data), 7):
        path.write_bytes(data[:k])
        with pytest.raises(ValueError):
            group.resume(path, params, optimizer, **arguments)
