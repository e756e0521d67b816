"""`python -m fastrnn export-c`: a layer as one C header that stands alone.

The header has the packed weights, the records of the layers, and the kernels that a step needs: those of csrc/kernels
with the plain C operations of `generic`, under names that begin with the model's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn._version import __version__
from fastrnn.capi import PackedStream, _sources

_HEAD = """\
/* {name}: {layer}, {dtype}. Written by fastrnn {version}, python -m fastrnn export-c.
 *
 *     static {name}_state state;          {state_bytes} bytes: the state of one sequence
 *     {name}_reset(&state);               zeros, the state before the first step
 *     {name}_step(&state, x, y);          one step: x ({inputs}) in, y ({outputs}) out; y may be x
 *
 * C99 or later, with the headers of the C library alone. A step does not allocate, lock or call the system. The
 * weights, {bytes} bytes, are constants. A state may be copied. Any number of states may be in progress.
 *
 * Compile with -ffp-contract=off, or -std=c11, for the bits of fastrnn's kernels for `generic`; without it a compiler
 * may fuse multiplications and additions, which changes the rounding.
 *
 * The kernels are those of fastrnn, whose license is BSD-3-Clause; copyright the fastrnn developers. */
#ifndef {guard}
#define {guard}

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

"""

_FOOT = """\
enum {{ {name}_inputs = {inputs}, {name}_outputs = {outputs} }};

typedef struct {{
    {real} numbers[{numbers}]; /* the states of all layers, then scratch memory */
}} {name}_state;

static inline void {name}_reset({name}_state *state) {{ memset(state, 0, sizeof *state); }}

static inline void {name}_step({name}_state *state, const {real} *x, {real} *y)
{{
    for (int k = 0; k < {layers}; k++) {{
        {real} *own = state->numbers + {name}_layers[k].state;
        {cell}_stream_{name}(&{name}_layers[k], {name}_numbers, x, own, state->numbers + {states});
        x = own;
    }}
    memcpy(y, x, {outputs} * sizeof *y);
}}

#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#endif
"""


def header(layer: Any, name: str) -> str:
    """Return the text of a C header with this layer.

    Parameters
    ----------
    layer : LSTM or another recurrent layer
    name : str
        The beginning of all names in the header.

    Raises
    ------
    TypeError, ValueError
        If `layer` cannot be streamed or has weights that are not finite, or `name` is no identifier of C.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(f"name: expected an identifier of C, a letter first, got {name!r}")
    packed = PackedStream(layer, isa="generic")
    numbers, layers, states, scratch = packed.contents()
    weights = np.frombuffer(numbers, packed.dtype)
    if not np.isfinite(weights).all():
        raise ValueError("layer: has weights that are not finite, which C has no constants for")
    is_float = packed.dtype == np.float32
    cell = layer._stack.kernel.name
    values = {
        "name": name, "guard": f"{name.upper()}_H", "layer": repr(layer), "dtype": packed.dtype, "version": __version__,
        "inputs": packed.inputs, "outputs": packed.outputs, "state_bytes": packed.state_bytes, "bytes": len(numbers),
        "real": "float" if is_float else "double", "numbers": states + scratch, "states": states, "layers": len(layers),
        "cell": cell,
    }  # fmt: skip
    # A constant, the same for all layers of a stack, halves the code.
    kernels = _kernels(cell, is_float, name).replace("layer->has_options", str(layers[0]["has_options"]))
    text = _HEAD.format(**values) + kernels + _data(name, values["real"], weights, layers)
    return text + _undefined(kernels) + _FOOT.format(**values)


def _kernels(cell: str, is_float: bool, name: str) -> str:
    """The sources that a step of a cell needs, in one precision, under names of the model's own."""
    precision, other = ("f32", "f64") if is_float else ("f64", "f32")
    folder, public = _sources("_kernels", "kernels"), _sources("include", ".")
    parts = [_options((public / "fastrnn.h").read_text(encoding="utf-8"))]
    parts += [_read(folder / file) for file in ("stream_types.h", "names.h", "vec/generic.h", "exponential.h")]
    parts.append(f"#define real {'float' if is_float else 'double'}\n#define SUFFIX {precision}\n")
    parts += [_read(folder / f"{file}.inc.h") for file in ("lanes", "activation", "options", "units", "stream")]
    parts.append(
        "#define DEFINE_CELL(CELL, GATES_0, GATES_1, BLOCK, FIRST, SECOND, THIRD, ...)"
        " DEFINE_STREAM(CELL, GATES_0, GATES_1, FIRST, SECOND, THIRD)\n"
    )
    parts.append(_cell(folder / "cells", cell))
    text = re.sub(r"\bv_prefetch\w*", rf"\g<0>_{name}", "\n".join(parts))
    text = re.sub(r"(?<![A-Za-z0-9])fastrnn_", f"{name}_", text)
    text = re.sub(r"(?<![A-Za-z0-9])FASTRNN_", f"{name}_", text)
    text = re.sub(rf"(?<![A-Za-z0-9]){other}\b", f"{name}_{other}", text)
    return re.sub(rf"(?<![A-Za-z0-9]){precision}\b", name, text)


def _cell(folder: Path, cell: str) -> str:
    """The source of the equations of a cell."""
    for path in folder.glob("*.inc.h"):
        text = _read(path)
        if f"DEFINE_CELL({cell}," in text:
            return text
    raise LookupError(f"no file of {folder} defines the cell {cell}")


def _read(path: Path) -> str:
    """A source file without its guard, its #include lines and the parts for backward."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"^#ifndef FASTRNN_FORWARD_ONLY\n.*?^#endif\n", "", text, flags=re.DOTALL | re.MULTILINE)
    guarded = re.search(r"^#ifndef (FASTRNN_\w+_H)\n#define \1\n(.*)^#endif\n", text, flags=re.DOTALL | re.MULTILINE)
    if guarded:
        text = text[: guarded.start()] + guarded[2]
    return re.sub(r"^#include .*\n", "", text, flags=re.MULTILINE)


def _options(text: str) -> str:
    """The types of the options, from fastrnn.h."""
    begin, end = text.index("/* Options of a cell's activations. */"), text.index("} fastrnn_options;")
    (most,) = re.findall(r"FASTRNN_MOST_STATES = \d+", text)
    return f"enum {{ {most} }};\n\n{text[begin:end]}}} fastrnn_options;\n"


def _undefined(text: str) -> str:
    """Lines that undefine the macros which the text leaves defined."""
    defined = dict.fromkeys(re.findall(r"^\s*#\s*define (\w+)", text, flags=re.MULTILINE))
    ended = set(re.findall(r"^\s*#\s*undef (\w+)", text, flags=re.MULTILINE))
    return "".join(f"#undef {macro}\n" for macro in defined if macro not in ended) + "\n"


def _data(name: str, real: str, weights: np.ndarray, layers: list[dict[str, Any]]) -> str:
    """The numbers of a stream and its layers, as constants; the numbers in base 16, which is exact."""
    suffix = "f" if real == "float" else ""
    texts = [number.hex() + suffix for number in weights.astype(np.float64).tolist()]
    rows = [", ".join(texts[k : k + 6]) for k in range(0, len(texts), 6)]
    data = f"static const {real} {name}_numbers[{len(texts)}] = {{\n    " + ",\n    ".join(rows) + "};\n\n"
    records = ",\n".join(f"    {_initializer(layer)}" for layer in layers)
    return f"{data}static const {name}_stream_layer {name}_layers[{len(layers)}] = {{\n{records}}};\n\n"


def _initializer(value: Any) -> str:
    """A designated initializer of a struct, an array or a number."""
    if isinstance(value, dict):
        return "{" + ", ".join(f".{key} = {_initializer(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(_initializer, value)) + "}"
    return repr(value)
