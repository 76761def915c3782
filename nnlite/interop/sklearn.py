"""Estimators for scikit-learn: a multi-layer perceptron, and any model of nnlite.

They are what scikit-learn expects of an estimator, so that they work in a ``Pipeline``, in
``GridSearchCV`` and with every metric. Needs scikit-learn 1.6 or newer:
``pip install scikit-learn``.
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeVar

import numpy as np

try:
    from scipy.sparse import issparse
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import check_scoring
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import LabelEncoder
    from sklearn.utils import check_random_state
    from sklearn.utils.class_weight import compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_is_fitted,
        column_or_1d,
        validate_data,
    )
except ImportError as error:
    raise ImportError(
        "nnlite.interop.sklearn needs scikit-learn 1.6 or newer; "
        "install it with: pip install scikit-learn"
    ) from error

import nnlite as nn

from ..checks import integer, number, one_of
from ..engine.arrays import Array
from ..losses import ElementwiseLoss
from ..random import package_generator
from .scoring import probabilities

__all__ = ["MLPClassifier", "MLPRegressor", "NetClassifier", "NetRegressor"]

ACTIVATIONS: dict[str, Callable[[], nn.Layer]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}

Self = TypeVar("Self", bound="_Network")


class HalfSquaredError(ElementwiseLoss):
    """Half the squared error, summed over the outputs of a sample and averaged over samples."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        # The base class averages over all numbers. Times the outputs, it is a mean over samples.
        self.outputs = outputs

    def losses(self, prediction: Array, target: Array) -> Array:
        return np.square(prediction - target) * (self.outputs / 2)

    def slopes(self, prediction: Array, target: Array) -> Array:
        return (prediction - target) * self.outputs


def _register_compiled_form() -> None:
    from ..compiled.forms import form
    from ..compiled.losses import FORMULAS, elementwise

    FORMULAS[HalfSquaredError] = lambda loss, code: (
        f"real({loss.outputs / 2}) * (x - t) * (x - t)",
        f"real({loss.outputs}) * (x - t)",
    )
    form(HalfSquaredError)(elementwise)


class InverseScaling(nn.Schedule):
    """The schedule "invscaling": ``lr = lr₀ / (samples seen + 1)^power``."""

    def __init__(self, optimizer: nn.Optimizer, samples: int, power: float) -> None:
        self.samples, self.power = samples, power
        super().__init__(optimizer)

    def factor(self, count: int) -> float:
        return float((count * self.samples + 1) ** -self.power)


class Convergence(nn.Callback):
    """Stop, or lower the learning rate, when a figure stops rising, as scikit-learn does.

    An epoch counts as one without improvement if its figure is below the best so far plus `tol`.

    Parameters
    ----------
    figure : callable
        Gets the `Training` and returns the figure of the epoch: higher is better.
    tol : float
    patience : float
        The number of epochs in a row without improvement that are allowed.
    adaptive : bool
        Whether to divide the learning rate by 5 before giving up, until it is below 1e-6.
    restore_best : bool
        Whether the model ends with the weights of its best epoch.
    """

    def __init__(
        self,
        figure: Callable[[nn.Training], float],
        tol: float,
        patience: float,
        adaptive: bool,
        restore_best: bool,
    ) -> None:
        self.figure, self.tol, self.patience = figure, tol, patience
        self.adaptive, self.restore_best = adaptive, restore_best
        self.best, self.waited = -math.inf, 0
        self.weights: dict[str, Array] | None = None

    def on_epoch_end(self, training: nn.Training) -> None:
        figure = self.figure(training)
        self.waited = 0 if figure >= self.best + self.tol else self.waited + 1
        if figure > self.best:
            self.best = figure
            if self.restore_best:
                self.weights = training.model.state_dict()
        if self.waited <= self.patience:
            return
        if self.adaptive and training.optimizer.lr > 1e-6:
            training.optimizer.lr /= 5
            self.waited = 0
        else:
            training.stop(f"no improvement by more than tol={self.tol:g} for {self.waited} epochs")

    def on_fit_end(self, training: nn.Training) -> None:
        if self.weights is not None:
            training.model.load_state_dict(self.weights)


@dataclass(eq=False, repr=False, kw_only=True)
class _Network(BaseEstimator):
    """Base of the four estimators: it trains a model on the data of scikit-learn."""

    solver: Any = "adam"
    alpha: float = 0.0001
    batch_size: int | str = "auto"
    learning_rate: Any = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: bool = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    scoring: Any = None
    callbacks: Iterable[Any] = ()
    dtype: Any = None
    compile: bool = False

    _takes_images = False

    def fit(
        self: Self, X: Any, y: Any, sample_weight: Any = None, *, validation: Any = None
    ) -> Self:
        """Train the model.

        Parameters
        ----------
        X : array_like, DataFrame or sparse matrix of shape (n_samples, n_features)
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array_like of shape (n_samples,), optional
            How much each sample counts. A sample of weight 0 is left out.
        validation : tuple (X, y) or (X, y, sample_weight), optional
            Data whose score is taken after each epoch. With ``early_stopping=True`` they take the
            place of the ``validation_fraction`` of the training data.

        Returns
        -------
        self
        """
        fresh = not (self.warm_start and hasattr(self, "model_"))
        X, y, weight = self._checked(X, y, sample_weight, reset=fresh)
        if validation is not None:
            validation = self._checked(*validation, reset=False)
        self._seed()
        if self.early_stopping and validation is None:
            X, y, weight, validation = self._split(X, y, weight)
        with package_generator(self._rng):
            if fresh:
                self._build_model(X)
            targets, weight = self._targets(y), self._weights(y, weight)
            self._build_optimizer(X, weight)
            self._train(X, targets, weight, integer(self.max_iter, "max_iter"), validation)
        return self

    def _partial_fit(self: Self, X: Any, y: Any, weight: Any, fresh: bool) -> Self:
        """Train for one epoch on data that `_checked` has returned."""
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if fresh:
            self._seed()
        with package_generator(self._rng):
            if fresh:
                self._build_model(X)
            targets, weight = self._targets(y), self._weights(y, weight)
            if fresh:
                self._build_optimizer(X, weight)
            self._train(X, targets, weight, 1, None, converge=False)
        return self

    # ---- for the subclasses ----

    def _build(self, input_shape: tuple[int, ...], n_outputs: int) -> nn.Layer:
        raise NotImplementedError(f"{type(self).__name__} does not define _build")

    def _loss(self) -> nn.Loss:
        raise NotImplementedError(f"{type(self).__name__} does not define _loss")

    def _learn_targets(self, y: Array, reset: bool) -> Array:
        """Check y and return it; with `reset`, learn from it what there is to predict."""
        raise NotImplementedError(f"{type(self).__name__} does not define _learn_targets")

    def _targets(self, y: Array) -> Array:
        """Return y as the loss takes it."""
        raise NotImplementedError(f"{type(self).__name__} does not define _targets")

    def _weights(self, y: Array, sample_weight: Array | None) -> Array | None:
        """Return the weights of the samples for the loss."""
        return sample_weight

    # ---- data ----

    def _checked(
        self, X: Any, y: Any, sample_weight: Any = None, *, reset: bool
    ) -> tuple[Any, Array, Array | None]:
        """Return data and weights as arrays, without the samples of weight 0."""
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            allow_nd=self._takes_images,
            multi_output=True,
            y_numeric=not is_classifier(self),
            dtype=self._input_dtype(reset),
            reset=reset,
        )
        y = y.toarray() if issparse(y) else y
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        y = self._learn_targets(y, reset)
        if reset:
            self._dtype = X.dtype
        if sample_weight is None:
            return X, y, None
        weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        counted = weight > 0
        if not counted.any():
            raise ValueError("the sample weights are all zero; at least one must be above 0")
        if counted.all():
            return X, y, weight
        return X[counted], y[counted], weight[counted]

    def _input_dtype(self, reset: bool) -> Any:
        if not reset:
            return self._dtype
        return (np.float64, np.float32) if self.dtype is None else np.dtype(self.dtype)

    def _split(
        self, X: Any, y: Array, weight: Array | None
    ) -> tuple[Any, Array, Array | None, tuple[Any, Array, Array | None]]:
        """Return the training data, and those held out for early stopping."""
        arrays = [X, y] if weight is None else [X, y, weight]
        parts = train_test_split(
            *arrays,
            test_size=self.validation_fraction,
            stratify=y if is_classifier(self) and y.ndim == 1 else None,
            random_state=int(self._rng.integers(2**31)),
        )
        train, held_out = [*parts[::2], None][:3], [*parts[1::2], None][:3]
        if held_out[0].shape[0] < 2:
            raise ValueError(
                "The validation set is too small. Increase validation_fraction, "
                "or give the data as fit(..., validation=(X, y))"
            )
        return train[0], train[1], train[2], (held_out[0], held_out[1], held_out[2])

    # ---- training ----

    def _seed(self) -> None:
        # Every draw of a fit comes from this generator: the same seed gives the same bits, and the
        # generators of NumPy and of the package are left alone.
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        self._rng = np.random.default_rng(seed)

    def _build_model(self, X: Any) -> None:
        self.model_ = self._build(X.shape[1:], self.n_outputs_)
        if X.dtype.kind == "f":
            self.model_.astype(X.dtype)
        self.history_ = nn.History()

    def _build_optimizer(self, X: Any, weight: Array | None) -> None:
        parameters = list(self.model_.parameters())
        if callable(self.solver):
            self.optimizer_ = self.solver(parameters, lr=self.learning_rate_init)
            return
        # The penalty of a sample is alpha/2 ‖W‖² / n for batches of n samples; biases have none.
        scale = self._batch_length(X.shape[0]) * (1.0 if weight is None else float(weight.mean()))
        decay = number(self.alpha, "alpha", 0) / scale
        weights = [parameter for parameter in parameters if len(parameter.shape) > 1]
        others = [parameter for parameter in parameters if len(parameter.shape) <= 1]
        groups: list[dict[str, Any]] = [
            {"params": weights, "weight_decay": decay},
            {"params": others},
        ]
        params = [group for group in groups if group["params"]]
        if one_of(self.solver, ("adam", "sgd"), "solver") == "adam":
            betas = self.beta_1, self.beta_2
            self.optimizer_ = nn.Adam(params, self.learning_rate_init, betas, self.epsilon)
        else:
            self.optimizer_ = nn.SGD(
                params,
                self.learning_rate_init,
                momentum=self.momentum,
                nesterov=self.nesterovs_momentum and self.momentum > 0,
            )

    def _schedule(self, samples: int) -> Any:
        if callable(self.learning_rate):
            return self.learning_rate(self.optimizer_)
        kinds = ("constant", "invscaling", "adaptive")
        if one_of(self.learning_rate, kinds, "learning_rate") == "invscaling":
            return InverseScaling(self.optimizer_, samples, number(self.power_t, "power_t", 0))
        return None

    def _batch_length(self, samples: int) -> int:
        size = 200 if self.batch_size == "auto" else integer(self.batch_size, "batch_size")
        return min(size, samples)

    def _batches(self, X: Any, targets: Array, weight: Array | None) -> nn.DataLoader:
        samples = X.shape[0]
        size = self._batch_length(samples)
        arrays = [targets] if weight is None else [targets, weight.astype(self._dtype)]
        # Batch normalisation cannot be trained on a single sample.
        normalized = any(isinstance(layer, nn.BatchNorm1d) for layer in self.model_.layers())
        options: dict[str, Any] = {
            "batch_size": size,
            "shuffle": self.shuffle,
            "drop_last": normalized and samples % size == 1,
        }
        if not issparse(X):
            return nn.DataLoader(X, *arrays, **options)

        def dense(rows: Array, *others: Array) -> tuple[Array, ...]:
            return X[rows].toarray(), *others

        return nn.DataLoader(np.arange(samples), *arrays, transform=dense, **options)

    def _train(
        self,
        X: Any,
        targets: Array,
        weight: Array | None,
        epochs: int,
        validation: Any,
        converge: bool = True,
    ) -> None:
        before = len(self.history_.epochs)
        scores: list[float] = []

        def negative_loss(training: nn.Training) -> float:
            return -float(training.history["loss"][-1])

        def score(training: nn.Training) -> float:
            scores.append(self._validation_score(*validation))
            if self.verbose:
                print(f"validation score {scores[-1]:.4g}")
            return scores[-1]

        convergence = Convergence(
            score if self.early_stopping else negative_loss,
            number(self.tol, "tol", 0),
            self.n_iter_no_change,
            adaptive=self.solver == "sgd" and self.learning_rate == "adaptive",
            restore_best=self.early_stopping,
        )
        if self.compile:
            _register_compiled_form()
        callbacks = list(self.callbacks)
        if converge:
            callbacks.append(convergence)
        if validation is not None and not self.early_stopping:
            callbacks.append(score)
        try:
            nn.fit(
                self.model_,
                self._loss(),
                self.optimizer_,
                self._batches(X, targets, weight),
                epochs=before + epochs,
                schedule=self._schedule(X.shape[0]) if converge else None,
                callbacks=callbacks,
                history=self.history_,
                # The first fit has no earlier weights that a failure could cost.
                rollback=before > 0,
                progress=bool(self.verbose),
                compile=self.compile,
            )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", UserWarning, stacklevel=3)
        self._forget_batch(X)
        self.loss_curve_ = self.history_["loss"].tolist()
        self.n_iter_ = len(self.loss_curve_) - before
        self.loss_ = self.loss_curve_[-1]
        self.best_loss_ = None if self.early_stopping else min(self.loss_curve_)
        self.validation_scores_ = scores or None
        self.best_validation_score_ = max(scores, default=None)
        if converge and self.n_iter_ == epochs and convergence.waited <= convergence.patience:
            warnings.warn(
                f"{type(self).__name__}: max_iter={epochs} epochs were reached before training "
                f"converged",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _validation_score(self, X: Any, y: Array, weight: Array | None) -> float:
        # A view of the estimator without the names of the columns, which these arrays lack.
        fitted = copy.copy(self)
        fitted.__dict__.pop("feature_names_in_", None)
        options = {} if weight is None else {"sample_weight": weight}
        return float(check_scoring(fitted, self.scoring)(fitted, X, y, **options))

    def _forget_batch(self, X: Any) -> None:
        """Let go of the last batch, which the layers keep for a backward."""
        self.optimizer_.zero_grad()
        self._outputs(X[:1])

    def _outputs(self, X: Any) -> Array:
        """Return what the model gives for data that have been checked."""
        if not issparse(X):
            return nn.predict(self.model_, X, batch_size=1024)
        parts = [X[start : start + 1024].toarray() for start in range(0, X.shape[0], 1024)]
        return np.concatenate([nn.predict(self.model_, part, 1024) for part in parts])

    def _predicted(self, X: Any) -> Array:
        check_is_fitted(self)
        return self._outputs(
            validate_data(
                self,
                X,
                accept_sparse="csr",
                allow_nd=self._takes_images,
                dtype=self._dtype,
                reset=False,
            )
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags


@dataclass(eq=False, repr=False, kw_only=True)
class _Classifier(ClassifierMixin, _Network):
    """A network whose outputs are scores of classes, or of labels that a sample may have."""

    class_weight: Any = None

    # The classes of the first partial_fit, whose y need not have all of them.
    _given_classes = None

    def partial_fit(
        self: Self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Train the model for one epoch on more data.

        Parameters
        ----------
        X : array_like, DataFrame or sparse matrix of shape (n_samples, n_features)
        y : array_like of shape (n_samples,) or (n_samples, n_labels)
        classes : array_like of shape (n_classes,), optional
            All classes that any call will have. Needed by the first call.
        sample_weight : array_like of shape (n_samples,), optional

        Returns
        -------
        self
        """
        fresh = not hasattr(self, "model_")
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all data at once, which partial_fit does not have; "
                "give the weights as a dict"
            )
        if fresh and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if fresh:
            self._given_classes = np.asarray(classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(
                f"classes={classes!r} is not the same as on the last call to partial_fit, "
                f"was: {self.classes_!r}"
            )
        try:
            data = self._checked(X, y, sample_weight, reset=fresh)
        finally:
            self._given_classes = None
        return self._partial_fit(*data, fresh=fresh)

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each sample; for several labels, 0 or 1 for each.

        Parameters
        ----------
        X : array_like, DataFrame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        probabilities = self.predict_proba(X)
        if self._multilabel:
            return (probabilities > 0.5).astype(int)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, or of each label.

        Parameters
        ----------
        X : array_like, DataFrame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
            The columns are in the order of ``classes_``.
        """
        rows = probabilities(self._predicted(X), self._loss(), self._by_columns())
        if not self._by_columns() or self._multilabel:
            return rows
        if self.n_outputs_ == 1:
            return np.hstack([1 - rows, rows])
        return rows / rows.sum(axis=1, keepdims=True)

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def _learn_targets(self, y: Array, reset: bool) -> Array:
        check_classification_targets(y)
        multilabel = type_of_target(y) == "multilabel-indicator"
        if y.ndim == 2 and not multilabel:
            raise ValueError(
                f"{type(self).__name__}: Unknown label type: expected one class for each sample, "
                f"or several labels of 0 and 1, got y of shape {y.shape}"
            )
        if reset:
            self._multilabel = multilabel
            if multilabel:
                self.classes_ = np.arange(y.shape[1])
            else:
                self._encoder = LabelEncoder().fit(
                    y if self._given_classes is None else self._given_classes
                )
                self.classes_ = self._encoder.classes_
                if len(self.classes_) < 2:
                    raise ValueError(
                        f"{type(self).__name__}: expected two classes or more, "
                        f"got one class: {self.classes_[0]!r}"
                    )
            count = len(self.classes_)
            self.n_outputs_ = 1 if not multilabel and count == 2 and self._by_columns() else count
        if multilabel != self._multilabel or (multilabel and y.shape[1] != len(self.classes_)):
            raise ValueError(
                f"{type(self).__name__}: y has not the form that it had in the first fit; "
                f"start anew with warm_start=False"
            )
        unknown = np.setdiff1d(y, self.classes_)
        if not multilabel and len(unknown):
            raise ValueError(f"y has classes that are not in classes_={self.classes_}: {unknown}")
        return y

    def _by_columns(self) -> bool:
        """Whether the loss compares each output with a target of 0 or 1 of its own."""
        return self._multilabel or isinstance(self._loss(), nn.BinaryCrossEntropy)

    def _targets(self, y: Array) -> Array:
        if self._multilabel:
            return y.astype(self._dtype)
        indices = self._encoder.transform(y)
        if not self._by_columns():
            return indices
        if self.n_outputs_ == 1:
            return indices[:, np.newaxis].astype(self._dtype)
        return np.eye(self.n_outputs_, dtype=self._dtype)[indices]

    def _weights(self, y: Array, sample_weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return sample_weight
        weight = compute_sample_weight(self.class_weight, y)
        return weight if sample_weight is None else weight * sample_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@dataclass(eq=False, repr=False, kw_only=True)
class _Regressor(RegressorMixin, _Network):
    """A network whose outputs are the numbers to predict."""

    loss: Any = "squared_error"

    def partial_fit(self: Self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the model for one epoch on more data.

        Parameters
        ----------
        X : array_like, DataFrame or sparse matrix of shape (n_samples, n_features)
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array_like of shape (n_samples,), optional

        Returns
        -------
        self
        """
        fresh = not hasattr(self, "model_")
        data = self._checked(X, y, sample_weight, reset=fresh)
        return self._partial_fit(*data, fresh=fresh)

    def predict(self, X: Any) -> Array:
        """Return the predicted numbers.

        Parameters
        ----------
        X : array_like, DataFrame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        outputs = self._predicted(X)
        return outputs.reshape(len(outputs)) if self.n_outputs_ == 1 else outputs

    def _loss(self) -> nn.Loss:
        if isinstance(self.loss, nn.Loss):
            return copy.deepcopy(self.loss)
        one_of(self.loss, ("squared_error",), "loss, if it is not a loss of nnlite,")
        return HalfSquaredError(self.n_outputs_)

    def _learn_targets(self, y: Array, reset: bool) -> Array:
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if reset:
            self.n_outputs_ = outputs
        elif outputs != self.n_outputs_:
            raise ValueError(
                f"{type(self).__name__}: expected y with {self.n_outputs_} outputs as in the first "
                f"fit, got {outputs}"
            )
        return y

    def _targets(self, y: Array) -> Array:
        return y.reshape(len(y), -1).astype(self._dtype)


@dataclass(eq=False, repr=False)
class _MLP(_Network):
    """A network of fully connected layers."""

    hidden_layer_sizes: Any = (100,)
    activation: Any = "relu"
    _: KW_ONLY
    dropout: float = 0.0
    batch_norm: bool = False

    def _build(self, input_shape: tuple[int, ...], n_outputs: int) -> nn.Layer:
        hidden = np.ravel(self.hidden_layer_sizes).tolist()
        sizes = [*input_shape, *(integer(size, "hidden_layer_sizes") for size in hidden)]
        activation = self.activation
        if not callable(activation):
            activation = ACTIVATIONS[one_of(activation, tuple(ACTIVATIONS), "activation")]
        layers: list[nn.Layer] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers.append(self._linear(n_in, n_out))
            if self.batch_norm:
                layers.append(nn.BatchNorm1d(n_out))
            layers.append(activation())
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
        return nn.Sequential(*layers, self._linear(sizes[-1], n_outputs))

    def _linear(self, n_in: int, n_out: int) -> nn.Linear:
        """Return a layer with scikit-learn's initial weights: Glorot's, for the bias too."""
        layer = nn.Linear(n_in, n_out)
        bound = math.sqrt((2 if self.activation == "logistic" else 6) / (n_in + n_out))
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        return layer

    @property
    def coefs_(self) -> list[Array]:
        """The weights of each layer, of shape (inputs, outputs)."""
        return [layer.weight.data.T for layer in self._linear_layers()]

    @property
    def intercepts_(self) -> list[Array]:
        """The bias of each layer."""
        return [layer.bias.data for layer in self._linear_layers() if layer.bias is not None]

    def _linear_layers(self) -> list[nn.Linear]:
        return [layer for layer in self.model_.layers() if isinstance(layer, nn.Linear)]


@dataclass(eq=False, repr=False)
class _Net(_Network):
    """A network that the user has built."""

    model: Any = None

    _takes_images = True

    def _build(self, input_shape: tuple[int, ...], n_outputs: int) -> nn.Layer:
        if isinstance(self.model, nn.Layer):
            return copy.deepcopy(self.model)
        model = self.model(input_shape, n_outputs) if callable(self.model) else self.model
        if not isinstance(model, nn.Layer):
            raise TypeError(
                f"{type(self).__name__}: model must be a layer, or a function of (input_shape, "
                f"n_outputs) that returns one; got {model!r:.80}"
            )
        return model


@dataclass(eq=False, repr=False)
class MLPClassifier(_Classifier, _MLP):
    """A multi-layer perceptron that classifies: scikit-learn's, with what it lacks.

    Parameters that scikit-learn's ``MLPClassifier`` has mean the same here and have the same
    defaults, but for the solver "lbfgs", which does not exist here.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default (100,)
        The number of units in each hidden layer.
    activation : {"relu", "tanh", "logistic", "identity"} or callable
        What follows each hidden layer. A callable returns a layer: ``nn.GELU``.
    dropout : float in [0, 1], default 0
        The probability with which `Dropout` after each hidden layer sets an activation to 0.
    batch_norm : bool, default False
        Whether to put a `BatchNorm1d` between each hidden layer and its activation.
    solver : {"adam", "sgd"} or callable
        The optimizer. A callable is called with the parameters and ``lr=learning_rate_init``:
        ``nn.RMSprop``, or ``functools.partial(nn.AdamW, weight_decay=0.1)``.
    alpha : float, default 1e-4
        Factor of the penalty ``alpha/2 ‖W‖²`` on the weights, divided by the total weight of a
        batch. For "adam" and "sgd" only.
    batch_size : int or "auto"
        "auto" is ``min(200, n_samples)``.
    learning_rate : {"constant", "invscaling", "adaptive"} or callable
        "invscaling" divides the first learning rate by the number of samples seen to the power
        `power_t`; "adaptive" divides it by 5 when training no longer improves (for "sgd"). A
        callable gets the optimizer and returns a schedule, which makes a step after each epoch:
        ``functools.partial(nn.StepLR, step_size=30)``.
    learning_rate_init : float, default 0.001
    power_t : float, default 0.5
    max_iter : int, default 200
        The largest number of epochs. ConvergenceWarning is issued when they are used up.
    shuffle : bool, default True
        Whether to draw a new order of the samples for each epoch.
    random_state : int, RandomState or None
        Determines the initial weights, the held-out samples, the order of the samples and dropout.
        The same int gives the same bits. `seed` has no effect, as everything random draws from a
        generator of the fit.
    tol, n_iter_no_change : float, default 1e-4 and 10
        Training ends after more than `n_iter_no_change` epochs in a row in which the loss, or with
        early stopping the validation score, has not improved by `tol`.
    verbose : bool, default False
        Whether to print a line for each epoch and, on a terminal, to show a progress bar.
    warm_start : bool, default False
        Whether `fit` goes on from the weights of the last call.
    momentum, nesterovs_momentum : float and bool, default 0.9 and True
        For "sgd".
    early_stopping : bool, default False
        Whether to stop by the score on held-out data, and to keep the weights of the best epoch.
    validation_fraction : float, default 0.1
        The fraction of the training data to hold out, unless `fit` gets ``validation=``.
    beta_1, beta_2, epsilon : float, default 0.9, 0.999 and 1e-8
        For "adam".
    scoring : str, callable or None
        Score of the validation data: any of scikit-learn's by name, such as "f1_macro" or
        "roc_auc", computed over all of them. None is the accuracy, or R² of a regressor.
    callbacks : iterable of Callback or callable
        Given to `nnlite.fit`.
    dtype : data-type, optional
        The dtype that X is converted to and the model computes in. None keeps float32 and float64.
        "float32" is the faster one.
    compile : bool, default False
        Whether the passes and the step of the optimizer are native functions: see `nnlite.compile`.
        The weights are the same but for rounding. An architecture is compiled once, which takes
        seconds, and cached on disk.
    class_weight : dict, "balanced" or None
        How much each class counts, as in scikit-learn's classifiers.

    Attributes
    ----------
    classes_ : ndarray
    model_ : Sequential
        The trained network; its outputs are logits.
    optimizer_ : Optimizer
    history_ : History
        The figures of all epochs, those of `partial_fit` too.
    loss_curve_ : list of float
        The mean training loss of each epoch, without the penalty.
    loss_, best_loss_ : float
        The last and the smallest of it; `best_loss_` is None with early stopping.
    validation_scores_, best_validation_score_ : list of float, and float
        The score of each epoch and the best of them; None without validation data.
    coefs_, intercepts_ : list of ndarray
        The weights (inputs, outputs) and the bias of each layer.
    n_iter_ : int
        The number of epochs of the last call.
    n_features_in_, feature_names_in_, n_outputs_
        As in scikit-learn.

    Raises
    ------
    ValueError, TypeError
        If data or parameters are out of range or do not fit, or if training diverges.

    See Also
    --------
    NetClassifier : For any other network.

    Notes
    -----
    Two classes and multi-label targets have logistic outputs and `BinaryCrossEntropy`, more
    classes a softmax and `CrossEntropy`. A fitted estimator holds no training data.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from nnlite.interop.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = MLPClassifier((20,), dropout=0.1, learning_rate_init=0.01, random_state=0)
    >>> classifier.fit(X, y).score(X, y) > 0.95
    True
    """

    def _loss(self) -> nn.Loss:
        if self._multilabel:
            # The labels of a sample are summed, and the mean of the loss is one over all labels.
            return nn.BinaryCrossEntropy(weight=np.full(self.n_outputs_, float(self.n_outputs_)))
        if len(self.classes_) == 2:
            return nn.BinaryCrossEntropy()
        return nn.CrossEntropy()


@dataclass(eq=False, repr=False)
class MLPRegressor(_Regressor, _MLP):
    """A multi-layer perceptron that predicts one or several numbers.

    Parameters
    ----------
    loss : "squared_error" or Loss
        "squared_error" is half the squared error, as in scikit-learn, summed over outputs and
        averaged over samples. Any loss of nnlite between numbers will do: ``nn.Huber()``.
    **options
        All others are those of `MLPClassifier`, but for `class_weight`.

    See Also
    --------
    NetRegressor : For any other network.

    Examples
    --------
    >>> import numpy as np
    >>> from nnlite.interop.sklearn import MLPRegressor
    >>> X = np.linspace(-3, 3, 200).reshape(-1, 1)
    >>> regressor = MLPRegressor((50,), learning_rate_init=0.01, max_iter=500, random_state=0)
    >>> regressor.fit(X, np.sin(X[:, 0])).score(X, np.sin(X[:, 0])) > 0.95
    True
    """


@dataclass(eq=False, repr=False)
class NetClassifier(_Classifier, _Net):
    """A classifier around a network of your own.

    Parameters
    ----------
    model : Layer or callable
        A layer is copied by each `fit` and trained from the weights that it has. A function of
        (input_shape, n_outputs) builds a new one: `input_shape` is that of a sample, `n_outputs`
        the number of classes or labels. Its outputs are logits, unless `loss` says otherwise. X
        may have any number of axes: (N, C, H, W) for images.
    loss : Loss, optional
        `CrossEntropy` if left out, or `BinaryCrossEntropy` for several labels. With
        `BinaryCrossEntropy` and two classes the model has one output.
    **options
        All others are those of `MLPClassifier`, but for the shape of its network. With an integer
        `dtype`, for a model that begins with an `Embedding`, the model keeps its own dtype.

    Examples
    --------
    >>> import nnlite as nn
    >>> from nnlite.interop.sklearn import NetClassifier
    >>> from sklearn.datasets import load_digits
    >>> def build(input_shape, n_outputs):
    ...     return nn.Sequential(
    ...         nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
    ...         nn.Flatten(), nn.Linear(72, n_outputs),
    ...     )
    >>> X, y = load_digits(return_X_y=True)
    >>> images = (X / 16).reshape(-1, 1, 8, 8).astype("float32")
    >>> net = NetClassifier(build, learning_rate_init=0.01, n_iter_no_change=3, random_state=0)
    >>> net.fit(images[:1000], y[:1000]).score(images[1000:], y[1000:]) > 0.9
    True
    """

    _: KW_ONLY
    loss: Any = None

    def _loss(self) -> nn.Loss:
        if self.loss is not None:
            return copy.deepcopy(self.loss)
        return nn.BinaryCrossEntropy() if self._multilabel else nn.CrossEntropy()


@dataclass(eq=False, repr=False)
class NetRegressor(_Regressor, _Net):
    """A regressor around a network of your own.

    Parameters
    ----------
    model : Layer or callable
        As for `NetClassifier`; `n_outputs` is the number of columns of y.
    loss : "squared_error" or Loss
        As for `MLPRegressor`.
    **options
        All others are those of `MLPClassifier`, but for the shape of its network.

    Examples
    --------
    >>> import nnlite as nn
    >>> from nnlite.interop.sklearn import NetRegressor
    >>> from sklearn.datasets import load_linnerud
    >>> X, y = load_linnerud(return_X_y=True)
    >>> net = NetRegressor(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)))
    >>> net.partial_fit(X, y).predict(X).shape
    (20, 3)
    """
