"""examples/char_lm.py: its gradients, and its command line."""

import hashlib
import importlib.util
import io
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPT = EXAMPLES / "char_lm.py"
with pytest.MonkeyPatch.context() as patch:
    # set here, so that the example's setting does not affect other tests
    patch.setenv("OPENBLAS_NUM_THREADS", "1")
    patch.syspath_prepend(EXAMPLES)
    import char_lm
    import char_lm_checkpoint
    import char_lm_model
    import char_lm_options
    import char_lm_speed
    import char_lm_text
    import char_lm_training

PROSE = "The quick brown fox jumps over the lazy dog; then it sleeps, and dreams of café hens.\n" * 40
SMALL = (
    "--embedding=6", "--hidden=16", "--batch=4", "--unroll=16", "--sample-length=40", "--no-compare",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory that contains only text.txt."""
    (tmp_path / "text.txt").write_text(PROSE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*options):
    return [sys.executable, str(SCRIPT), "--text=text.txt", *SMALL, *options]


def environment():
    package = str(Path(fastrnn.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [package, str(EXAMPLES), inherited]))}


def run(*options):
    """Runs the example in a new process, which must succeed."""
    done = subprocess.run(command(*options), env=environment(), capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    return done


def main(*options):
    """Runs the example in this process; returns its exit status."""
    return char_lm.main(["--text=text.txt", *SMALL, *options])


def assert_refused(capsys, status, *words):
    """Expects exit status 2 and one line on stderr that contains the words."""
    out, err = capsys.readouterr()
    assert status == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    for word in words:
        assert word in err
    assert out == ""


def held_out(output):
    return float(re.search(r"^held-out text after \d+ iterations: ([\d.]+)", output, re.M)[1])


# The model --------------------------------------------------------------------------------------

V, E, H, L, T, B = 7, 3, 4, 2, 5, 3


@pytest.fixture
def problem():
    """A float64 model, inputs (T, B) in which one character is missing, targets, and a state."""
    rng = np.random.default_rng(0)
    model = char_lm_model.CharModel(V, E, H, L, dtype=np.float64, rng=rng)
    model.head.params["bias"][...] = rng.normal(size=V)
    inputs, targets = rng.integers(V - 1, size=(2, T, B))
    state = tuple(rng.normal(size=(2, L, B, H)))
    return model, inputs, targets, state


def test_the_loss_is_the_mean_over_all_predictions(problem):
    model, inputs, targets, state = problem
    loss, state_n, _ = model.gradient(inputs, targets, state)
    logits, expected_state = model.predict(inputs, state)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = -np.log(np.take_along_axis(p, targets[..., None], axis=-1)).mean()
    assert loss == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(state_n, expected_state)


def test_every_gradient_equals_finite_differences(problem):
    model, *data = problem
    *_, gradient = model.gradient(*data)
    step = 1e-6
    for params, d_params in zip(model.params, gradient, strict=True):
        flat, d_flat = params.flat, d_params.flat
        assert flat.dtype == d_flat.dtype == np.float64
        for i, value in enumerate(flat.copy()):
            flat[i] = value + step
            above = model.gradient(*data)[0]
            flat[i] = value - step
            below = model.gradient(*data)[0]
            flat[i] = value
            assert d_flat[i] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-9)


def test_the_reference_layers_give_the_same_gradients(problem):
    model, *data = problem
    loss, state, gradient = model.gradient(*data)
    model.lstm = char_lm_speed.ReferenceLSTM(model.lstm)
    reference_loss, reference_state, reference_gradient = model.gradient(*data)
    assert loss == pytest.approx(reference_loss, rel=1e-12)
    np.testing.assert_allclose(state, reference_state, rtol=1e-10, atol=1e-13)
    for d_params, reference in zip(gradient, reference_gradient, strict=True):
        np.testing.assert_allclose(d_params.flat, reference.flat, rtol=1e-10, atol=1e-13)


def test_embeddings_are_the_product_with_one_hot_vectors(problem):
    model, inputs, *_ = problem
    np.testing.assert_array_equal(model.embed(inputs), model.embedding(model.one_hot[inputs]))


def test_training_computes_in_single_precision():
    o = char_lm_options.parse(["--hidden=8", "--embedding=4", "--batch=2", "--unroll=8"])
    training = char_lm_training.Training.begin(20, o)
    arrays = list(char_lm_checkpoint.model_arrays(training).values())
    arrays += [array for array in training.optimizer.state_dict().values() if isinstance(array, np.ndarray)]
    inputs, targets = np.zeros((2, 8, 2), int)
    _, state, gradient = training.model.gradient(inputs, targets, training.state)
    logits, _ = training.model.predict(inputs, training.state)
    arrays += [*state, *[d_params.flat for d_params in gradient], logits]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_no_bit_of_a_training_depends_on_threads_instruction_set_or_blas(folder, monkeypatch):
    """The whole model, as its checkpoint has it: embedding, LSTM, head, loss, clipping, Adam."""
    sets = [name for name in fastrnn._config.runnable() if name != "generic"]
    runs = [(threads, sets[0], "Haswell") for threads in (1, 2, 3)] + [(2, name, "Prescott") for name in sets]
    found = set()
    for threads, isa, blas in runs:
        monkeypatch.setenv("FASTRNN_ISA", isa)
        monkeypatch.setenv("OPENBLAS_CORETYPE", blas)  # other kernels of NumPy's products, which would show
        options = "--iterations=20", "--batch=32", "--unroll=48", "--hidden=32"
        run(*options, f"--threads={threads}", "--checkpoint=run.npz")
        found.add(Path("run.npz").read_bytes())
    assert len(found) == 1


# The text ---------------------------------------------------------------------------------------


def test_default_text_is_the_manual_in_sorted_order():
    from pydoc_data.topics import topics

    text = char_lm_text.read_text(None, 64, 32)
    characters = "".join(topics[name] for name in sorted(topics))
    assert text.decode(text.ids) == characters
    twentieth = len(characters) // 20
    assert text.decode(text.held_out) == characters[-twentieth:]
    assert text.decode(text.train) == characters[:-twentieth]


def test_windows_follow_each_other_along_every_stream():
    text = char_lm_text.Text(PROSE)
    length = (len(text.train) - 1) // 4
    count = length // 16
    windows = [text.window(k, 16, 4) for k in range(count)]
    assert [first for *_, first in windows] == [True] + [False] * (count - 1)
    inputs = np.concatenate([inputs for inputs, _, _ in windows])  # (count * 16, 4)
    targets = np.concatenate([targets for _, targets, _ in windows])
    for b in range(4):
        stream = text.train[b * length :]
        np.testing.assert_array_equal(inputs[:, b], stream[: count * 16])
        np.testing.assert_array_equal(targets[:, b], stream[1 : count * 16 + 1])
    again, _, first = text.window(count, 16, 4)
    np.testing.assert_array_equal(again, windows[0][0])
    assert first


@pytest.mark.parametrize("streams", [1, 3])
def test_bits_per_character_is_of_the_whole_text(problem, streams):
    model = problem[0]
    n = 3 * 2000 + 1
    ids = np.random.default_rng(1).integers(V, size=n)
    length = (n - 1) // streams
    bits = []
    for start in range(0, n - 1, length):
        logits, _ = model.predict(ids[start : start + length, None], None)
        p = np.exp(logits[:, 0]) / np.exp(logits[:, 0]).sum(axis=1, keepdims=True)
        bits.append(-np.log2(p[np.arange(length), ids[start + 1 : start + length + 1]]))
    found = char_lm_model.bits_per_character(model, ids, shortest=length)
    assert found == pytest.approx(np.mean(bits), rel=1e-12)


def test_samples_begin_with_the_prompt_and_depend_on_the_seed(problem):
    model = problem[0]

    def sample(temperature, seed):
        rng = np.random.default_rng(seed)
        return char_lm_model.sample(model, [1, 2, 3], 4, 30, temperature, rng)

    ids = sample(1.0, 0)
    assert ids.shape == (33, 4)
    np.testing.assert_array_equal(ids[:3], np.repeat([[1], [2], [3]], 4, axis=1))
    np.testing.assert_array_equal(ids, sample(1.0, 0))
    assert np.any(ids != sample(1.0, 1))
    assert np.any(ids[:, 0] != ids[:, 1])
    cold = sample(1e-300, 0)  # always the most probable
    logits, _ = model.predict(cold[:-1], None)
    np.testing.assert_array_equal(cold[3:], logits.argmax(axis=-1)[2:])


def test_samples_follow_the_distribution_at_a_temperature(problem):
    model = problem[0]
    ids = char_lm_model.sample(model, [4], 20000, 1, 0.5, np.random.default_rng(0))
    logits, _ = model.predict(np.array([[4]]), None)
    p = np.exp(logits[0, 0] / 0.5)
    np.testing.assert_allclose(np.bincount(ids[1], minlength=V) / 20000, p / p.sum(), atol=0.015)


# Whole runs -------------------------------------------------------------------------------------


def test_it_learns_and_prints_what_it_promises(folder):
    options = "--iterations=300", "--learning-rate=0.01", "--evaluate-every=100", "--prompt=The q"
    done = run(*options, "--samples=3", "--temperature=0.5")
    reports = re.findall(r"^iteration +(\d+) .* held-out ([\d.]+)$", done.stdout, re.M)
    assert [iteration for iteration, _ in reports] == ["100", "200", "300"]
    assert float(reports[0][1]) > float(reports[2][1]) == held_out(done.stdout)
    assert held_out(done.stdout) < 1.0 < math.log2(len(set(PROSE)))
    assert done.stdout.count("--- a sample at temperature 0.5 ---") == 3
    assert done.stdout.count("-\nThe q") == 3
    assert done.stdout.startswith("reading ") and "the model is saved in char_lm.npz; next" in done.stdout
    assert "bits/char" in done.stderr and "char/s" in done.stderr


@pytest.mark.parametrize("layers", [1, 2])
def test_a_seed_reproduces_the_run_and_resuming_continues_it(folder, layers):
    layers = f"--layers={layers}"
    whole = run(layers, "--iterations=60", "--checkpoint=whole.npz").stdout
    again = run(layers, "--iterations=60", "--checkpoint=again.npz").stdout
    other = run(layers, "--iterations=60", "--checkpoint=other.npz", "--seed=2").stdout
    run(layers, "--iterations=25", "--checkpoint=parts.npz")
    again, other = (out.replace(name, "whole") for out, name in ((again, "again"), (other, "other")))
    parts = run(layers, "--iterations=60", "--checkpoint=parts.npz", "--resume").stdout.replace("parts", "whole")
    expected = Path("whole.npz").read_bytes()
    assert whole == again == parts and whole != other
    assert expected == Path("again.npz").read_bytes() == Path("parts.npz").read_bytes()
    assert expected != Path("other.npz").read_bytes()
    assert char_lm_text.Text(PROSE).window(60, 16, 4)[0].shape == (16, 4)
    with np.load("parts.npz") as saved:  # np.load reads the file despite the digest
        assert np.any(saved["adam.exp_avg_sq.1"]) and saved["adam.steps"] == 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_leaves_and_resume_goes_on_bit_for_bit(folder, number):
    process = subprocess.Popen(
        command("--iterations=1000000", "--evaluate-every=20", "--checkpoint=parts.npz"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        try:
            assert "characters" in process.stdout.readline()
            assert process.stdout.readline().startswith("iteration     20 ")
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    stopped = re.search(r"^stopped at iteration (\d+), saved in parts.npz; --resume .*$", err, re.M)
    end = f"--iterations={int(stopped[1]) + 10}"
    run(end, "--checkpoint=parts.npz", "--resume")
    run(end, "--checkpoint=whole.npz")
    assert Path("parts.npz").read_bytes() == Path("whole.npz").read_bytes()


def test_a_signal_in_the_middle_of_a_step_waits_for_its_end(folder, capsys, monkeypatch):
    gradient, calls = char_lm_model.CharModel.gradient, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)
        return gradient(self, *arguments)

    previous = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(char_lm_model.CharModel, "gradient", interrupted)
        assert main("--iterations=20", "--checkpoint=parts.npz") == 128 + signal.SIGINT
    assert previous == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert "stopped at iteration 7, saved in parts.npz" in capsys.readouterr().err
    assert main("--iterations=7", "--checkpoint=whole.npz") == 0
    assert Path("parts.npz").read_bytes() == Path("whole.npz").read_bytes()


def test_a_second_signal_acts_at_once(folder, capsys, monkeypatch):
    def interrupted(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still there")

    monkeypatch.setattr(char_lm_model.CharModel, "gradient", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background program ignores it
    try:
        assert main("--iterations=20") == 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)
    assert not Path("char_lm.npz").exists()


def test_a_time_limit_ends_training_and_not_the_run(folder, capsys):
    assert main("--seconds=0.2", "--iterations=1000000") == 0
    out = capsys.readouterr().out
    assert 0 < int(re.search(r"^held-out text after (\d+) ", out, re.M)[1]) < 1000000
    assert "--- a sample" in out


def test_resuming_a_finished_run_only_reports(folder, capsys):
    assert main("--iterations=30") == 0
    before, out = Path("char_lm.npz").read_bytes(), capsys.readouterr().out
    assert main("--iterations=10", "--resume") == 0
    assert Path("char_lm.npz").read_bytes() == before
    assert capsys.readouterr().out == out


def test_the_comparison_shows_both_speeds(folder):
    options = [option for option in command("--iterations=3") if option != "--no-compare"]
    done = subprocess.run(options, env=environment(), capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    head = re.compile(r"^one training step, 4 x 16 characters; threads: \d+\n", re.M)
    table = head.split(done.stdout)[1]
    row = re.compile(r"^  (.+?) {2,}([\d.]+) ms +([\d,]+) characters/s +([\d.]+) x the time$", re.M)
    names = [found[1] for found in row.finditer(table)]
    assert len(names) == len(table.splitlines())
    assert names[:2] == ["fastrnn", "fastrnn.reference, NumPy"]
    assert len(names) == 2 + (importlib.util.find_spec("torch") is not None)


# Bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "text.txt: No such file"),
        (b"", "text.txt: no text"),
        (b"short", "text.txt: 5 characters; --batch 4 --unroll 16 needs at least 68"),
        (b"a" * 67, "needs at least 68"),
        (b"good until here \xff" + b"a" * 100, "text.txt: not UTF-8 at byte 16"),
        ("ends too early: é".encode()[:-1] * 9, "text.txt: not UTF-8 at byte 16"),
    ],
)
def test_bad_text(folder, capsys, content, words):
    Path("text.txt").unlink()
    if content is not None:
        Path("text.txt").write_bytes(content)
    assert_refused(capsys, main("--iterations=2"), words)
    assert not Path("char_lm.npz").exists()


def test_the_least_text_is_enough(folder, capsys):
    Path("text.txt").write_bytes(b"ab" * 34)
    assert main("--iterations=3") == 0


def test_the_text_may_be_a_single_character(folder, capsys):
    Path("text.txt").write_bytes(b"a" * 100)
    assert main("--iterations=3") == 0
    assert held_out(capsys.readouterr().out) == 0


def test_a_directory_is_no_text(folder, capsys):
    assert_refused(capsys, char_lm.main(["--text=."]), "error: .: Is a directory")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "nan", "", "x"])
@pytest.mark.parametrize("name", ["embedding", "hidden", "layers", "batch", "iterations", "samples"])
def test_bad_counts(folder, capsys, name, value):
    words = f"argument --{name}: expected a whole number from 1 to 2147483647, got {value!r}"
    assert_refused(capsys, main(f"--{name}={value}"), words)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "-inf", "", "x"])
@pytest.mark.parametrize("name", ["learning-rate", "decay", "clip", "temperature", "seconds"])
def test_bad_numbers(folder, capsys, name, value):
    words = f"argument --{name}: expected a positive number, got {value!r}"
    assert_refused(capsys, main(f"--{name}={value}"), words)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--prompt=The ❄", "--prompt: '❄' does not occur in the text"),
        ("--seed=-1", "--seed: expected a whole number from 0"),
        ("--flavour=vanilla", "--flavour=vanilla"),
        ("--layer=2", "--layer=2"),  # not taken for --layers
        ("--resume=yes", "--resume"),
        ("text.txt", "text.txt"),
        ("--checkpoint=nowhere/char_lm.npz", "nowhere/char_lm.npz"),
        ("--checkpoint=.", "--checkpoint .: cannot be written"),
        ("--samples=99999999999999999999", "--samples: expected a whole number from 1 to 2147483647"),
        ("--threads=0", "--threads: expected a whole number from 1 to 1024, got '0'"),
        ("--threads=1025", "--threads: expected a whole number from 1 to 1024, got '1025'"),
        ("--hidden=2147483647", "error: no model of this size: "),
    ],
)
def test_bad_options(folder, capsys, option, words):
    assert_refused(capsys, main(option), words)


def test_bad_input_leaves_no_traceback(folder):
    done = subprocess.run(command("--resume"), env=environment(), capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: char_lm.npz: No such file or directory\n"


def test_without_tqdm_it_says_what_to_install(folder):
    program = f"import sys, runpy; sys.modules['tqdm'] = None; runpy.run_path({str(SCRIPT)!r})"
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, encoding="utf-8")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: the examples need tqdm: pip install '.[demo]'\n"


def test_a_run_that_diverges_ends_with_an_error_and_keeps_its_last_checkpoint(folder, capsys):
    options = "--learning-rate=1e37", "--warm-up=1e30", "--checkpoint-every=1"
    assert main(*options, "--iterations=2") == 0
    before = Path("char_lm.npz").read_bytes()
    capsys.readouterr()
    options = "--learning-rate=1e37", "--warm-up=1e-30", "--checkpoint-every=100"
    assert main(*options, "--iterations=100") == 2
    *bar, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"error: the loss is (nan|inf) at iteration \d+: lower --learning-rate", last)
    assert not any("Warning" in line for line in bar)
    assert Path("char_lm.npz").read_bytes() == before


# Checkpoints ------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(folder, capsys):
    assert main("--iterations=5") == 0
    capsys.readouterr()
    return folder / "char_lm.npz"


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def foreign(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def signed(data):
    return data + hashlib.sha256(data).digest()


DAMAGE = {
    **{f"flip-{k}0%": lambda data, k=k: flipped(data, len(data) * k // 10) for k in range(10)},
    "flip-last": lambda data: flipped(data, -1 % len(data)),
    "half": lambda data: data[: len(data) // 2],
    "one-less": lambda data: data[:-1],
    "one-more": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "pickle": lambda data: pickle.dumps({"about": 1}),
    "foreign": lambda data: foreign(weights=np.zeros(3)),
    # possible only on purpose
    "signed-foreign": lambda data: signed(foreign(weights=np.zeros(3))),
    "signed-list": lambda data: signed(foreign(about=np.array("[1, 2]"))),
    "signed-no-json": lambda data: signed(foreign(about=np.array("{"))),
    "signed-format": lambda data: signed(foreign(about=np.array('{"format": "2"}'))),
    "signed-pickle": lambda data: signed(foreign(about=np.array({"a": 1}, dtype=object))),
    "signed-text": lambda data: signed(b"no archive"),
    "signed-empty": lambda data: signed(b""),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_no_damage_goes_unnoticed(checkpoint, capsys, damage):
    damaged = damage(checkpoint.read_bytes())
    checkpoint.write_bytes(damaged)
    assert_refused(capsys, main("--resume", "--iterations=9"), "char_lm.npz: ")
    assert checkpoint.read_bytes() == damaged


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--hidden=17", "made with --hidden 16, not 17"),
        ("--layers=2", "made with --layers 1, not 2"),
        ("--learning-rate=0.1", "made with --learning-rate 0.01, not 0.1"),
        ("--seed=9", "made with --seed 1, not 9"),
    ],
)
def test_a_checkpoint_resumes_with_its_own_hyperparameters(checkpoint, capsys, option, words):
    assert_refused(capsys, main("--resume", option), words)


def test_a_checkpoint_resumes_with_its_own_text(checkpoint, capsys):
    Path("text.txt").write_text(PROSE.replace("fox", "xof"), encoding="utf-8")
    assert_refused(capsys, main("--resume"), "char_lm.npz: made from another text")


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_checkpoint(checkpoint, capsys, monkeypatch, function):
    before = checkpoint.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        assert main("--resume", "--iterations=9") == 2
    assert "error: char_lm.npz: No space left on device\n" in capsys.readouterr().err
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["char_lm.npz", "text.txt"]
    assert checkpoint.read_bytes() == before
    assert main("--resume", "--iterations=9") == 0


def test_a_power_cut_while_saving_leaves_the_old_checkpoint(checkpoint):
    before = checkpoint.read_bytes()
    program = (
        f"import os, runpy, sys; sys.argv = {command('--resume', '--iterations=9')[1:]!r}\n"
        "os.replace = lambda *names: os._exit(9)\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True)
    assert done.returncode == 9
    assert checkpoint.read_bytes() == before
    run("--resume", "--iterations=9")


def test_a_link_to_a_checkpoint_stays_a_link(checkpoint, capsys):
    link = checkpoint.with_name("link.npz")
    link.symlink_to(checkpoint)
    assert main("--resume", "--iterations=9", "--checkpoint=link.npz") == 0
    assert link.is_symlink()
    assert main("--iterations=9", "--checkpoint=whole.npz") == 0
    assert checkpoint.read_bytes() == Path("whole.npz").read_bytes()


# Several processes ------------------------------------------------------------------------------


def test_ranks_write_the_digest_and_the_checkpoint_of_one_process(folder):
    pytest.importorskip("mpi4py")
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    options = ["--distributed", "--shards=4", "--iterations=6", "--checkpoint-every=3"]
    expected = run(*options, "--checkpoint=one.npz").stdout
    digest = re.search(r"^SHA-256 of the parameters: [0-9a-f]{64}$", expected, re.M)[0]
    for number in (2, 3):
        ranks = [mpiexec, "-n", str(number), *command(*options, f"--checkpoint={number}.npz")]
        done = subprocess.run(ranks, env=environment(), capture_output=True, encoding="utf-8", timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(digest) == 1
        assert (folder / f"{number}.npz").read_bytes() == (folder / "one.npz").read_bytes()
    resumed = run(*options[:2], "--iterations=9", "--checkpoint=2.npz", "--resume")
    whole = run(*options[:2], "--iterations=9", "--checkpoint=one.npz")
    assert (folder / "2.npz").read_bytes() == (folder / "one.npz").read_bytes()
    assert held_out(resumed.stdout) == held_out(whole.stdout)
    failed = subprocess.run([*ranks, "--resume", "--seed=2"], env=environment(), capture_output=True, timeout=60)
    assert failed.returncode != 0 and b"made with --seed 1, not 2" in failed.stderr


def test_shards_need_several_processes(folder, capsys):
    assert_refused(capsys, main("--shards=4"), "--shards", "--distributed")
