"""Quantized layers as objects: rounding of weights, attributes, errors, copies, comparisons."""

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

import fastrnn
from fastrnn import reference
from fastrnn._engine.formats import FORMATS, bfloat16_of, int8_rows, widened
from quantized_cases import ALL_FORMATS, KINDS, arrays_of, bytes_of, is_rounded, make, state_of

form = pytest.fixture(params=ALL_FORMATS)(lambda request: request.param)
kind = pytest.fixture(params=KINDS)(lambda request: request.param)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Rounding


def rounded(name, weight):
    return FORMATS[name].round(np.asarray(weight, np.float32))


def test_rows_of_int8():
    """A scale for each row, integers to the nearest, ties to even, and every number within half a scale."""
    weight = numbers(40, 33) * np.geomspace(1e-20, 1e20, 40, dtype=np.float32)[:, None]
    values, scales = rounded("int8", weight)
    assert values.dtype == np.int8 and scales.dtype == np.float32
    assert (np.abs(values).max(axis=1) == 127).all()
    assert (scales == np.abs(weight).max(axis=1) / np.float32(127)).all()
    error = np.abs(values * scales.astype(np.float64)[:, None] - weight)
    assert (error <= 0.50001 * scales[:, None]).all()
    assert rounded("int8", [[127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5]])[0].tolist() == [[127, 0, 2, 2, 0, -2, -126]]


def test_rows_of_int8_without_a_scale():
    """Zeros, denormals, and numbers so small that a scale would be denormal."""
    values, scales = rounded("int8", [[0, -0.0], [1e-45, -1e-38], [2**-100, -(2**-101)], [2**-101, 2**-149]])
    assert values.tolist() == [[0, 0], [0, 0], [127, -64], [0, 0]]
    assert scales.tolist() == [0, 0, np.float32(2**-100) / np.float32(127), 0]


def test_operands_of_int8():
    """The rows of an operand; of a bounded one with the fixed scale up to 1.001."""
    rows = np.array([[1, -0.5], [1.001, 0.25], [1.5, 0.75], [0, 0], [np.nan, 1], [np.inf, 1]], np.float32)
    integers, scales = int8_rows(rows, is_bounded=True)
    assert integers.tolist() == [[127, -64], [127, 32], [127, 64], [0, 0], [0, 0], [0, 0]]
    fixed, three_halves = np.float32(1) / np.float32(127), np.float32(1.5) / np.float32(127)
    assert scales[:4].tolist() == [fixed, fixed, three_halves, fixed] and np.isnan(scales[4:]).all()
    integers, scales = int8_rows(rows)
    assert integers.tolist() == [[127, -64], [127, 32], [127, 64], [0, 0], [0, 0], [0, 0]]
    assert scales[:4].tolist() == [fixed, rows[1, 0] / np.float32(127), three_halves, 0] and np.isnan(scales[4:]).all()


def test_bfloat16():
    """The nearer of the two neighbours, and the even one of a tie; NaN, infinities and zeros stay."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2**32, 100_000, np.uint32)
    a[:1000] = (a[:1000] & 0xFFFF0000) | 0x8000  # ties
    a = a.view(np.float32)[np.isfinite(a.view(np.float32)) & (np.abs(a.view(np.float32)) < 3.3e38)]
    bits = bfloat16_of(a)
    below = (a.view(np.uint32) >> 16).astype(np.uint16)
    exact, low, high = a.astype(np.float64), widened(below).astype(np.float64), widened(below + 1).astype(np.float64)
    is_tie = np.abs(exact - low) == np.abs(high - exact)
    nearer = np.where(np.abs(exact - low) < np.abs(high - exact), below, below + 1)
    assert is_tie.sum() >= 900
    assert (bits == np.where(is_tie, below + (below & 1), nearer)).all()
    special = np.array([np.inf, -np.inf, 0.0, -0.0, 3.4e38], np.float32)
    assert widened(bfloat16_of(special)).tolist() == [np.inf, -np.inf, 0.0, -0.0, np.inf]
    assert np.isnan(
        widened(bfloat16_of(np.array([0x7F800001, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)))
    ).all()


def patterns(count, seed=0):
    """Float32 numbers of random bits."""
    return np.random.default_rng(seed).integers(0, 2**32, count, np.uint32).view(np.float32)


def assert_rounded_to(name, numbers, expected):
    """Rounded as one row, every number has the bits of `expected`."""
    values, _ = rounded(name, numbers[None])
    bits = values.view(f"u{values.itemsize}")[0]
    differ = np.flatnonzero(bits != expected.view(bits.dtype))
    assert differ.size == 0, (numbers[differ[:3]], bits[differ[:3]], expected[differ[:3]])


def boundaries(numbers):
    """Sorted numbers, the ties between neighbours, and the float32 numbers next to both."""
    numbers = np.unique(numbers)
    ties = (numbers[1:].astype(np.float64) + numbers[:-1]) / 2
    assert (ties.astype(np.float32) == ties).all()
    some = np.concatenate([numbers, ties.astype(np.float32)])
    return np.concatenate([some, np.nextafter(some, np.float32(-np.inf)), np.nextafter(some, np.float32(np.inf))])


def test_float16_has_the_bits_of_numpy():
    """All halves, all ties between them, the float32 numbers next to both, and random bits."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    of_halves = halves[np.isfinite(halves)].astype(np.float32)
    infinities = np.array([np.inf, -np.inf], np.float32)
    some = np.concatenate([of_halves, boundaries(of_halves), patterns(2**20), infinities])
    with np.errstate(over="ignore"):
        expected = some.astype(np.float16)
    fits = ~np.isnan(some) & (np.isfinite(expected) | np.isinf(some))
    assert fits.sum() > 800_000
    assert_rounded_to("float16", some[fits], expected[fits])
    for number in some[~fits & ~np.isnan(some)][:50]:
        with pytest.raises(ValueError, match="^has a number that is too large for float16$"):
            rounded("float16", [[number]])


def test_bfloat16_has_the_bits_of_the_reference():
    """All its numbers, the ties between them and their neighbours, and random bits."""
    uppers = np.arange(2**16, dtype=np.uint32) << 16
    some = np.concatenate([uppers | lower for lower in (0, 0x7FFF, 0x8000, 0x8001)]).view(np.float32)
    some = np.concatenate([some, patterns(2**20)])
    fits = np.isfinite(widened(bfloat16_of(some))) | ~np.isfinite(some)
    assert fits.sum() > 2**20
    assert_rounded_to("bfloat16", some[fits], bfloat16_of(some[fits]))


def e4m3_values():
    """The numbers of all bit patterns of E4M3 without infinities, from its definition."""
    sign, exponent, mantissa = np.arange(256) >> 7, np.arange(256) >> 3 & 15, np.arange(256) & 7
    of_normal, of_denormal = np.ldexp(1 + mantissa / 8, exponent - 7), np.ldexp(mantissa / 8, -6)
    values = np.where(exponent == 0, of_denormal, of_normal) * np.where(sign, -1, 1)
    return np.where((np.arange(256) & 0x7F) == 0x7F, np.nan, values).astype(np.float32)


def test_the_numbers_of_float8():
    """A row of all finite ones has the scale 1 and comes back, with the dtypes of two other libraries, too."""
    values = e4m3_values()
    of_float8 = np.arange(256, dtype=np.uint8)[np.isfinite(values)]
    rows, scales = rounded("float8", values[of_float8][None])
    assert rows[0].tobytes() == of_float8.tobytes() and scales.tolist() == [1]
    assert FORMATS["float8"].widen(rows, scales).tobytes() == values[of_float8].tobytes()


@pytest.mark.parametrize("library", ["ml_dtypes", "torch"])
def test_float8_has_the_bits_of_other_libraries(library):
    """All ties and the numbers next to them, random numbers, and numbers of every magnitude."""
    other = pytest.importorskip(library)
    some = boundaries(e4m3_values()[:127])
    some = np.concatenate([some, -some, numbers(50_000), numbers(50_000) * 100, patterns(50_000)])
    some = np.append(some[np.abs(some) <= 448], np.float32(448))  # which makes the scale 1
    if library == "torch":
        expected = other.from_numpy(some).to(other.float8_e4m3fn).view(other.uint8).numpy()
        widened = other.from_numpy(expected).view(other.float8_e4m3fn).float().numpy()
    else:
        expected = some.astype(other.float8_e4m3fn).view(np.uint8)
        widened = expected.view(other.float8_e4m3fn).astype(np.float32)
    assert_rounded_to("float8", some, expected)
    assert FORMATS["float8"].widen(expected[None], np.ones(1, np.float32))[0].tobytes() == widened.tobytes()


def test_scales_of_float8():
    """The least power of two with which no number exceeds 448; rows below 2^-100 are zeros."""
    powers = np.ldexp(np.float32(1), np.arange(-108, 119)).astype(np.float32)
    largest = 448 * powers
    rows = np.stack([largest, np.nextafter(largest, np.float32(np.inf)), largest / 3], axis=1)
    for column, factor in ((0, 1), (1, 2)):
        some = np.ascontiguousarray(-rows[:, [column, 2]])
        values, scales = rounded("float8", some)
        assert (scales == factor * powers).all()
        error = np.abs(FORMATS["float8"].widen(values, scales).astype(np.float64) - some)
        assert (error <= np.abs(some) * 2.0**-4).all()
    values, scales = rounded("float8", [[2.0**-100, 2.0**-118, -0.0], [-(2.0**-101), 1e-45, 0]])
    assert scales.tolist() == [2.0**-108, 0]
    assert (values.tolist(), values[0, 2]) == ([[0x78, 0, 0x80], [0x80, 0, 0]], 0x80)


def test_a_nan_keeps_its_sign_and_the_upper_bits_of_its_payload():
    """In float16, as in NumPy where it converts without instructions; one in bfloat16 is the NaN."""
    bits = np.array([0x7F800001, 0xFF800001, 0x7FC00000, 0xFFBFE000, 0x7F802000, 0xFFFFFFFF], np.uint32)
    nan = bits.view(np.float32)[None]
    assert rounded("float16", nan)[0].view(np.uint16).tolist() == [[0x7C01, 0xFC01, 0x7E00, 0xFDFF, 0x7C01, 0xFFFF]]
    assert rounded("bfloat16", nan)[0].tolist() == [[0x7FC0] * 6]


def test_int8_has_the_bits_of_the_reference():
    """Rows of random bits of all magnitudes, and of ties."""
    rows = patterns(400 * 96).reshape(400, 96)
    rows[~np.isfinite(rows)] = 0
    rows[:200] = numbers(200, 96) * np.geomspace(2.0**-120, 2.0**100, 200, dtype=np.float32)[:, None]
    rows[200:210] = np.arange(-47.5, 48.5) * np.float32(2.0) ** np.arange(-60, 40, 10)[:, None]
    rows[200:210, 0] = 127 * np.float32(2.0) ** np.arange(-60, 40, 10)
    integers, scales = int8_rows(rows)
    values, of_rows = rounded("int8", rows)
    assert values.tobytes() == integers.astype(np.int8).tobytes() and of_rows.tobytes() == scales.tobytes()


@pytest.mark.parametrize("K", [1, 2, 15, 16, 17, 33])
def test_the_length_of_a_row(form, K):
    """Of the blocks of the loop, and less."""
    weight = numbers(7, K)
    values, scales = rounded(form, weight)
    for k in range(K):
        # Beside the largest number of its row, which decides the scale.
        pair = np.stack([np.abs(weight).max(axis=1), weight[:, k]], axis=1)
        assert rounded(form, pair)[0][:, 1].tobytes() == np.ascontiguousarray(values[:, k]).tobytes()


@pytest.mark.parametrize("form", ["int8", "float16", "bfloat16"])
def test_every_number_of_a_weight_is_checked(form, threads):
    """By each thread, in full blocks and after them."""
    threads(2)
    reason = "that is not finite, which int8 cannot express" if form == "int8" else f"that is too large for {form}"
    weight = numbers(1100, 100)
    before = rounded(form, weight)[0].tobytes()
    for row, column in ((0, 0), (0, 99), (549, 15), (550, 16), (1099, 95), (1099, 96)):
        kept, weight[row, column] = weight[row, column], np.inf if form == "int8" else -3.4e38
        with pytest.raises(ValueError, match=f"^has a number {reason}$"):
            rounded(form, weight)
        weight[row, column] = kept
    threads(1)
    assert rounded(form, weight)[0].tobytes() == before


def test_the_fused_multiply_add_of_the_reference():
    """Against exact fractions, for sums near ties of float32, and cancellation."""
    rng = np.random.default_rng(1)
    a, b = numbers(4000, seed=2), numbers(4000, seed=3)
    c = numbers(4000, seed=4) * np.float32(2.0) ** rng.integers(-40, 40, 4000).astype(np.float32)
    c[:1000] = -(a[:1000] * b[:1000])  # the exact result is the rounding error of the product
    half = np.float32(2.0**-24)  # ties of numbers of 1 to 2, with a tail far below
    a[1000:2000], b[1000:2000], c[1000:2000] = half, 1 + rng.integers(-1, 2, 1000) * np.float32(2.0**-23), c[1000:2000]
    c[1000:2000] = 1 + rng.integers(0, 2**20, 1000) * np.float32(2.0**-23)
    for actual, x, y, z in zip(reference.fma(a, b, c), a, b, c):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        distance = abs(Fraction(float(actual)) - exact)
        for other in (np.nextafter(actual, np.float32(np.inf)), np.nextafter(actual, np.float32(-np.inf))):
            further = abs(Fraction(float(other)) - exact)
            assert distance < further or distance == further and int(actual.view(np.uint32)) % 2 == 0
    tiny = np.float32(2.0**-126)
    assert reference.fma(tiny, np.float32(0.5), np.float32(0)) == 0  # a denormal result
    assert reference.fma(tiny / 2, np.float32(2), np.float32(0)) == 0  # a denormal factor
    assert reference.fma(tiny, np.float32(0.5), tiny) == np.float32(1.5 * 2.0**-126)
    assert np.isnan(reference.fma(np.float32(np.inf), np.float32(1), np.float32(-np.inf)))
    assert reference.fma(np.float32(3e38), np.float32(2), np.float32(-3e38)) == np.float32(3e38)


@pytest.mark.parametrize("form", ["int8", "float8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(form, value):
    layer = fastrnn.LSTM(3, 4, 2, rng=0)
    layer.params["weight_hh_l1"][5, 2] = value
    with pytest.raises(
        ValueError, match=f"^weight_hh_l1: has a number that is not finite, which {form} cannot express$"
    ):
        layer.quantize(form)


def test_numbers_that_are_too_large():
    limits = ("float16", 65519, 65520), ("bfloat16", 3.3961e38, 3.3962e38), ("float8", 1.75 * 2.0**127, 2.978e38)
    for name, largest, too_large in limits:
        layer = fastrnn.GRU(3, 4, rng=0)
        layer.params["weight_ih_l0"][7, 1] = -largest
        assert np.isfinite(layer.quantize(name).dequantized().params["weight_ih_l0"]).all()
        layer.params["weight_ih_l0"][7, 1] = -too_large
        with pytest.raises(ValueError, match=f"^weight_ih_l0: has a number that is too large for {name}$"):
            layer.quantize(name)
        if name == "float8":
            continue
        layer.params["weight_ih_l0"][7, :2] = np.nan, np.inf
        values = layer.quantize(name).dequantized().params["weight_ih_l0"][7]
        assert np.isnan(values[0]) and values[1] == np.inf


def test_rounding_does_not_depend_on_the_rows_around(form):
    """Rows are rounded in blocks."""
    weight = numbers(300, 517)
    values, scales = rounded(form, weight)
    for rows in (slice(0, 1), slice(63, 65), slice(299, 300)):
        some, some_scales = rounded(form, weight[rows])
        assert some.tobytes() == values[rows].tobytes()
        assert scales is None or some_scales.tobytes() == scales[rows].tobytes()


def test_too_many_columns():
    layer = fastrnn.RNN(130_000, 1, rng=0)
    layer.quantize("int8")
    layer = fastrnn.RNN(130_001, 1, rng=0)
    layer.quantize("float16")
    with pytest.raises(ValueError, match="^weight_ih_l0: has 130001 columns, and int8 allows 130000$"):
        layer.quantize("int8")


# The object


def test_the_parameters(form):
    layer = fastrnn.LSTM(5, 6, 2, bidirectional=True, proj_size=3, peephole=True, rng=0)
    before = layer.params.copy()
    q = layer.quantize(form)
    assert layer.params == before
    names = [name for name in q.params if not name.startswith("scale_")]
    assert names == list(layer.params)
    matrix = {"int8": np.int8, "float16": np.float16, "bfloat16": np.uint16, "float8": np.uint8}[form]
    for name, array in q.params.items():
        assert array.dtype == (matrix if is_rounded(name, form) else np.float32)
        assert not array.flags.writeable
        if name in layer.params:
            assert array.shape == layer.params[name].shape and not np.may_share_memory(array, layer.params[name])
        if name in layer.params and not is_rounded(name, form):
            assert array.tobytes() == layer.params[name].tobytes()
    assert q.params.nbytes == q.nbytes == sum(array.nbytes for array in q.params.values())
    assert ("scale_hr_l1_reverse" in q.params) == (form in ("int8", "float8"))
    assert repr(q.params).startswith(f"QuantizedParameters({q.nbytes} bytes\n    weight_ih_l0: ")
    with pytest.raises(KeyError, match="weight: is not among the names weight_ih_l0"):
        q.params["weight"]
    with pytest.raises(ValueError, match="read-only"):
        q.params["bias_ih_l0"][0] = 1


def test_later_changes_of_the_layer_do_not_matter(form):
    layer, x = fastrnn.GRU(4, 5, rng=0), numbers(3, 2, 4)
    q = layer.quantize(form)
    before = bytes_of(q(x))
    layer.params.flat[...] = 0
    assert bytes_of(q(x)) == before


def test_the_weights_in_use(kind, form):
    layer = make(kind, 7, 12, num_layers=2, bidirectional=True)
    q = layer.quantize(form)
    float32 = q.dequantized()
    assert type(float32) is type(layer) and float32._constructor_arguments() == layer._constructor_arguments()
    for name, array in float32.params.items():
        stored = q.params[name]
        if not is_rounded(name, form):
            expected = stored
        elif form == "int8":
            expected = q.params[name.replace("weight", "scale")][:, None] * stored
        elif form == "float8":
            expected = q.params[name.replace("weight", "scale")][:, None] * e4m3_values()[stored]
        else:
            expected = stored.astype(np.float32) if form == "float16" else widened(stored)
        assert array.tobytes() == np.ascontiguousarray(expected, np.float32).tobytes()
        bound = {"int8": 0.51 / 127, "float16": 2.0**-11, "bfloat16": 2.0**-8, "float8": 2.0**-4}[form]
        assert np.abs(array - layer.params[name]).max() <= bound * np.abs(layer.params[name]).max()
    again = float32.quantize(form)
    if form == "float8":  # a row whose largest number is rounded down may have half the scale
        assert again.dequantized().params == float32.params
    elif form != "int8":  # whose scales are rounded once more
        assert again.params == q.params


# The largest errors of new layers, relative to the outputs. Projected layers of float8 have a third more.
LIMITS = {"int8": 1.1e-2, "float16": 2.6e-4, "bfloat16": 3e-3, "float8": 3.2e-2}


@pytest.mark.parametrize("options", [{}, {"proj_size": 64}, {"proj_size": 8}], ids=str)
def test_errors_of_lstms(form, options):
    layer = fastrnn.LSTM(128, 128, **options, rng=1)
    factor = 4 / 3 if form == "float8" and options else 1
    found = fastrnn.compare(layer, layer.quantize(form), numbers(100, 16, 128))
    assert found.relative <= factor * LIMITS[form]


def test_the_options_are_attributes(form):
    layer = fastrnn.LSTM(5, 6, 2, batch_first=True, dropout=0.25, reverse=True, proj_size=3, clip=2.0, rng=0)
    q = layer.quantize(form)
    for name, value in layer._options.items():
        assert getattr(q, name) == value
    assert q.format == form and q.frozen
    assert repr(q) == (
        "LSTM(5, 6, num_layers=2, clip=2.0, batch_first=True, dropout=0.25, reverse=True, proj_size=3)"
        f".quantize({form!r})"
    )
    assert q.freeze() is None and q.frozen
    assert isinstance(q, fastrnn.Quantized) and type(layer)(3, 4).quantize("int8").input_size == 3


@pytest.mark.parametrize("name", ["forward", "backward", "unfreeze", "load_state_dict", "quantize"])
def test_training_names_the_remedy(name, form):
    q = fastrnn.LSTM(5, 6, rng=0).quantize(form)
    message = (
        f"^{name}: a quantized layer is for inference: train the float32 layer, or dequantized\\(\\), and quantize"
    )
    with pytest.raises(AttributeError, match=message):
        getattr(q, name)
    assert not hasattr(q, name)
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'$"):
        q.unheard_of  # noqa: B018


def test_optimizers_and_exporters_refuse_it(form):
    pytest.importorskip("onnx")
    q = fastrnn.LSTM(5, 6, rng=0).quantize(form)
    for params in (q, q.params):
        with pytest.raises(TypeError, match="^params: expected Parameters or an ndarray, got Quantized"):
            fastrnn.optim.SGD(params, lr=0.1)
    with pytest.raises(TypeError, match=r"got fastrnn.Quantized; its dequantized\(\) is one of float32$"):
        fastrnn.to_onnx(q, "layer.onnx")


def test_arguments():
    layer = fastrnn.LSTM(5, 6, rng=0)
    for value, error in (
        (None, TypeError),
        (8, TypeError),
        (np.int8, TypeError),
        ("int4", ValueError),
        ("", ValueError),
    ):
        with pytest.raises(error, match="^format: expected 'int8' or 'float16' or 'bfloat16' or 'float8', got "):
            layer.quantize(value)
    with pytest.raises(ValueError, match=r"^layer: expected float32, got LSTM\(5, 6, dtype=float64\); a "):
        fastrnn.LSTM(5, 6, dtype=np.float64).quantize("int8")
    for other in (fastrnn.LSTMCell(5, 6), layer.quantize("int8"), None):
        with pytest.raises(TypeError, match="^layer: expected one of GRU, LSTM, RNN, SLSTM, UGRNN, got "):
            fastrnn.Quantized(other, "int8")
    fastrnn.Quantized(layer, "int8")


def test_calls_check_their_arguments(form):
    """By the code of all layers."""
    q = fastrnn.LSTM(5, 6, batch_first=True, rng=0).quantize(form)
    with pytest.raises(ValueError, match=r"^x: expected \(B, T, input_size=5\), got \(2, 3, 4\)"):
        q(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"^state \(c_0\): expected \(num_layers=1, B=2, hidden_size=6\)"):
        q(np.zeros((2, 3, 5)), (None, np.zeros((1, 2, 5))))
    with pytest.raises(ValueError, match="^lengths: expected 0 to T=3, got 4 for sequence 1"):
        q(np.zeros((2, 3, 5)), lengths=[3, 4])
    with pytest.raises(TypeError, match="^input: is called x"):
        q(input=np.zeros((2, 3, 5)))
    with pytest.raises(ValueError, match="^stream: a bidirectional layer"):
        fastrnn.LSTM(5, 6, bidirectional=True, rng=0).quantize(form).stream()


def test_axes_and_kinds_of_input(form):
    """Without a batch axis, batch_first, float64, empty."""
    layer, x = fastrnn.LSTM(5, 6, rng=0), numbers(4, 3, 5)
    q, turned = layer.quantize(form), fastrnn.LSTM(5, 6, batch_first=True, rng=0).quantize(form)
    output, (h_n, c_n) = q(x)
    assert output.dtype == np.float32
    one, (h, c) = q(x[:, 1].astype(np.float64))
    assert one.tobytes() == output[:, 1].tobytes() and h.tobytes() == h_n[:, 1].tobytes() and c.shape == (1, 6)
    assert turned(x.swapaxes(0, 1))[0].swapaxes(0, 1).tobytes() == output.tobytes()
    for shape in ((0, 3, 5), (4, 0, 5), (0, 0, 5), (0, 5)):
        output, state_n = q(np.zeros(shape))
        assert output.shape == (*shape[:-1], 6) and not state_n[0].any()


def test_dropout_has_no_effect(form):
    x = numbers(4, 3, 5)
    with_dropout, without = (fastrnn.LSTM(5, 6, 2, dropout=p, rng=0).quantize(form) for p in (0.5, 0.0))
    assert bytes_of(with_dropout(x)) == bytes_of(without(x))


class Named(fastrnn.GRU):
    def __init__(self, name):
        super().__init__(5, 6, rng=0)
        self.name = name


def test_a_derived_class(form):
    layer, x = Named("a"), numbers(4, 3, 5)
    q = layer.quantize(form)
    assert repr(q) == f"GRU(5, 6).quantize({form!r})"
    assert bytes_of(q(x)) == bytes_of(fastrnn.GRU(5, 6, rng=0).quantize(form)(x))
    assert type(q.dequantized()) is fastrnn.GRU


def test_copies_and_pickles(kind, form):
    layer = make(kind, 7, 12, num_layers=2, batch_first=True)
    q, x = layer.quantize(form), numbers(3, 4, 7)
    q.note = "mine"
    expected = bytes_of(q(x))
    for other in (copy.copy(q), copy.deepcopy(q), *(pickle.loads(pickle.dumps(q, p)) for p in range(2, 6))):
        assert type(other) is fastrnn.Quantized and repr(other) == repr(q) and other.note == "mine"
        assert other.params == q.params and not any(array.flags.writeable for array in other.params.values())
        assert bytes_of(other(x)) == expected
    assert len(pickle.dumps(q)) < q.nbytes + 4000


def test_pickles_that_do_not_fit(form):
    q = fastrnn.LSTM(5, 6, rng=0).quantize(form)
    state = q.__getstate__()
    other = object.__new__(fastrnn.Quantized)
    for changes, message in (
        ({"version": 2}, "^a pickle of Quantized: version 2, from a newer fastrnn"),
        ({"version": None}, "^a pickle of Quantized: expected a version of at least 1"),
        ({"arguments": state["arguments"] | {"hidden_size": 7}}, "^the parameters of a pickle do not fit LSTM"),
        ({"params": {}}, "^the parameters of a pickle do not fit LSTM"),
    ):
        with pytest.raises(ValueError, match=message):
            other.__setstate__(state | changes)
    with pytest.raises(AttributeError):
        object.__new__(fastrnn.Quantized).hidden_size  # noqa: B018


def test_parameters_are_equal_by_value(form):
    one, same = (fastrnn.LSTM(5, 6, rng=0).quantize(form) for _ in range(2))
    assert one.params == same.params and one.params != fastrnn.LSTM(5, 6, rng=1).quantize(form).params
    assert one.params != fastrnn.LSTM(5, 6, bias=False, rng=0).quantize(form).params
    assert one.params != fastrnn.LSTM(5, 6, rng=0).params


def test_parameters_keep_what_callers_assign_to_them(form, tmp_path):
    """Shape, dtype and flags of an array that was read do not reach the layer."""
    layer = fastrnn.LSTM(3, 4, rng=0)
    q, x = layer.quantize(form), numbers(5, 2, 3)
    expected, state = bytes_of(q(x)), q.__getstate__()["params"]
    q.params["weight_ih_l0"].shape = (-1,)
    q.params["weight_hh_l0"].dtype = np.dtype(f"V{q.params['weight_hh_l0'].dtype.itemsize}")
    with pytest.raises(ValueError):
        q.params["bias_ih_l0"].flags.writeable = True
    fastrnn.save(tmp_path / "q.safetensors", q)
    for other in (q, copy.deepcopy(q), fastrnn.load(tmp_path / "q.safetensors")):
        assert bytes_of(other(x)) == expected
        assert {name: array.tobytes() for name, array in other.params.items()} == {
            name: array.tobytes() for name, array in state.items()
        }
    assert q.dequantized().params["weight_ih_l0"].shape == (16, 3)


@pytest.mark.parametrize("form", ["int8", "bfloat16", "float8"])
def test_the_stored_numbers_are_not_parameters_of_other_layers(form):
    """They are bit patterns, or lack their scales."""
    layer = fastrnn.LSTM(4, 3, rng=0)
    before = layer.params.flat.tobytes()
    params = {name: a for name, a in layer.quantize(form).params.items() if not name.startswith("scale")}
    with pytest.raises(ValueError, match="weight_ih_l0: u?int(8|16), as of a quantized layer; give the parameters of"):
        layer.load_state_dict(params)
    assert layer.params.flat.tobytes() == before


def test_values_of_pickles_that_no_layer_has():
    q = fastrnn.LSTM(4, 3, rng=0).quantize("int8")
    state = q.__getstate__()
    weight = state["params"]["weight_ih_l0"].copy()
    weight[0, 0] = -128
    other = object.__new__(type(q))
    with pytest.raises(ValueError, match="^weight_ih_l0: expected numbers from -127 to 127, got -128$"):
        other.__setstate__(state | {"params": state["params"] | {"weight_ih_l0": weight}})
    fortran = np.asfortranarray(state["params"]["weight_ih_l0"])
    other.__setstate__(state | {"params": state["params"] | {"weight_ih_l0": fortran}})
    assert other.params == q.params and bytes_of(other(numbers(3, 2, 4))) == bytes_of(q(numbers(3, 2, 4)))


def test_a_nan_in_one_head_stays_there_in_the_reference_too(form):
    if form == "int8":  # a row with a NaN has no scale: see docs/quantization.md
        return
    q = fastrnn.SLSTM(5, 64, num_heads=2, rng=0).quantize(form)
    state = [np.full((1, 1, 64), 0.5, np.float32) for _ in range(4)]
    state[0][0, 0, 0] = np.nan
    x = np.ones((1, 1, 5), np.float32)
    found, expected = q(x, tuple(state))[0], reference.quantized(q, x, tuple(state))[0]
    assert np.isnan(found).sum() == 32 and (np.isnan(found) == np.isnan(expected)).all()


def test_masked_steps(form):
    q, x = fastrnn.GRU(4, 5, rng=0).quantize(form), numbers(6, 2, 4)
    mask = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 1]], bool).T
    output, h_n = fastrnn.masked(q, x, mask)
    for b in range(2):
        alone, h = q(x[mask[:, b], b])
        assert output[mask[:, b], b].tobytes() == alone.tobytes() and h_n[:, b].tobytes() == h.tobytes()


# compare


def test_compare():
    layer, x = fastrnn.LSTM(8, 16, rng=0), numbers(30, 4, 8)
    other = layer.quantize("int8")
    expected, actual = (one(x)[0].astype(np.float64) for one in (layer, other))
    error = np.abs(actual - expected)
    found = fastrnn.compare(layer, other, x, tolerance=error.max() / 2)
    assert found.largest == error.max() and math.isclose(found.rms, np.sqrt((error**2).mean()))
    assert math.isclose(found.relative, found.rms / np.sqrt((expected**2).mean()))
    assert found.first == np.flatnonzero((error > error.max() / 2).any(axis=(1, 2)))[0] > 0
    assert fastrnn.compare(layer, layer, x) == (0, 0, 0, None)
    assert fastrnn.compare(layer, other, x, tolerance=error.max()).first is None
    assert fastrnn.compare(layer, other, x[:, 0], tolerance=0).first == 0


def test_compare_counts_the_steps_of_each_sequence():
    options = {"batch_first": True, "bidirectional": True, "rng": 0}
    layer, x, lengths = fastrnn.GRU(8, 16, **options), numbers(3, 9, 8), [9, 2, 0]
    other = layer.quantize("int8")
    resets = np.zeros((3, 9), bool)
    resets[0, 4] = True
    state = numbers(2, 3, 16, seed=1) / 4
    errors = []
    for b, n in enumerate(lengths):
        expected, actual = (one(x[b, :n], state[:, b], resets=resets[b, :n])[0] for one in (layer, other))
        errors.append(np.abs(actual - expected.astype(np.float64)))
    found = fastrnn.compare(layer, other, x, state, lengths, resets, tolerance=1e-3)
    assert found.largest == max(e.max(initial=0) for e in errors)
    assert math.isclose(found.rms, np.sqrt(sum((e**2).sum() for e in errors) / sum(e.size for e in errors)))
    steps = [np.flatnonzero((e > 1e-3).any(axis=1)) for e in errors]
    assert found.first == min(t[0] for t in steps if t.size)


def test_compare_of_nothing_and_of_zeros():
    layer = fastrnn.LSTM(8, 16, rng=0)
    assert fastrnn.compare(layer, layer.quantize("int8"), np.zeros((0, 3, 8))) == (0, 0, 0, None)
    zeros = fastrnn.LSTM(8, 16, bias=False, rng=0)
    assert fastrnn.compare(zeros, zeros.quantize("int8"), np.zeros((4, 3, 8))) == (0, 0, 0, None)
    assert fastrnn.compare(zeros, layer, np.zeros((4, 3, 8))).relative == math.inf
    x = numbers(4, 3, 8)
    x[2] = np.nan
    assert fastrnn.compare(layer, layer.quantize("int8"), x).first == 2
    relu = fastrnn.RNN(2, 2, nonlinearity="relu", rng=0)
    relu.params.flat[...] = 1
    assert fastrnn.compare(relu, relu, np.full((2, 1, 2), 3e38, np.float32)) == (0, 0, 0, None)


def test_arguments_of_compare():
    layer, x = fastrnn.LSTM(8, 16, rng=0), numbers(4, 3, 8)
    q = layer.quantize("int8")
    for arguments, name in (((None, q), "layer"), ((layer, fastrnn.LSTMCell(8, 16)), "other")):
        with pytest.raises(TypeError, match=f"^{name}: expected a layer, got "):
            fastrnn.compare(*arguments, x)
    with pytest.raises(ValueError, match=r"^other: its outputs are \(4, 3, 17\), those of layer \(4, 3, 16\)$"):
        fastrnn.compare(layer, fastrnn.LSTM(8, 17), x)
    for tolerance, error in ((-1, ValueError), (np.nan, ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="^tolerance: expected a "):
            fastrnn.compare(layer, q, x, tolerance=tolerance)
    with pytest.raises(ValueError, match="^x: expected"):
        fastrnn.compare(layer, q, x[..., :5])


def test_a_state_is_passed_on(kind, form):
    """With a state, compare and the layer agree that it matters."""
    layer, x = make(kind, 7, 12), numbers(2, 3, 7)
    q, state = layer.quantize(form), state_of(layer, 3)
    assert fastrnn.compare(layer, q, x, state).largest < 0.1
    assert any(a.tobytes() != b.tobytes() for a, b in zip(arrays_of(q(x, state)), arrays_of(q(x))))
