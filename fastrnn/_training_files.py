"""The state of training in a safetensors file: parameters, optimizer, step, random generator, further arrays.

The metadata hold one key, "fastrnn_training", a JSON object:

    {"format_version": 1, "shards": 16, "step": 100, "optimizer": {"class": "Adam", "steps": 100, "lr": 0.001},
     "rng": {"bit_generator": "PCG64", ...}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn import optim
from fastrnn._files import MOST_TENSORS, content_of, from_json, import_safetensors, parts_of, path_of, write_atomically
from fastrnn._validation import Array, number, size
from fastrnn.parameters import Parameters

METADATA_KEY = "fastrnn_training"
FORMAT_VERSION = 1
MOST_OBJECTS = 8  # of JSON in the metadata, which count as tensors when a file is read


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace the file atomically."""
    write_atomically(path_of(path), data)


def read(path: str | os.PathLike[str]) -> tuple[str, dict[str, Array]]:
    """The description and the arrays of a file."""
    path = path_of(path)
    import_safetensors()
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = content_of(path)
        return parts_of(data, METADATA_KEY, "Group.checkpoint")[0], load(data)
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"{path}: {error}") from error


class State:
    """The objects of training that a file keeps, by name: they are saved, and restored in place."""

    def __init__(
        self,
        shards: int,
        params: optim.Given,
        optimizer: optim.Optimizer | None,
        rng: np.random.Generator | None,
        arrays: Mapping[str, Array] | None,
    ) -> None:
        if optimizer is not None and not isinstance(optimizer, optim.Optimizer):
            raise TypeError(f"optimizer: expected an optimizer of fastrnn.optim, got {type(optimizer).__name__}")
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
        self._shards, self._optimizer, self._rng = shards, optimizer, rng
        self._arrays = dict(_named_arrays(params)) | _further(arrays)

    def to_bytes(self, step: int) -> bytes:
        """The content of a file."""
        import_safetensors()
        from safetensors.numpy import save

        about: dict[str, Any] = {"format_version": FORMAT_VERSION, "shards": self._shards, "step": step}
        tensors = {name: np.asarray(array, order="C") for name, array in self._arrays.items()}
        if self._optimizer is not None:
            state = self._optimizer.state_dict()
            about["optimizer"] = self._about_optimizer() | {"steps": state.pop("steps"), "lr": self._optimizer.lr}
            tensors |= {f"optimizer.{name}": array for name, array in state.items()}
        most = MOST_TENSORS - MOST_OBJECTS
        if len(tensors) > most:
            raise ValueError(f"params, optimizer, arrays: {len(tensors)} arrays, a file holds at most {most}")
        if self._rng is not None:
            about["rng"] = _to_json(self._rng.bit_generator.state)
        return save(tensors, {METADATA_KEY: json.dumps(about, allow_nan=False)})

    def _about_optimizer(self):
        return {"class": type(self._optimizer).__name__}

    def restore(self, path: str | os.PathLike[str], content: tuple[str, dict[str, Array]]) -> int:
        """Set all values to those of the file, if all of them fit; return the step."""
        try:
            return self._restore(*content)
        except KeyError as error:
            raise ValueError(f"{os.fsdecode(path)}: damaged: {error} is not in the file") from error
        except (OverflowError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fsdecode(path)}: {error}") from error

    def _restore(self, text, tensors):
        about = from_json(text)
        if about["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version: expected {FORMAT_VERSION}, got {about['format_version']!r}")
        if about["shards"] != self._shards:
            raise ValueError(f"shards: made with {about['shards']!r} shards, this group has {self._shards}")
        for name, is_wanted in ("optimizer", self._optimizer is not None), ("rng", self._rng is not None):
            if (name in about) != is_wanted:
                raise ValueError(f"{name}: " + ("is not in the file" if is_wanted else "is in the file"))
        step = size("step", about["step"], minimum=0)
        expected = dict(self._arrays)
        if self._optimizer is not None:
            steps, lr = size("steps", about["optimizer"]["steps"], minimum=0), number("lr", about["optimizer"]["lr"])
            kind = self._about_optimizer()["class"]
            if about["optimizer"]["class"] != kind:
                raise ValueError(f"optimizer: expected {kind}, got {about['optimizer']['class']}")
            state = self._optimizer.state_dict()
            del state["steps"]
            expected |= {f"optimizer.{name}": array for name, array in state.items()}
        _check_fit(expected, tensors)
        # Everything is known to fit from here on, except that a bit generator has limits of its own: it comes first.
        if self._rng is not None:
            _set_state(self._rng.bit_generator, _in_form_of(self._rng.bit_generator.state, about["rng"]))
        if self._optimizer is not None:
            self._optimizer.lr = lr
            self._optimizer.load_state_dict({"steps": steps} | {name: tensors[f"optimizer.{name}"] for name in state})
        for name, array in self._arrays.items():
            array[...] = tensors[name]
        return step


def _named_arrays(params):
    """The arrays of parameters: "params", or "params.NAME", with the place before the name if there are several."""
    targets, is_single = optim._several("params", params)
    optim.arrays_of("params", params)  # checks
    for k, target in enumerate(targets):
        prefix = "params" if is_single else f"params.{k}"
        if isinstance(target, Parameters):
            yield from ((f"{prefix}.{name}", array) for name, array in target._views().items())
        else:
            yield prefix, target


def _further(arrays):
    if arrays is None:
        return {}
    if not isinstance(arrays, Mapping) or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise TypeError("arrays: expected a mapping of names to ndarrays")
    return {f"arrays.{name}": array for name, array in arrays.items()}


def _check_fit(expected, found):
    problems = [f"{name}: missing" for name in expected.keys() - found.keys()]
    problems += [f"{name}: not expected" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        form, wanted = [(array.dtype, array.shape) for array in (found[name], expected[name])]
        if form != wanted:
            problems.append(f"{name}: expected {wanted[0]} {wanted[1]}, got {form[0]} {form[1]}")
        elif not expected[name].flags.writeable:
            problems.append(f"{name}: read-only")
    if problems:
        raise ValueError("the arrays do not fit: " + "; ".join(sorted(problems)[:8]))


# The state of a bit generator: a dictionary of integers, of any size, of strings, and of arrays of some kinds


def _to_json(value):
    if isinstance(value, dict):
        return {name: _to_json(one) for name, one in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _set_state(generator, state):
    """Set the state of a bit generator; on any error it keeps the state before."""
    before = generator.state
    try:
        generator.state = state
    except (OverflowError, TypeError, ValueError) as error:
        generator.state = before
        raise ValueError(f"rng: {error}") from error


def _in_form_of(present, value):
    """The value in the form of the present state."""
    if isinstance(present, dict):
        if not isinstance(value, dict) or present.keys() != value.keys():
            raise ValueError(f"rng: expected a state of {present.get('bit_generator', 'the same form')}")
        return {name: _in_form_of(one, value[name]) for name, one in present.items()}
    if isinstance(present, np.ndarray):
        return np.array(value, present.dtype).reshape(present.shape)
    if type(present) is not type(value) or (isinstance(value, str) and value != present):
        raise ValueError(f"rng: expected {present!r}, got {value!r}")
    return value
