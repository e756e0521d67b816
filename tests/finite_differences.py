"""The gradients of the functions of one layer and one direction against finite differences, in float64."""

import itertools
import math

import numpy as np

import recurrent_cases
from fastrnn import reference

STEP = 3e-4


def slope(loss, step):
    """The derivative of loss at 0, and a bound of the error that comes from the step, by Richardson's extrapolation.

    Central differences of three steps make two five-point formulas, whose errors are in proportion to step**4; those
    make one of seven points. Its error is far below the difference to the better of the two. Rounding / step comes on
    top.
    """
    three = [(loss(s) - loss(-s)) / (2 * s) for s in (step, 2 * step, 4 * step)]
    five = [near + (near - far) / 3 for near, far in itertools.pairwise(three)]
    correction = (five[0] - five[1]) / 15
    return five[0] + correction, abs(correction)


def kinks(case):
    """The pre-activations at which an activation of the case has no derivative."""
    options = case.options
    of_gates = {"hard_sigmoid_fifth": 2.5, "hard_sigmoid_sixth": 3.0}.get(options.get("recurrent_activation"))
    bounds = [bound for bound in (of_gates, options.get("clip")) if bound is not None]
    relu = "relu" in (options.get("activation"), options.get("nonlinearity"))
    return sorted([*bounds, *(-bound for bound in bounds), *([0.0] if relu else [])])


def branch(case):
    """Bytes that tell on which side of every kink each number of the reference's forward pass is.

    Where they are the same, the loss is one smooth function of the arguments. That of a maximum is its larger operand.
    """
    _, _, tape = getattr(reference, f"{case.cell}_forward")(
        case.x, recurrent_cases.of_cell(case, case.state), **case.weights, **case.options
    )
    edges = kinks(case)
    deciding = [array for *_, saved in tape.steps for array in saved[1]]
    return b"".join((a if a.dtype == bool else np.digitize(a, edges).astype(np.int8)).tobytes() for a in deciding)


def assert_slopes(case, rng, module=reference, smooth=True):
    """Every gradient, along random directions of length one through all of its array.

    Where the case is not smooth, directions are drawn until no point of the finite differences lies beyond a kink; an
    array for which 20 draws do not find two such directions is checked along those found. Returns how many directions
    have been checked, and how many arrays the case has.
    """
    results = recurrent_cases.run(module, case)
    cotangents = [case.d_output, *case.d_state_n]
    expected_branch = None if smooth else branch(case)

    def loss(case):
        values = recurrent_cases.infer(module, case)
        return math.fsum(itertools.chain.from_iterable((d * v).flat for d, v in zip(cotangents, values, strict=True)))

    def check(name, array, changed):
        found = 0
        for _ in range(2 if smooth else 20):
            direction = rng.standard_normal(array.shape)
            if name == "n_0":
                direction[array == 0] = 0  # an empty state stays empty
            direction /= max(np.linalg.norm(direction), 1e-300)
            points = [changed(array + STEP * k * direction) for k in (-4, -2, -1, 1, 2, 4)]
            if not smooth and any(branch(point) != expected_branch for point in points):
                continue
            expected, inexact = slope(lambda length: loss(changed(array + length * direction)), STEP)
            actual = np.sum(results[f"d_{name}"] * direction)
            # Measured in 25,000 cases: below 1e-11 of the first, and `inexact` below 3e-9.
            assert abs(actual - expected) <= 1e-10 * max(1.0, abs(expected)) + inexact, name
            found += 1
            if found == 2:
                break
        return found

    def with_state(k):
        return lambda a: case._replace(state=(*case.state[:k], a, *case.state[k + 1 :]))

    checked = [check("x", case.x, lambda a: case._replace(x=a))]
    for k, name in enumerate(recurrent_cases.STATES[case.cell]):
        checked.append(check(f"{name}_0", case.state[k], with_state(k)))
    for name, array in case.weights.items():
        checked.append(check(name, array, lambda a, name=name: case._replace(weights=case.weights | {name: a})))
    return sum(checked), len(checked)
