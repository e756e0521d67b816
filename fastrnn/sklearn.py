"""Classifier and regressor of sequences for scikit-learn: a recurrent layer and a linear head, trained with Adam.

`SequenceClassifier` and `SequenceRegressor` follow the conventions of scikit-learn: they take part in pipelines, grid
searches and cross-validation. The parameters have the names of `sklearn.neural_network.MLPClassifier` where that has
them. The module needs scikit-learn: ``pip install 'fastrnn[sklearn]'``.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import accuracy_score, r2_score
    from sklearn.model_selection import train_test_split
    from sklearn.utils import (
        assert_all_finite,
        check_array,
        check_consistent_length,
        check_random_state,
        column_or_1d,
        validation,
    )
    from sklearn.utils.multiclass import check_classification_targets, unique_labels
except ImportError as _error:
    raise ImportError("fastrnn.sklearn needs the package scikit-learn: pip install 'fastrnn[sklearn]'") from _error

from fastrnn._validation import Array, flag, float_dtype, probability, real, short, size
from fastrnn.layers import GRU, LSTM, RNN
from fastrnn.linear import Linear
from fastrnn.losses import mean_squared_error, softmax_cross_entropy
from fastrnn.optim import Adam, clip_by_global_norm

__all__ = ["SequenceClassifier", "SequenceRegressor"]

CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}

# Sequences of one call of the layer in a prediction; the results do not depend on it.
PREDICTED_AT_ONCE = 512


# Data -------------------------------------------------------------------------------------------


@dataclass
class Sequences:
    """Sequences (n, T, I), and the steps of each one (n,), or None if each has T."""

    x: Array
    lengths: Array | None = None

    def __len__(self):
        return len(self.x)

    def __getitem__(self, at):
        """The sequences at these indices, cut to the longest of them."""
        if self.lengths is None:
            return Sequences(self.x[at])
        lengths = self.lengths[at]
        return Sequences(self.x[at, : lengths.max()], lengths)

    def steps(self):
        """The number of steps of each sequence."""
        return np.full(len(self), self.x.shape[1]) if self.lengths is None else self.lengths


@dataclass
class Data:
    """Training data: sequences, and weights (n,) of mean 1 over all sequences, None if all are 1."""

    sequences: Sequences
    targets: Array
    weights: Array | None

    def __getitem__(self, at):
        return Data(self.sequences[at], self.targets[at], None if self.weights is None else self.weights[at])


def ragged(X):
    """Arrays (T_b, I) or (T_b,) of a list as `Sequences`; None if X is one array, or a list of equal rows."""
    is_objects = isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1
    if not (is_objects or isinstance(X, (list, tuple))) or not len(X):
        return None
    arrays = [np.asarray(item) for item in X]
    axes = arrays[0].ndim
    if axes not in (1, 2) or (axes == 1 and not is_objects and len({array.shape for array in arrays}) == 1):
        return None
    for b, array in enumerate(arrays):
        if array.ndim != axes or array.shape[1:] != arrays[0].shape[1:]:
            expected = "(T,)" if axes == 1 else f"(T, {arrays[0].shape[1]})"
            raise ValueError(f"X[{b}]: expected {expected} like X[0], got {array.shape}")
        if not len(array):
            raise ValueError(f"X[{b}]: has no steps")
    lengths = np.array([len(array) for array in arrays])
    steps = np.concatenate(arrays)
    steps = check_array(steps.reshape(len(steps), -1), dtype=[np.float64, np.float32], input_name="X")
    x = np.zeros((len(arrays), lengths.max(), steps.shape[1]), steps.dtype)
    x[np.arange(x.shape[1]) < lengths[:, None]] = steps
    return Sequences(x, lengths)


def table(estimator, X, is_first):
    """X (n, T) as an array; the first time its columns are stored in the estimator, later they are checked."""
    options = {"dtype": [np.float64, np.float32], "reset": is_first}
    if hasattr(validation, "validate_data"):
        return validation.validate_data(estimator, X, **options)
    return estimator._validate_data(X, **options)  # before scikit-learn 1.6


def positive_weights(sample_weight, n):
    """The argument `sample_weight` as float64 (n,), ones by default."""
    if sample_weight is None:
        return np.ones(n)
    weights = check_array(sample_weight, dtype=np.float64, ensure_2d=False, input_name="sample_weight")
    if weights.shape != (n,):
        raise ValueError(f"sample_weight: expected shape ({n},), got {weights.shape}")
    if (weights < 0).any():
        raise ValueError(f"sample_weight: expected at least 0, got {weights.min():g}")
    if not weights.any():
        raise ValueError("sample_weight: expected at least one non-zero weight, got zeros only")
    return weights


def mean_and_scale(values, weights):
    """The weighted mean and deviation of rows (N, K); the deviation of a constant is 1."""
    share = (weights / weights.sum())[:, None]
    mean = np.sum(share * values, axis=0, dtype=np.float64)
    scale = np.sqrt(np.sum(share * (values - mean) ** 2, axis=0, dtype=np.float64))
    scale[scale <= 1e-12 * np.abs(mean)] = 1
    return mean, scale


class Progress:
    """A line on stderr with the epoch and the loss: rewritten on a terminal, else printed ten times."""

    def __init__(self, epochs):
        self.epochs, self.begin, self.is_terminal = epochs, time.monotonic(), sys.stderr.isatty()

    def show(self, epoch, loss, score):
        if not self.is_terminal and epoch % max(1, self.epochs // 10) and epoch not in (1, self.epochs):
            return
        done = 20 * epoch // self.epochs
        seconds = time.monotonic() - self.begin
        line = f"[{'#' * done}{'.' * (20 - done)}] epoch {epoch}/{self.epochs}, loss {loss:.5f}"
        line += "" if score is None else f", validation score {score:.4f}"
        ends = ("\r", "") if self.is_terminal else ("", "\n")
        print(f"{ends[0]}{line}, {seconds:.0f} s", end=ends[1], file=sys.stderr, flush=True)

    def close(self):
        if self.is_terminal:
            print(file=sys.stderr)


# Estimators -------------------------------------------------------------------------------------


class SequenceEstimator(BaseEstimator):
    """The base of both estimators: everything but targets, loss and score."""

    layer_: LSTM | GRU | RNN
    head_: Linear
    x_mean_: Array
    x_scale_: Array
    n_features_in_: int
    n_iter_: int
    loss_: float
    loss_curve_: list[float]
    validation_scores_: list[float] | None
    best_validation_score_: float | None

    _rng: np.random.Generator
    _is_table: bool
    _readout: str
    _optimizer_state: dict[str, Any] | None

    def __init__(
        self,
        *,
        cell: str = "lstm",
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        readout: str = "last",
        dropout: float = 0.0,
        noise: float = 0.0,
        standardize: bool = True,
        alpha: float = 0.03,
        batch_size: int | str = "auto",
        learning_rate: str = "linear",
        learning_rate_init: float = 0.01,
        clip_norm: float | None = 1.0,
        max_iter: int = 50,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.readout = readout
        self.dropout = dropout
        self.noise = noise
        self.standardize = standardize
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.clip_norm = clip_norm
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.dtype = dtype

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # Arguments

    def _settings(self):
        """The parameters of training, checked."""
        one_of("cell", self.cell, CELLS)
        one_of("readout", self.readout, ("last", "mean"))
        one_of("learning_rate", self.learning_rate, ("constant", "linear"))
        size("hidden_size", self.hidden_size)
        size("num_layers", self.num_layers)
        flag("bidirectional", self.bidirectional)
        if self.dtype is not None:
            float_dtype("dtype", self.dtype)
        if probability("dropout", self.dropout) == 1:
            raise ValueError("dropout: expected less than 1, got 1")
        if probability("validation_fraction", self.validation_fraction) in (0, 1):
            raise ValueError(f"validation_fraction: expected between 0 and 1, got {self.validation_fraction}")
        return SimpleNamespace(
            noise=number("noise", self.noise),
            standardize=flag("standardize", self.standardize),
            alpha=number("alpha", self.alpha),
            batch_size=64 if self.batch_size == "auto" else size("batch_size", self.batch_size),
            learning_rate=self.learning_rate,
            rate=number("learning_rate_init", self.learning_rate_init),
            clip_norm=math.inf if self.clip_norm is None else number("clip_norm", self.clip_norm),
            max_iter=size("max_iter", self.max_iter),
            shuffle=flag("shuffle", self.shuffle),
            tol=number("tol", self.tol, -math.inf),
            verbose=bool(self.verbose),
            warm_start=flag("warm_start", self.warm_start),
            early_stopping=flag("early_stopping", self.early_stopping),
            patience=size("n_iter_no_change", self.n_iter_no_change),
        )

    def _sequences(self, X, is_first):
        """X as `Sequences`; the first time its sizes are stored, later they are checked."""
        found = ragged(X)
        if found is None and getattr(X, "ndim", None) == 3:
            if 0 in X.shape[1:]:
                raise ValueError(f"X: expected at least one step and one feature, got {X.shape}")
            found = Sequences(check_array(X, dtype=[np.float64, np.float32], allow_nd=True, input_name="X"))
        if found is None:
            # Columns of a table count as features in scikit-learn: their number is checked, but not after ragged X.
            if is_first or self._is_table:
                X = table(self, X, is_first)
                self._is_table = True
            else:
                X = check_array(X, dtype=[np.float64, np.float32], input_name="X")
            found = Sequences(X[:, :, None])
        elif is_first:
            self._is_table = False
            self.n_features_in_ = found.x.shape[2]
            if hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        if not is_first and found.x.shape[2] != self.layer_.input_size:
            raise ValueError(
                f"X: expected {self.layer_.input_size} features of each step, as in fit, got {found.x.shape[2]}"
            )
        return found

    # Training

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Train on sequences and their targets.

        Parameters
        ----------
        X : array_like, (n, T, I) or (n, T), or list of n array_like, (T_b, I) or (T_b,)
            The sequences: n of T steps with I features, of T steps with one feature, or of their own lengths.
        y : array_like, (n,), for a regressor also (n, K)
            The targets.
        sample_weight : array_like, (n,), optional
            The weight of each sequence, at least 0. A weight of 0 leaves the sequence out. Default: 1.

        Returns
        -------
        self : estimator

        Raises
        ------
        TypeError, ValueError
            If a parameter or an argument has the wrong type, value or shape, or if the loss becomes infinite or NaN.
        """
        settings = self._settings()
        is_first = not (settings.warm_start and hasattr(self, "layer_"))
        return self._fit(settings, X, y, sample_weight, is_first)

    def _fit(self, settings, X, y, sample_weight, is_first, is_partial=False, classes=None):
        """Train for one epoch, if `is_partial`, or until the loss or the validation score stops improving."""
        before = dict(self.__dict__)
        try:
            sequences, targets, frequency, weights = self._checked(X, y, sample_weight, is_first, is_partial, classes)
        except BaseException:  # an estimator that was fitted before remains so
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        rows = np.flatnonzero(weights)
        if is_first:
            self._rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
            self.loss_curve_ = []
            self.validation_scores_ = None
            self.best_validation_score_ = None
        validation = None
        if settings.early_stopping:
            rows, held_out = train_test_split(
                rows,
                test_size=self.validation_fraction,
                random_state=int(self._rng.integers(2**31 - 1)),
                stratify=self._strata(targets[rows]),
            )
            validation = sequences[held_out], targets[held_out], frequency[held_out]
        sequences, targets, frequency, weights = sequences[rows], targets[rows], frequency[rows], weights[rows]
        if is_first:
            self._begin(settings, sequences, targets, frequency)
        is_weighted = (weights != weights[0]).any()
        data = Data(
            self._standardized(sequences),
            self._scaled(targets),
            weights / weights.mean() if is_weighted else None,
        )
        decay = settings.alpha / settings.batch_size
        optimizer = Adam([self.layer_.params, self.head_.params], settings.rate, weight_decay=decay)
        if self._optimizer_state:
            optimizer.load_state_dict(self._optimizer_state)
        if is_partial:
            self.loss_curve_.append(self._epoch(settings, data, optimizer))
            self.n_iter_ = len(self.loss_curve_)
        else:
            self._train(settings, data, validation, optimizer)
        self.loss_ = self.loss_curve_[-1]
        self._optimizer_state = optimizer.state_dict()
        return self

    def _checked(self, X, y, sample_weight, is_first, is_partial, classes):
        """The sequences and targets, how often each counts, and its weight with that of its class."""
        sequences = self._sequences(X, is_first)
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        targets = self._targets(y, is_first, classes)
        check_consistent_length(sequences.x, targets)
        frequency = positive_weights(sample_weight, len(sequences))
        return sequences, targets, frequency, self._with_class_weights(frequency, targets, is_partial)

    def _begin(self, settings, sequences, targets, frequency):
        """Draw the parameters, and measure the features if they are standardized."""
        I = sequences.x.shape[2]
        dtype = sequences.x.dtype if self.dtype is None else float_dtype("dtype", self.dtype)
        self.x_mean_, self.x_scale_ = np.zeros(I), np.ones(I)
        if settings.standardize:
            inside = np.arange(sequences.x.shape[1]) < sequences.steps()[:, None]
            weights = np.broadcast_to(frequency[:, None], inside.shape)[inside]
            self.x_mean_, self.x_scale_ = mean_and_scale(sequences.x[inside], weights)
        self._measure(settings, targets, frequency)
        seeds = [int(seed) for seed in self._rng.integers(2**31 - 1, size=2)]
        self.layer_ = CELLS[self.cell](
            I,
            self.hidden_size,
            self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout if self.num_layers > 1 else 0.0,
            dtype=dtype,
            rng=seeds[0],
        )
        width = self.hidden_size * (1 + self.bidirectional)
        self.head_ = Linear(width, self._outputs(targets), dtype=dtype, rng=seeds[1])
        self._readout, self._optimizer_state = self.readout, None

    def _train(self, settings, data, validation, optimizer):
        """Epochs until the loss or the validation score stops improving; sets the parameters of the best score."""
        progress = Progress(settings.max_iter) if settings.verbose else None
        best, best_params, waited = -math.inf, None, 0
        for self.n_iter_ in range(1, settings.max_iter + 1):
            if settings.learning_rate == "linear":
                optimizer.lr = settings.rate * (1 - (self.n_iter_ - 1) / settings.max_iter)
            loss = self._epoch(settings, data, optimizer)
            self.loss_curve_.append(loss)
            score = None
            if validation is not None:
                score = float(self._score(*validation))
                self.validation_scores_ = [*(self.validation_scores_ or ()), score]
            if progress:
                progress.show(self.n_iter_, loss, score)
            value = -loss if score is None else score
            waited = 0 if value > best + settings.tol else waited + 1
            if value > best:
                best = value
                if validation is not None:
                    best_params = self.layer_.state_dict(), self.head_.state_dict()
            if waited >= settings.patience:
                break
        else:
            if settings.learning_rate == "constant" and settings.patience < settings.max_iter:
                warnings.warn(
                    f"max_iter: the training has not converged in {settings.max_iter} epochs",
                    ConvergenceWarning,
                    stacklevel=4,
                )
        if progress:
            progress.close()
        if best_params is not None:
            self.layer_.load_state_dict(best_params[0])
            self.head_.load_state_dict(best_params[1])
            self.best_validation_score_ = best

    def _epoch(self, settings, data, optimizer):
        """One pass over the sequences; returns the mean loss."""
        n = len(data.targets)
        size_of_batch = min(settings.batch_size, n)
        order = self._rng.permutation(n) if settings.shuffle and size_of_batch < n else np.arange(n)
        total = 0.0
        for start in range(0, n, size_of_batch):
            at = order[start : start + size_of_batch]
            loss, gradients = self._gradients(settings, data[at])
            if not math.isfinite(loss):
                raise ValueError(f"the loss is {loss}: lower learning_rate_init, or set standardize=True")
            if settings.clip_norm < math.inf:
                clip_by_global_norm(gradients, settings.clip_norm)
            optimizer.step(gradients)
            total += loss * len(at)
        return total / n

    def _gradients(self, settings, data):
        """The loss of a batch, and its gradient with respect to the parameters of layer and head."""
        batch, weights, dtype = data.sequences, data.weights, self.layer_.dtype
        x = np.ascontiguousarray(batch.x.swapaxes(0, 1))
        if settings.noise:
            x += dtype.type(settings.noise) * self._rng.standard_normal(x.shape, dtype=dtype)
        output, state_n, tape = self.layer_.forward(x, lengths=batch.lengths)
        vectors = self._read(output, state_n, batch)
        if self.dropout:
            mask = ((self._rng.random(vectors.shape) >= self.dropout) / (1 - self.dropout)).astype(dtype)
            vectors = vectors * mask
        scores, head_tape = self.head_.forward(vectors)
        loss, d_scores = self._loss(scores, data.targets, weights)
        if weights is not None:  # of the mean weight 1 over all sequences, so that batches count by their weights
            loss, d_scores = loss * weights.mean(), d_scores * dtype.type(weights.mean())
        d_vectors, d_head = self.head_.backward(head_tape, d_scores)
        if self.dropout:
            d_vectors *= mask
        _, _, d_layer = self.layer_.backward(tape, *self._d_read(d_vectors, output, state_n, batch))
        return loss, [d_layer, d_head]

    # From the outputs of the layer to one vector of each sequence, and back

    def _read(self, output, state_n, batch):
        """One vector (B, D*H) of each sequence."""
        if self._readout == "mean":
            mean = output.sum(axis=0, dtype=np.float64) / batch.steps()[:, None]
            return mean.astype(output.dtype)
        h_n = state_n[0] if isinstance(state_n, tuple) else state_n
        last = h_n[-1 - self.layer_.bidirectional :]  # (D, B, H)
        return last.swapaxes(0, 1).reshape(len(batch), -1)

    def _d_read(self, d_vectors, output, state_n, batch):
        """The gradients d_output and d_state_n, one of them None."""
        if self._readout == "mean":
            d_output = d_vectors / batch.steps()[:, None].astype(output.dtype)
            return np.broadcast_to(d_output, output.shape), None
        is_pair = isinstance(state_n, tuple)
        d_h = np.zeros_like(state_n[0] if is_pair else state_n)
        directions = 1 + self.layer_.bidirectional
        d_h[-directions:] = d_vectors.reshape(len(batch), directions, -1).swapaxes(0, 1)
        return None, (d_h, None) if is_pair else d_h

    def _standardized(self, sequences):
        x = (sequences.x - self.x_mean_) / self.x_scale_
        return Sequences(x.astype(self.layer_.dtype, copy=False), sequences.lengths)

    # Prediction

    def _predicted(self, X):
        """The results of the head (n, K) of a caller's X."""
        validation.check_is_fitted(self, "layer_")
        return self._head_of(self._sequences(X, False))

    def _head_of(self, sequences):
        results = []
        for start in range(0, len(sequences), PREDICTED_AT_ONCE):
            batch = self._standardized(sequences[np.arange(start, min(start + PREDICTED_AT_ONCE, len(sequences)))])
            output, state_n = self.layer_(batch.x.swapaxes(0, 1), lengths=batch.lengths)
            results.append(self.head_(self._read(output, state_n, batch)))
        return np.concatenate(results)


class SequenceClassifier(ClassifierMixin, SequenceEstimator):
    """A classifier of sequences: a recurrent layer and a linear head, trained on the cross-entropy with Adam.

    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"}, default "lstm"
        The recurrent layer, `fastrnn.LSTM`, `fastrnn.GRU` or `fastrnn.RNN`.
    hidden_size : int, default 128
        The number of hidden units of each layer and direction.
    num_layers : int, default 1
        The number of stacked layers.
    bidirectional : bool, default False
        Whether each layer also reads the sequences from their ends.
    readout : {"last", "mean"}, default "last"
        The vector that the linear head sees: the state after the last step (of each direction its own), or the mean of
        the outputs over the steps of a sequence.
    dropout : float, default 0.0
        The probability with which a number of the readout, or between two layers, is set to zero in training.
    noise : float, default 0.0
        The deviation of normal noise that is added to the inputs in training, in units of the standardized features.
    standardize : bool, default True
        Whether each feature is standardized by its mean and deviation over all steps of the training sequences.
    class_weight : dict, "balanced" or None, default None
        Factors of the sample weights by class, 1 for a class that the dict lacks; "balanced" makes the sums of the
        weights of all classes equal. Labels of no class are refused if the dict lacks a class.
    alpha : float, default 0.03
        The strength of the L2 term: alpha / batch_size times a parameter is added to its gradient.
    batch_size : int or "auto", default "auto"
        Sequences per step of the optimizer, if there are as many; "auto" is 64.
    learning_rate : {"linear", "constant"}, default "linear"
        The schedule of `fit`: a linear decrease from `learning_rate_init` to 0 over `max_iter` epochs, or none.
        `partial_fit` always uses `learning_rate_init`.
    learning_rate_init : float, default 0.01
        The learning rate of Adam.
    clip_norm : float or None, default 1.0
        The largest norm of the gradient of a step; None for no limit.
    max_iter : int, default 50
        The largest number of epochs, passes over all sequences.
    shuffle : bool, default True
        Whether each epoch has a new order of sequences. One batch of all sequences keeps their order.
    random_state : int, RandomState or None, default None
        The source of initial parameters, orders, noise, dropout and the validation set. An int gives the same bits on
        each run, for any number of threads.
    tol : float, default 1e-4
        The least improvement of the loss, or of the validation score with `early_stopping`.
    verbose : bool, default False
        Whether to show a progress bar with loss and score on stderr.
    warm_start : bool, default False
        Whether `fit` continues from the parameters of the last `fit`. Sizes, standardization and classes stay.
    early_stopping : bool, default False
        Whether to hold out a validation set and to end with the parameters of its best score (accuracy).
    validation_fraction : float, default 0.1
        The part of the sequences in the validation set, which has the classes in the same proportions.
    n_iter_no_change : int, default 10
        The number of epochs without an improvement of `tol` after which the training ends.
    dtype : dtype_like or None, default None
        float32 or float64, in which the network computes; None is that of X if it is float32, else float64.
        float32 is faster.

    Attributes
    ----------
    classes_ : ndarray, (K,)
        The classes, sorted.
    layer_ : fastrnn.LSTM, fastrnn.GRU or fastrnn.RNN
        The recurrent layer, for example for `fastrnn.save` or `fastrnn.to_onnx`. It takes standardized inputs.
    head_ : fastrnn.Linear
        The linear head.
    x_mean_, x_scale_ : ndarray, (I,)
        The layer takes ``(x - x_mean_) / x_scale_``.
    n_features_in_ : int
        T of an (n, T) array, else I.
    feature_names_in_ : ndarray of str
        The names of the columns if X was a data frame.
    n_iter_ : int
        The number of epochs of the last `fit`, or the number of calls of `partial_fit`.
    loss_ : float
        The last item of `loss_curve_`.
    loss_curve_ : list of float
        The mean loss of each epoch in nats, without the L2 term.
    validation_scores_ : list of float, or None without `early_stopping`
        The score of the validation set after each epoch.
    best_validation_score_ : float, or None without `early_stopping`
        The largest of them.

    See Also
    --------
    SequenceRegressor

    Notes
    -----
    A sequence of weight w counts as w equal sequences of weight 1, but for the composition of batches. The prediction
    for a sequence does not depend, to the last bit, on the other sequences.

    Examples
    --------
    >>> from fastrnn.sklearn import SequenceClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal((T, 2)) for T in rng.integers(5, 12, 200)]
    >>> y = ["rising" if x[-1, 0] > x[0, 0] else "falling" for x in X]
    >>> model = SequenceClassifier(random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.95
    True
    >>> model.predict_proba(X[:5]).shape
    (5, 2)
    """

    def __init__(
        self,
        *,
        cell: str = "lstm",
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        readout: str = "last",
        dropout: float = 0.0,
        noise: float = 0.0,
        standardize: bool = True,
        class_weight: Any = None,
        alpha: float = 0.03,
        batch_size: int | str = "auto",
        learning_rate: str = "linear",
        learning_rate_init: float = 0.01,
        clip_norm: float | None = 1.0,
        max_iter: int = 50,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        dtype: DTypeLike | None = None,
    ) -> None:
        arguments = dict(locals())
        for name in ("self", "class_weight", "__class__"):
            del arguments[name]
        super().__init__(**arguments)
        self.class_weight = class_weight

    def partial_fit(
        self, X: Any, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Any:
        """Train for one pass over some sequences, without forgetting earlier calls.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`. The weights are relative to each other within a call.
        classes : array_like, (K,), optional
            All classes that will appear; needed in the first call.

        Returns
        -------
        self : estimator

        Raises
        ------
        TypeError, ValueError
            As in `fit`, or if `classes` is missing in the first call or differs from it later.
        """
        settings = self._settings()
        refuse_early_stopping(settings)
        is_first = not hasattr(self, "layer_")
        if is_first and classes is None:
            raise ValueError("classes: must be passed on the first call to partial_fit")
        known = None if classes is None else unique_labels(classes)
        if known is not None and not is_first and not np.array_equal(known, self.classes_):
            raise ValueError(f"classes: expected {self.classes_}, as in the first call, got {known}")
        return self._fit(settings, X, y, sample_weight, is_first, is_partial=True, classes=known)

    def _targets(self, y, is_first, classes):
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        found = np.unique(y)
        if is_first:
            self.classes_ = found if classes is None else classes
        if not np.isin(found, self.classes_).all():
            raise ValueError(f"y: has classes that are not in {self.classes_}")
        return np.searchsorted(self.classes_, y)

    def _with_class_weights(self, frequency, targets, is_partial):
        if self.class_weight is None:
            return frequency
        K = len(self.classes_)
        if not isinstance(self.class_weight, Mapping):
            one_of("class_weight", self.class_weight, ("balanced",))
            if is_partial:
                raise ValueError("class_weight: 'balanced' needs all sequences at once, not those of a partial_fit")
            counts = np.bincount(targets, frequency, K)
            by_class = np.divide(counts.sum(), K * counts, out=np.zeros(K), where=counts > 0)
        else:
            classes = self.classes_.tolist()
            unknown = [label for label in self.class_weight if label not in classes]
            if unknown and not is_partial and not all(label in self.class_weight for label in classes):
                raise ValueError(f"class_weight: {unknown} are not among the classes {classes}")
            by_class = np.array([self.class_weight.get(label, 1.0) for label in classes], np.float64)
            if not (by_class >= 0).all():
                raise ValueError(f"class_weight: expected at least 0, got {by_class.min()}")
        return positive_weights(frequency * by_class[targets], len(targets))

    def _strata(self, targets):
        return targets

    def _measure(self, settings, targets, frequency):
        pass

    def _outputs(self, targets):
        return len(self.classes_)

    def _scaled(self, targets):
        return targets

    def _loss(self, scores, targets, weights):
        return softmax_cross_entropy(scores, targets, weights=weights)

    def _score(self, sequences, targets, weights):
        return accuracy_score(targets, self._head_of(sequences).argmax(axis=1), sample_weight=weights)

    def predict(self, X: Any) -> Array:
        """The most probable class of each sequence.

        Parameters
        ----------
        X : array_like or list
            As for `fit`; the number of steps may differ, except for an (n, T) array after a fit with such an array.

        Returns
        -------
        y : ndarray, (n,)
        """
        scores = self._predicted(X)
        return self.classes_[scores.argmax(axis=1)]

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithms of `predict_proba`.

        Parameters
        ----------
        X : array_like or list
            As for `predict`.

        Returns
        -------
        log_probabilities : ndarray, (n, K)
        """
        scores = self._predicted(X).astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    def predict_proba(self, X: Any) -> Array:
        """The probabilities of the classes, in the order of `classes_`.

        Parameters
        ----------
        X : array_like or list
            As for `predict`.

        Returns
        -------
        probabilities : ndarray, (n, K)
        """
        return np.exp(self.predict_log_proba(X))

    def decision_function(self, X: Any) -> Array:
        """The scores of the classes before the softmax.

        Parameters
        ----------
        X : array_like or list
            As for `predict`.

        Returns
        -------
        scores : ndarray, (n, K), or (n,) of two classes: the score of the second less that of the first
        """
        scores = self._predicted(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores


class SequenceRegressor(RegressorMixin, SequenceEstimator):
    """A regressor of sequences: a recurrent layer and a linear head, trained on the squared error with Adam.

    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"}, default "lstm"
        The recurrent layer, `fastrnn.LSTM`, `fastrnn.GRU` or `fastrnn.RNN`.
    hidden_size : int, default 128
        The number of hidden units of each layer and direction.
    num_layers : int, default 1
        The number of stacked layers.
    bidirectional : bool, default False
        Whether each layer also reads the sequences from their ends.
    readout : {"last", "mean"}, default "last"
        The vector that the linear head sees: the state after the last step (of each direction its own), or the mean of
        the outputs over the steps of a sequence.
    dropout : float, default 0.0
        The probability with which a number of the readout, or between two layers, is set to zero in training.
    noise : float, default 0.0
        The deviation of normal noise that is added to the inputs in training, in units of the standardized features.
    standardize : bool, default True
        Whether each feature is standardized by its mean and deviation over all steps of the training sequences,
        and each target by those of the training targets.
    alpha : float, default 0.03
        The strength of the L2 term: alpha / batch_size times a parameter is added to its gradient.
    batch_size : int or "auto", default "auto"
        Sequences per step of the optimizer, if there are as many; "auto" is 64.
    learning_rate : {"linear", "constant"}, default "linear"
        The schedule of `fit`: a linear decrease from `learning_rate_init` to 0 over `max_iter` epochs, or none.
        `partial_fit` always uses `learning_rate_init`.
    learning_rate_init : float, default 0.01
        The learning rate of Adam.
    clip_norm : float or None, default 1.0
        The largest norm of the gradient of a step; None for no limit.
    max_iter : int, default 50
        The largest number of epochs, passes over all sequences.
    shuffle : bool, default True
        Whether each epoch has a new order of sequences. One batch of all sequences keeps their order.
    random_state : int, RandomState or None, default None
        The source of initial parameters, orders, noise, dropout and the validation set. An int gives the same bits on
        each run, for any number of threads.
    tol : float, default 1e-4
        The least improvement of the loss, or of the validation score with `early_stopping`.
    verbose : bool, default False
        Whether to show a progress bar with loss and score on stderr.
    warm_start : bool, default False
        Whether `fit` continues from the parameters of the last `fit`. Sizes, standardization and classes stay.
    early_stopping : bool, default False
        Whether to hold out a validation set and to end with the parameters of its best score (R^2).
    validation_fraction : float, default 0.1
        The part of the sequences in the validation set.
    n_iter_no_change : int, default 10
        The number of epochs without an improvement of `tol` after which the training ends.
    dtype : dtype_like or None, default None
        float32 or float64, in which the network computes; None is that of X if it is float32, else float64.
        float32 is faster.

    Attributes
    ----------
    layer_ : fastrnn.LSTM, fastrnn.GRU or fastrnn.RNN
        The recurrent layer, for example for `fastrnn.save` or `fastrnn.to_onnx`. It takes standardized inputs.
    head_ : fastrnn.Linear
        The linear head.
    x_mean_, x_scale_ : ndarray, (I,)
        The layer takes ``(x - x_mean_) / x_scale_``.
    y_mean_, y_scale_ : ndarray, (K,)
        The predictions are the results of the head times `y_scale_` plus `y_mean_`.
    n_features_in_ : int
        T of an (n, T) array, else I.
    feature_names_in_ : ndarray of str
        The names of the columns if X was a data frame.
    n_iter_ : int
        The number of epochs of the last `fit`, or the number of calls of `partial_fit`.
    loss_ : float
        The last item of `loss_curve_`.
    loss_curve_ : list of float
        The mean loss of each epoch, the squared error of the standardized targets, without the L2 term.
    validation_scores_ : list of float, or None without `early_stopping`
        The score of the validation set after each epoch.
    best_validation_score_ : float, or None without `early_stopping`
        The largest of them.

    See Also
    --------
    SequenceClassifier

    Notes
    -----
    As for `SequenceClassifier`.

    Examples
    --------
    >>> from fastrnn.sklearn import SequenceRegressor
    >>> X = np.random.default_rng(0).standard_normal((200, 8, 1))
    >>> y = X[:, :, 0].sum(axis=1)
    >>> SequenceRegressor(random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _more_tags(self) -> Any:
        return {"multioutput": True}  # before scikit-learn 1.6

    def partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Train for one pass over some sequences, without forgetting earlier calls.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`. The weights are relative to each other within a call. Features and targets are standardized
            by the sequences of the first call.

        Returns
        -------
        self : estimator

        Raises
        ------
        TypeError, ValueError
            As in `fit`.
        """
        settings = self._settings()
        refuse_early_stopping(settings)
        return self._fit(settings, X, y, sample_weight, not hasattr(self, "layer_"), is_partial=True)

    def _targets(self, y, is_first, classes):
        y = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y")
        if y.ndim not in (1, 2):
            raise ValueError(f"y: expected (n,) or (n, K), got {y.shape}")
        if is_first:
            self._shape = y.shape[1:]
        if y.shape[1:] != self._shape:
            raise ValueError(f"y: expected {('n', *self._shape)}, as in the first call, got {y.shape}")
        return y.reshape(len(y), -1)

    def _with_class_weights(self, frequency, targets, is_partial):
        return frequency

    def _strata(self, targets):
        return None

    def _measure(self, settings, targets, frequency):
        K = targets.shape[1]
        self.y_mean_, self.y_scale_ = np.zeros(K), np.ones(K)
        if settings.standardize:
            self.y_mean_, self.y_scale_ = mean_and_scale(targets, frequency)

    def _outputs(self, targets):
        return targets.shape[1]

    def _scaled(self, targets):
        return ((targets - self.y_mean_) / self.y_scale_).astype(self.layer_.dtype)

    def _loss(self, scores, targets, weights):
        return mean_squared_error(scores, targets, weights=weights)

    def _score(self, sequences, targets, weights):
        return r2_score(targets, self._unscaled(self._head_of(sequences)), sample_weight=weights)

    def _unscaled(self, scores):
        return (scores * self.y_scale_ + self.y_mean_).astype(scores.dtype)

    def predict(self, X: Any) -> Array:
        """The target of each sequence.

        Parameters
        ----------
        X : array_like or list
            As for `fit`; the number of steps may differ, except for an (n, T) array after a fit with such an array.

        Returns
        -------
        y : ndarray, (n,) or (n, K), as the y of `fit`
        """
        y = self._unscaled(self._predicted(X))
        return y.reshape(len(y), *self._shape)


# Arguments --------------------------------------------------------------------------------------


def one_of(name, value, choices):
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected {' or '.join(map(repr, choices))}, got {value!r}")


def number(name, value, minimum=0.0):
    """A number of at least `minimum`."""
    result = real(name, value)
    if not result >= minimum:
        raise ValueError(f"{name}: expected at least {minimum:g}, got {short(value)}")
    return result


def refuse_early_stopping(settings):
    if settings.early_stopping:
        raise ValueError("early_stopping: not with partial_fit, which has no validation set")
