"""The checkpoints of char_lm.py, from which a training goes on bit for bit.

A checkpoint is an .npz file with its own SHA-256 at the end: np.load reads it, and no damage goes unnoticed.
"""

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

from training import Failure  # first, because NumPy's threads are set there
import numpy as np

FORMAT = "fastrnn char_lm 2"
ADAM = "adam."  # before the names of the optimizer's state
HYPERPARAMETERS = (
    "embedding", "hidden", "layers", "batch", "unroll", "learning_rate", "warm_up", "decay",
    "clip", "seed", "shards",
)  # fmt: skip


def save_checkpoint(path, training, text, o):
    """Writes the state of all ranks, on rank 0."""
    training.gather_state()
    if training.group.rank:
        return
    about = {
        "format": FORMAT,
        "iteration": training.iteration,
        "text": text.sha256,
        "vocabulary": text.vocabulary,
        "hyperparameters": {name: getattr(o, name) for name in HYPERPARAMETERS},
    }
    payload = io.BytesIO()
    state = {ADAM + name: value for name, value in training.optimizer.state_dict().items()}
    np.savez(payload, about=np.array(json.dumps(about)), **model_arrays(training), **state)
    data = payload.getvalue()
    try:
        write_atomically(path, data + hashlib.sha256(data).digest())
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None


def load_checkpoint(path, training, text, o):
    """Brings `training` to where the checkpoint was saved."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    data, digest = data[:-32], data[-32:]
    if hashlib.sha256(data).digest() != digest:
        raise Failure(f"{path}: damaged, or no checkpoint of this program")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as saved:
            about = json.loads(str(saved["about"]))
            if about["format"] != FORMAT:
                raise Failure(f"{path}: has format {about['format']!r}, not {FORMAT!r}")
            for name, value in about["hyperparameters"].items():
                if value != getattr(o, name):
                    option = "--" + name.replace("_", "-")
                    raise Failure(f"{path}: made with {option} {value}, not {getattr(o, name)}")
            if about["text"] != text.sha256:
                raise Failure(f"{path}: made from another text")
            for name, array in model_arrays(training).items():
                array[...] = saved[name]
            training.optimizer.load_state_dict(
                {name.removeprefix(ADAM): saved[name] for name in saved if name.startswith(ADAM)}
            )
            training.iteration = about["iteration"]
    except (AttributeError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        raise Failure(f"{path}: no checkpoint of this program") from None


def model_arrays(training):
    """Name -> array, the very arrays that training works on."""
    names = ("embedding", "lstm", "head")
    h, c = training.state
    return {"h": h, "c": c} | {name: params.flat for name, params in zip(names, training.model.params)}


def write_atomically(path, data):
    """Replaces `path` atomically: after a power failure it holds either the old content or all of `data`."""
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # make the new name last too
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
