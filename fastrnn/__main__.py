"""``python -m fastrnn``: print the configuration, then compare every kernel with the reference.

The exit status is 1 if a comparison fails.
"""

import argparse
import itertools
import signal
import sys
from typing import Any

import numpy as np

from fastrnn import _config, functional, reference
from fastrnn._core import narrow_instructions
from fastrnn._engine.formats import FORMATS
from fastrnn._engine.spec import OPTIONS, SPECS, CellSpec
from fastrnn._version import __version__
from fastrnn.layers import RNN

# (T, B, I, H): one, odd, and around the widths of the vectors and panels
SHAPES = [(1, 1, 1, 1), (5, 3, 7, 5), (9, 2, 16, 33), (4, 17, 31, 48), (3, 40, 65, 64)]
# The largest difference from the reference in float64, relative to the largest number of the array.
TOLERANCE = {np.float32: 5e-6, np.float64: 1e-14}
# From the reference of quantized layers, in float32, where the bits are not the same.
QUANTIZED_TOLERANCE = 5e-6


def _cases() -> list[tuple[CellSpec, bool, dict[str, Any]]]:
    """Each cell with biases, with and without its other optional weights, and with each option."""
    cases: list[tuple[CellSpec, bool, dict[str, Any]]] = []
    for spec in SPECS.values():
        choices = [{name: choice} for name in spec.options for choice in OPTIONS[name].choices]
        cases += [(spec, False, options) for options in choices or [{}]]
        if any(weight.option not in ("", "bias") for weight in spec.weights):
            cases.append((spec, True, {}))
    return cases


def _draw(rng, dtype, shape, spec, everything, options):
    """Random inputs, exactly representable in dtype, as float64: x, state, weights, gradients, options."""
    T, B, I, H = shape
    projected = everything and any(weight.shape[0] == "P" for weight in spec.weights)
    P = max(1, H // 2) if projected else H
    present = {weight.option: everything or weight.option == "bias" for weight in spec.weights}
    weights = spec.shapes({"I": I, "H": H, "P": P, "num_heads": 1 if H % 2 else 2}, present)
    state = [(B, n) for n in spec.widths(H, P)]

    def numbers(shapes):
        return [rng.uniform(-1, 1, n).astype(dtype).astype(np.float64) for n in shapes]

    options = options | ({"lengths": rng.integers(0, T + 1, B), "reverse": True} if T % 2 else {})
    (x, d_output), state, d_state_n = numbers([(T, B, I), (T, B, P)]), numbers(state), numbers(state)
    # A normalizer n is positive; near 0 the quotient h is ill-conditioned.
    state = [1 + np.abs(s) if name == "n" else s for name, s in zip(spec.states, state)]
    # Larger weights would make the layer amplify the rounding of each step.
    weights = {name: array / 4 for name, array in zip(weights, numbers(weights.values()))}
    return x, state, weights, d_output, d_state_n, options


def _results(module, spec, dtype, x, state, weights, d_output, d_state_n, options):
    """Every number that the functions of a module give for these inputs in this precision, by name."""
    inference, forward, backward = (getattr(module, spec.name + way) for way in ("", "_forward", "_backward"))

    def as_state(members):
        members = [array.astype(dtype) for array in members]
        return members if len(members) > 1 else members[0]

    def arrays(name, state):
        return dict(zip([name + one for one in spec.states], state if len(spec.states) > 1 else [state]))

    arguments = x.astype(dtype), as_state(state)
    weights = {name: array.astype(dtype) for name, array in weights.items()}
    inferred, _ = inference(*arguments, **weights, **options)
    output, state_n, tape = forward(*arguments, **weights, **options)
    d_x, d_state, d_params = backward(tape, d_output.astype(dtype), as_state(d_state_n))
    results = {"inference": inferred, "output": output, "d_x": d_x}
    results |= arrays("state_n ", state_n) | arrays("d_state ", d_state)
    return results | {f"d_{name}": gradient for name, gradient in d_params.items()}


def self_check() -> bool:
    """Compare every runnable instruction set with the float64 reference, and print a line for each."""
    good = True
    for name in _config.runnable():
        for dtype, tolerance in TOLERANCE.items():
            rng = np.random.default_rng(1)
            worst, where = 0.0, ""
            for shape, (spec, everything, options) in itertools.product(SHAPES, _cases()):
                inputs = _draw(rng, dtype, shape, spec, everything, options)
                expected = _results(reference, spec, np.float64, *inputs)
                with _config.using(name):
                    actual = _results(functional, spec, dtype, *inputs)
                for key, value in expected.items():
                    error = np.abs(actual[key] - value).max() / max(1.0, np.abs(value).max())
                    if not error <= worst:
                        worst, where = error, f"{key} of {spec.name} at T, B, I, H = {shape}"
            right = worst <= tolerance
            good &= right
            verdict = "ok" if right else f"OFF: {where}"
            print(f"{name:<10} {np.dtype(dtype).name}   largest error {worst:.1e}, allowed {tolerance:.0e}   {verdict}")
    return good


def quantized_check() -> bool:
    """Compare the kernels of quantized layers with the reference, for all instructions, and print a line for each."""
    good = True
    for name in _config.runnable():
        for form, known in narrow_instructions(name).items():
            for instructions in known:
                rng, worst = np.random.default_rng(1), 0.0
                for T, B, I, H in SHAPES:
                    # The outputs of rectifiers are the sums themselves, which are defined to the last bit.
                    layer, x = RNN(I, H, nonlinearity="relu", rng=rng), rng.uniform(-1, 1, (T, B, I))
                    with _config.using(f"{name}+{instructions}"):
                        quantized = layer.quantize(form)  # type: ignore[arg-type]
                        actual, _ = quantized(x)
                    expected, _ = reference.quantized(quantized, x)
                    worst = max(worst, np.abs(actual - expected).max() / max(1.0, np.abs(expected).max()))
                exact = FORMATS[form].round_operand is not None and name != "generic"
                right = worst <= (0 if exact else QUANTIZED_TOLERANCE)
                good &= right
                allowed = "same bits" if exact else f"allowed {QUANTIZED_TOLERANCE:.0e}"
                verdict = "ok" if right else "OFF"
                kernel = f"{name:<10} {form:<8} {instructions:<12}"
                print(f"{kernel} largest error {worst:.1e}, {allowed}   {verdict}")
    return good


HELP = """\
Print the version, the compiler, the instruction sets and the number of threads; then compare the kernels of every
instruction set that this processor can run with the reference. The exit status is 1 if one is off."""

ENVIRONMENT = """\
environment variables, read when fastrnn is imported:
  FASTRNN_ISA       the instruction set to use: generic, avx2, avx512 or neon; default: the fastest; for
                    quantized layers with instructions, as in avx2+avx2
  OMP_NUM_THREADS   the number of threads that a call may use; default: the physical cores that its thread may use
  OMP_THREAD_LIMIT  the most threads that a call may use; default: no limit
"""


EXPORT = "Write a layer as a C header that stands alone, for microcontrollers: weights and the code of a step."


def _export_c(arguments: argparse.Namespace) -> int:
    from fastrnn import capi, load

    try:
        layer: Any = load(arguments.model)
        capi.export_c(layer, arguments.header, arguments.name)
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"export-c: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    if hasattr(signal, "SIGPIPE"):  # a closed reader, as of `python -m fastrnn | head -1`, ends the program
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(
        prog="python -m fastrnn",
        description=HELP,
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="export-c", title="another task")
    export = commands.add_parser("export-c", help=EXPORT, description=EXPORT)
    export.add_argument("model", help="a file of fastrnn.save")
    export.add_argument("header", help="the C header to write")
    export.add_argument("--name", help="the beginning of all names in the header; default: the stem of its file")
    arguments = parser.parse_args()
    if arguments.command == "export-c":
        return _export_c(arguments)
    _config.show_config()
    print(flush=True)
    right = [self_check(), quantized_check()]
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
