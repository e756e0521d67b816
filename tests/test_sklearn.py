"""`fastrnn.sklearn`: scikit-learn's checks, layouts, weights, training, the contract, and accuracy on known data."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastrnn.sklearn import Data, SequenceClassifier, SequenceRegressor, Sequences

BOTH = pytest.mark.parametrize("estimator", [SequenceClassifier, SequenceRegressor])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([SequenceClassifier(), SequenceRegressor()])
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def sums(n=60, T=7, I=2, seed=0):
    """Sequences (n, T, I), and the sum of the first feature over the steps (n,)."""
    x = np.random.default_rng(seed).standard_normal((n, T, I))
    return x, x[:, :, 0].sum(axis=1)


def ragged_sums(n=60, seed=0):
    """Sequences of 3 to 9 steps, and the sums of their first features (n,)."""
    rng = np.random.default_rng(seed)
    X = [rng.standard_normal((T, 2)) for T in rng.integers(3, 10, n)]
    return X, np.array([x[:, 0].sum() for x in X])


def small(estimator, **options):
    return estimator(**({"hidden_size": 8, "max_iter": 3, "random_state": 0} | options))


def targets(estimator, y):
    return np.where(y > 0, "up", "down") if estimator is SequenceClassifier else y


def bits(model, X):
    return model.predict_proba(X).tobytes() if isinstance(model, SequenceClassifier) else model.predict(X).tobytes()


# Layouts ----------------------------------------------------------------------------------------


@BOTH
def test_a_table_is_a_series_of_one_feature(estimator):
    x, y = sums(I=1)
    y = targets(estimator, y)
    of_table, of_array = (small(estimator).fit(X, y) for X in (x[:, :, 0], x))
    assert bits(of_table, x[:, :, 0]) == bits(of_array, x) == bits(of_array, x[:, :, 0])
    assert (of_table.n_features_in_, of_array.n_features_in_) == (7, 1)
    with pytest.raises(ValueError, match="X has 6 features, but .* is expecting 7"):
        of_table.predict(x[:, :6, 0])
    assert of_array.predict(x[:, :5]).shape == (60,)


@BOTH
def test_lists_of_equal_lengths_are_the_array(estimator):
    x, y = sums()
    y = targets(estimator, y)
    model = small(estimator).fit(x, y)
    for X in (list(x), tuple(x), [one.tolist() for one in x]):
        assert bits(small(estimator).fit(X, y), X) == bits(model, x)


@BOTH
@pytest.mark.parametrize(
    "options", [{}, {"readout": "mean"}, {"bidirectional": True, "num_layers": 2}, {"cell": "gru"}, {"cell": "rnn"}]
)
def test_ragged_lists(estimator, options):
    X, y = ragged_sums()
    y = targets(estimator, y)
    model = small(estimator, **options).fit(X, y)
    objects = np.empty(len(X), object)
    objects[:] = X
    assert bits(small(estimator, **options).fit(objects, y), objects) == bits(model, X)
    alone = np.concatenate([model.predict([x]) for x in X])
    assert alone.tobytes() == model.predict(X).tobytes()


def test_ragged_series_of_one_feature():
    rng = np.random.default_rng(0)
    X = [rng.standard_normal(T) for T in rng.integers(3, 10, 40)]
    y = np.array([x.sum() for x in X])
    model = small(SequenceRegressor).fit(X, y)
    assert bits(model, X) == bits(model, [x[:, None] for x in X])
    assert model.predict([[1.0, 2.0], [3.0, 4.0]]).shape == (2,)  # of equal lengths by chance


def test_the_readout_is_the_last_state_or_the_mean():
    x, y = sums()
    for readout in ("last", "mean"):
        model = small(SequenceRegressor, readout=readout, bidirectional=True).fit(x, y)
        output, (h_n, _) = model.layer_(((x - model.x_mean_) / model.x_scale_).swapaxes(0, 1))
        vector = np.concatenate([h_n[0], h_n[1]], axis=-1) if readout == "last" else output.mean(axis=0)
        expected = model.head_(vector)[:, 0] * model.y_scale_ + model.y_mean_
        np.testing.assert_allclose(model.predict(x), expected, rtol=0, atol=1e-12)


def test_bad_sequences():
    x, y = sums()
    model = small(SequenceRegressor).fit(x, y)
    for X, message in [
        ([x[0], x[1, :, :1]], r"X\[1\]: expected \(T, 2\) like X\[0\], got \(7, 1\)"),
        ([x[0], x[1, :0]], r"X\[1\]: has no steps"),
        ([x[0], np.full((3, 2), np.nan)], "Input X contains NaN"),
        (np.where(x > 2, np.inf, x), "Input X contains infinity"),
        (x[:, :, :1], "X: expected 2 features of each step, as in fit, got 1"),
        (x[:, :0], "X: expected at least one step"),
        (x[None], "X: expected|dim 4|Found array"),
        (x.astype(complex), "Complex data not supported"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.predict(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(x, y[:-1])
    with pytest.raises(TypeError, match="[Ss]parse"):
        model.fit(pytest.importorskip("scipy.sparse").csr_array(x[:, :, 0]), y)


def test_the_layouts_of_sktime_and_aeon():
    X, y = ragged_sums()
    model = small(SequenceRegressor).fit(X, y)
    aeon = [x.T for x in X]  # (I, T_b) each
    assert bits(small(SequenceRegressor).fit([x.T for x in aeon], y), X) == bits(model, X)
    convert = pytest.importorskip("sktime.datatypes").convert
    x, y = sums()
    model = small(SequenceRegressor).fit(x, y)
    panel = x.transpose(0, 2, 1)  # numpy3D of sktime and aeon
    frames = convert(panel, "numpy3D", "df-list")
    assert bits(model, panel.transpose(0, 2, 1)) == bits(model, frames) == bits(model, x)


# Parameters and arguments -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("cell", "slstm", ValueError), ("cell", "ugrnn", ValueError),
        ("readout", "first", ValueError), ("learning_rate", "adaptive", ValueError),
        ("hidden_size", 0, ValueError), ("num_layers", 1.5, TypeError), ("bidirectional", 1, TypeError),
        ("dropout", 1.0, ValueError), ("noise", -1, ValueError), ("standardize", None, TypeError),
        ("alpha", "0", TypeError), ("batch_size", 0, ValueError), ("learning_rate_init", np.nan, ValueError),
        ("clip_norm", -1, ValueError), ("max_iter", 0, ValueError), ("tol", True, TypeError),
        ("validation_fraction", 1.0, ValueError), ("n_iter_no_change", 0, ValueError),
        ("dtype", np.int32, TypeError), ("class_weight", "equal", ValueError), ("random_state", "0", ValueError),
    ],
)  # fmt: skip
def test_bad_parameters(name, value, error):
    x, y = sums()
    model = SequenceClassifier(**{name: value})
    with pytest.raises(error, match=name if name != "random_state" else "seed"):
        model.fit(x, y > 0)
    assert not hasattr(model, "layer_")


def test_bad_weights():
    x, y = sums()
    for weights, message in [
        (-np.ones(60), "sample_weight: expected at least 0, got -1"),
        (np.zeros(60), "sample_weight: expected at least one non-zero"),
        (np.ones(59), r"sample_weight: expected shape \(60,\)"),
        (np.full(60, np.nan), "sample_weight"),
    ]:
        with pytest.raises(ValueError, match=message):
            small(SequenceRegressor).fit(x, y, weights)


def test_a_refused_fit_leaves_a_fitted_model_as_it_was():
    x = np.random.default_rng(0).standard_normal((12, 5, 2))
    model = small(SequenceClassifier, max_iter=2).fit(x, list("ab" * 6))
    before = model.predict_proba(x)
    for y, weights in ((list("cde" * 4), -np.ones(12)), (list("cd" * 5), None), (None, None)):
        with pytest.raises(ValueError, match="."):
            model.fit(x, y, sample_weight=weights)
        assert model.classes_.tolist() == ["a", "b"] and np.array_equal(model.predict_proba(x), before)


@BOTH
def test_dtype_follows_x(estimator):
    x, y = sums()
    y = targets(estimator, y)
    for X, dtype, expected in [
        (x, None, "f8"),
        (x.astype("f4"), None, "f4"),
        (x, "float32", "f4"),
        (x > 0, None, "f8"),
    ]:
        model = small(estimator, dtype=dtype).fit(X, y)
        assert model.layer_.dtype == model.head_.dtype == np.dtype(expected)


# Weights ----------------------------------------------------------------------------------------


@BOTH
def test_a_weight_of_zero_leaves_a_sequence_out(estimator):
    X, y = ragged_sums()
    y = targets(estimator, y)
    weights = np.tile([1.0, 0, 1], 20)
    kept = np.flatnonzero(weights)
    options = {"batch_size": 7, "noise": 0.1}
    weighted = small(estimator, **options).fit(X, y, weights)
    assert bits(weighted, X) == bits(small(estimator, **options).fit([X[k] for k in kept], y[kept]), X)


@BOTH
def test_weights_are_relative(estimator):
    x, y = sums()
    y = targets(estimator, y)
    weights = np.random.default_rng(1).integers(1, 5, 60).astype(float)
    options = {"batch_size": 16}
    model = small(estimator, **options).fit(x, y, weights)
    assert bits(small(estimator, **options).fit(x, y, 4 * weights), x) == bits(model, x)
    assert bits(small(estimator, **options).fit(x, y), x) != bits(model, x)


def test_the_gradient_of_weighted_batches_is_that_of_the_whole():
    """The mean of the batches' gradients is the gradient of the weighted mean, for any weights."""
    x, y = sums(n=6)
    weights = np.array([1.0, 5, 0.1, 2, 2, 1])
    for model in (small(SequenceRegressor).fit(x, y, weights), small(SequenceClassifier).fit(x, y > 0, weights)):
        settings = model._settings()
        target = model._scaled(model._targets(y if isinstance(model, SequenceRegressor) else y > 0, False, None))
        data = Data(Sequences(x), target, weights / weights.mean())
        whole, (_, d_whole) = model._gradients(settings, data)
        parts = [model._gradients(settings, data[np.arange(k, k + 2)]) for k in (0, 2, 4)]
        assert whole == pytest.approx(np.mean([loss for loss, _ in parts]), rel=1e-12)
        mean = np.mean([gradients[1]["weight"] for _, gradients in parts], axis=0)
        np.testing.assert_allclose(d_whole["weight"], mean, rtol=0, atol=1e-14)


def test_class_weights_are_sample_weights():
    x, y = sums()
    label = np.digitize(y, [-2.0, 2.0])
    factors = {0: 3.0, 1: 1.0, 2: 0.5}
    by_class = small(SequenceClassifier, class_weight=factors, standardize=False).fit(x, label)
    by_sample = small(SequenceClassifier, standardize=False).fit(x, label, [factors[k] for k in label])
    assert bits(by_class, x) == bits(by_sample, x)
    balanced = small(SequenceClassifier, class_weight="balanced").fit(x, label)
    weights = balanced._with_class_weights(np.arange(1.0, 61), label, False)
    np.testing.assert_allclose(np.bincount(label, weights), weights.sum() / 3)
    assert bits(balanced, x) != bits(small(SequenceClassifier).fit(x, label), x)
    with pytest.raises(ValueError, match="class_weight: 'balanced' needs all"):
        balanced.partial_fit(x, label, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"^class_weight: \[5, '1'\] are not among the classes \[0, 1, 2\]$"):
        small(SequenceClassifier, class_weight={5: 1.0, 0: 2.0, "1": 3.0}).fit(x, label)
    small(SequenceClassifier, class_weight={0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}).fit(x, label)  # a class of another part
    with pytest.raises(ValueError, match="^class_weight: expected at least 0, got -1.0$"):
        small(SequenceClassifier, class_weight={1: -1.0}).fit(x, label)


# Training ---------------------------------------------------------------------------------------


@BOTH
def test_the_same_bits_on_any_number_of_threads(estimator, threads):
    X, y = ragged_sums(n=150)
    y = targets(estimator, y)
    options = dict(hidden_size=48, num_layers=2, bidirectional=True, dropout=0.2, noise=0.1, early_stopping=True)
    seen = set()
    for number in (1, 2, 3):
        threads(number)
        model = small(estimator, **options).fit(X, y)
        seen.add((bits(model, X), tuple(model.loss_curve_), tuple(model.validation_scores_)))
    assert len(seen) == 1
    other = clone(model).set_params(random_state=1)
    assert bits(other.fit(X, y), X) != bits(model, X)


@BOTH
def test_pickles_and_partial_fit_continue_exactly(estimator):
    x, y = sums()
    y = targets(estimator, y)
    model = small(estimator, dropout=0.3, num_layers=2, batch_size=16)
    first = {"classes": ["down", "up"]} if estimator is SequenceClassifier else {}
    model.partial_fit(x, y, **first)
    copy = pickle.loads(pickle.dumps(model))
    assert bits(copy, x) == bits(model, x)
    for one in (model, copy):
        one.partial_fit(x[:30], y[:30]).partial_fit(x[30:], y[30:])
    assert bits(copy, x) == bits(model, x)
    assert model.loss_curve_ == copy.loss_curve_ and model.n_iter_ == len(model.loss_curve_) == 3


def test_partial_fit_learns_classes_it_has_not_seen():
    x, y = sums()
    label = np.where(y > 0, "up", "down")
    model = small(SequenceClassifier)
    with pytest.raises(ValueError, match="classes: must be passed on the first call"):
        model.partial_fit(x, label)
    model.partial_fit(x[y > 0], label[y > 0], classes=["down", "up"])
    assert model.predict_proba(x).shape == (60, 2)
    model.partial_fit(x, label)
    with pytest.raises(ValueError, match="classes: expected"):
        model.partial_fit(x, label, classes=["down", "left"])
    with pytest.raises(ValueError, match="y: has classes that are not in"):
        model.partial_fit(x, np.where(y > 0, "up", "left"))
    with pytest.raises(ValueError, match="early_stopping: not with partial_fit"):
        model.set_params(early_stopping=True).partial_fit(x, label)


@BOTH
def test_warm_start_continues(estimator):
    x, y = sums()
    y = targets(estimator, y)
    model = small(estimator, warm_start=True, learning_rate="constant", n_iter_no_change=20)
    layer = model.fit(x, y).layer_
    model.fit(x, y)
    assert model.layer_ is layer and len(model.loss_curve_) == 6 and model.n_iter_ == 3
    whole = small(estimator, learning_rate="constant", n_iter_no_change=20, max_iter=6).fit(x, y)
    assert whole.loss_curve_ == model.loss_curve_ and bits(whole, x) == bits(model, x)
    with pytest.raises(ValueError, match="X: expected 2 features"):
        model.fit(x[:, :, :1], y)


def test_early_stopping_keeps_the_best():
    x, y = sums(n=200)
    options = dict(early_stopping=True, validation_fraction=0.3, n_iter_no_change=4, random_state=0)
    model = SequenceClassifier(**options).fit(x, y > 0)
    scores = model.validation_scores_
    assert len(scores) == model.n_iter_ == len(model.loss_curve_) < 50
    assert model.best_validation_score_ == max(scores) and max(scores[-4:]) <= max(scores[:-4]) + 1e-4
    # A training up to the best epoch has the same parameters.
    options |= dict(learning_rate="constant", n_iter_no_change=50)
    longer = SequenceClassifier(**options, max_iter=20).fit(x, y > 0)
    best = 1 + int(np.argmax(longer.validation_scores_))
    assert best < 20
    assert bits(SequenceClassifier(**options, max_iter=best).fit(x, y > 0), x) == bits(longer, x)
    regressor = SequenceRegressor(**options).fit(x, y)
    assert regressor.best_validation_score_ == max(regressor.validation_scores_) > 0.8


def test_the_training_ends_where_the_loss_stops_improving():
    x, y = sums()
    model = small(SequenceRegressor, max_iter=50, tol=10.0, n_iter_no_change=3).fit(x, y)
    assert model.n_iter_ == 4
    with pytest.warns(ConvergenceWarning, match="max_iter: the training has not converged in 12 epochs"):
        small(SequenceRegressor, max_iter=12, learning_rate="constant").fit(x, y)


def test_a_loss_that_is_not_finite():
    x, y = sums()
    with pytest.raises(ValueError, match="the loss is (inf|nan)"), np.errstate(all="ignore"):
        small(SequenceRegressor, standardize=False, dtype="float32").fit(x, 1e300 * y)


def test_standardization_makes_units_irrelevant():
    x, y = sums()
    model = small(SequenceRegressor).fit(x, y)
    other = small(SequenceRegressor).fit(1024 * x, 4096 * y)
    assert other.predict(1024 * x).tobytes() == (4096 * model.predict(x)).tobytes()
    far = SequenceRegressor(random_state=0).fit(x + 1e6, y - 1e6)
    assert far.score(x + 1e6, y - 1e6) > 0.9
    constant = small(SequenceRegressor).fit(np.concatenate([x, np.full_like(x, 3.3)], axis=2), y)
    assert constant.x_scale_[2:].tolist() == [1.0, 1.0]


def test_several_targets():
    x, y = sums(n=300)
    both = np.stack([y, 100 * x[:, -1, 1]], axis=1)
    model = SequenceRegressor(random_state=0).fit(x, both)
    assert model.predict(x).shape == (300, 2) and model.score(x, both) > 0.9
    column = small(SequenceRegressor).fit(x, y[:, None])
    assert column.predict(x).shape == (300, 1)
    assert column.predict(x).tobytes() == small(SequenceRegressor).fit(x, y).predict(x).tobytes()
    with pytest.raises(ValueError, match="y: expected"):
        column.set_params(warm_start=True).fit(x, both)


def test_probabilities_and_scores():
    x, y = sums(n=100)
    three = small(SequenceClassifier).fit(x, np.digitize(y, [-2.0, 2.0]))
    scores = three.decision_function(x)
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(three.predict_proba(x), expected, rtol=1e-12)
    np.testing.assert_allclose(np.exp(three.predict_log_proba(x)), expected, rtol=1e-12)
    assert (three.predict(x) == scores.argmax(axis=1)).all()
    two = small(SequenceClassifier).fit(x, np.where(y > 0, "up", "down"))
    probabilities, margin = two.predict_proba(x), two.decision_function(x)
    np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-margin)), rtol=1e-12)
    assert margin.shape == (100,) and ((two.predict(x) == "up") == (margin > 0)).all()
    assert small(SequenceClassifier).fit(x, ["one"] * 100).predict_proba(x).tolist() == [[1.0]] * 100


def test_the_progress_bar(capsys, monkeypatch):
    x, y = sums()
    small(SequenceClassifier, verbose=True, early_stopping=True).fit(x, y > 0)
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == "" and len(lines) == 3
    assert lines[0].startswith("[######..............] epoch 1/3, loss 0.") and "validation score" in lines[0]
    assert lines[2].startswith("[####################] epoch 3/3")
    small(SequenceClassifier).fit(x, y > 0)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    small(SequenceRegressor, verbose=True).fit(x, y)
    shown = capsys.readouterr().err
    assert shown.count("\r") == 3 and shown.count("\n") == 1 and shown.endswith(" s\n")


# In scikit-learn --------------------------------------------------------------------------------


def test_grid_search_and_pipelines_over_processes():
    X, y = ragged_sums()
    label = targets(SequenceClassifier, y)
    pipeline = make_pipeline(FunctionTransformer(first_feature), small(SequenceClassifier))
    grid = {"sequenceclassifier__hidden_size": [4, 8], "sequenceclassifier__cell": ["lstm", "gru"]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(X, label)
    one = GridSearchCV(pipeline, grid, cv=2).fit(X, label)
    assert search.cv_results_["mean_test_score"].tolist() == one.cv_results_["mean_test_score"].tolist()
    assert search.predict(X).shape == (60,)
    x, y = sums(I=1)
    scores = cross_val_score(make_pipeline(StandardScaler(), SequenceRegressor(random_state=0)), x[:, :, 0], y, cv=2)
    assert scores.shape == (2,)


def first_feature(X):
    return [x[:, :1] for x in X]


def test_the_extra_is_named_without_scikit_learn():
    code = "import sys; sys.modules['sklearn'] = None\nimport fastrnn\nimport fastrnn.sklearn"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: fastrnn.sklearn needs the package scikit-learn: pip install 'fastrnn[sklearn]'" in run.stderr


# Accuracy ---------------------------------------------------------------------------------------


def test_digits_as_rows_against_the_perceptron():
    """Equal splits and seeds, defaults on both sides: at least as good on average; with noise, in each case."""
    X, y = load_digits(return_X_y=True)
    found = {"perceptron": [], "defaults": [], "noise": []}
    for seed in range(2):
        A, B, a, b = train_test_split(X, y, random_state=seed)
        a_rows, b_rows = A.reshape(-1, 8, 8), B.reshape(-1, 8, 8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found["perceptron"].append(MLPClassifier(random_state=seed).fit(A, a).score(B, b))
        for name, noise in ("defaults", 0.0), ("noise", 0.3):
            model = SequenceClassifier(noise=noise, random_state=seed, dtype="float32").fit(a_rows, a)
            found[name].append(model.score(b_rows, b))
    assert np.mean(found["defaults"]) >= np.mean(found["perceptron"])
    assert (np.array(found["noise"]) >= found["perceptron"]).all()


def test_japanese_vowels_within_two_per_cent_of_the_literature():
    """The published split. 0.997 is the best accuracy of Zerveas et al. 2021; Kudo et al. 1999 have 0.941."""
    load = pytest.importorskip("sktime.datasets").load_japanese_vowels
    X, y = {}, {}
    for split in ("train", "test"):
        table, y[split] = load(split=split, return_type="nested_univ")
        X[split] = [np.stack(row, axis=1) for row in table.to_numpy()]  # (T_b, 12)
    assert [len(y[split]) for split in ("train", "test")] == [270, 370]
    scores = []
    for seed in range(3):
        model = SequenceClassifier(random_state=seed, dtype="float32").fit(X["train"], y["train"])
        scores.append(accuracy_score(y["test"], model.predict(X["test"])))
    assert np.mean(scores) >= 0.997 - 0.02
