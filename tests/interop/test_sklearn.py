"""The estimators for scikit-learn: its own checks, and typical uses."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import pickle
import unittest

import numpy as np
import pytest

for package in ("sklearn", "pandas", "polars"):
    pytest.importorskip(package)

import joblib
import pandas as pd
import polars as pl
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import permutation_importance
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import parametrize_with_checks

import nnlite as nn
from nnlite.interop.sklearn import MLPClassifier, MLPRegressor, NetClassifier, NetRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

IRIS = load_iris(return_X_y=True)


def perceptron(input_shape, n_outputs, hidden=50):
    return nn.Sequential(nn.Linear(*input_shape, hidden), nn.Tanh(), nn.Linear(hidden, n_outputs))


class Perceptron(nn.Sequential):
    """The same as a class, whose repr, the name of a case, is the same in every process."""

    def __init__(self, input_shape, n_outputs):
        super().__init__(*perceptron(input_shape, n_outputs))


def two_classes():
    X, y = IRIS
    return scale(X[50:]), y[50:]


ALL = [
    MLPClassifier(max_iter=100),
    MLPRegressor(max_iter=100),
    NetClassifier(Perceptron, max_iter=100),
    NetRegressor(Perceptron, max_iter=100),
]


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(ALL)
def test_estimators_pass_the_checks_of_scikit_learn(estimator, check):
    # Checks of the array API and of decision_function do not apply, as for scikit-learn's own MLP.
    with contextlib.suppress(unittest.SkipTest):
        check(estimator)


# ---- as scikit-learn's own ----


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "adam", "alpha": 0.3, "epsilon": 1e-12},  # in which place eps is added differs
        {"solver": "sgd", "alpha": 0.3, "learning_rate_init": 0.05},
        {"solver": "sgd", "nesterovs_momentum": False, "activation": "logistic"},
        {"solver": "sgd", "momentum": 0.0, "learning_rate": "invscaling", "power_t": 0.1},
        {"solver": "sgd", "momentum": 0.0, "learning_rate": "adaptive", "tol": 1.0},
        {"solver": "sgd", "activation": "identity", "tol": 0.02},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression", "outputs"])
def test_training_takes_the_steps_of_scikit_learn(kind, options, monkeypatch):
    X, y = IRIS
    X = scale(X)
    X, y = {
        "binary": (X, (y == 1).astype(int)),
        "multiclass": (X, y),
        "multilabel": (X, np.stack([y == 0, y > 0, X[:, 0] > 0], axis=1).astype(int)),
        "regression": (X[:, 1:], X[:, 0]),
        "outputs": (X[:, 2:], X[:, :2]),
    }[kind]
    regression = kind in ("regression", "outputs")
    ours, theirs = (
        (MLPRegressor, TheirRegressor) if regression else (MLPClassifier, TheirClassifier)
    )
    # All of the data are one batch, in which their order does not matter.
    settings = {
        "hidden_layer_sizes": (7, 5), "random_state": 0, "max_iter": 40, "activation": "tanh",
        "batch_size": len(X), "shuffle": False, **options,
    }  # fmt: skip
    expected = theirs(**settings).fit(X, y)
    # What it began with: the weights after an epoch of no length.
    first = theirs(**{**settings, "max_iter": 1, "learning_rate_init": 1e-300}).fit(X, y)
    initial = iter([*zip(first.coefs_, first.intercepts_, strict=True)])

    def linear(self, n_in, n_out):
        layer = nn.Linear(n_in, n_out)
        layer.astype(np.float64)
        coef, intercept = next(initial)
        layer.weight.data, layer.bias.data = coef.T, intercept
        return layer

    monkeypatch.setattr(ours, "_linear", linear)
    if kind == "outputs" and "tol" in settings:
        settings["tol"] *= 2  # its loss is a mean over outputs, its gradient is that of the sum
    network = ours(**settings).fit(X, y)
    assert network.n_iter_ == expected.n_iter_
    for coef, wanted in zip(network.coefs_, expected.coefs_, strict=True):
        np.testing.assert_allclose(coef, wanted, rtol=1e-6, atol=1e-8)
    for intercept, wanted in zip(network.intercepts_, expected.intercepts_, strict=True):
        np.testing.assert_allclose(intercept, wanted, rtol=1e-6, atol=1e-8)
    method = "predict" if regression else "predict_proba"
    np.testing.assert_allclose(
        getattr(network, method)(X), getattr(expected, method)(X), rtol=1e-6, atol=1e-8
    )


def test_early_stopping_ends_with_the_weights_of_the_best_epoch():
    X, y = two_classes()
    flipped = 1 - (y - 1) + 1  # training on one half makes the other half worse
    classifier = MLPClassifier(
        early_stopping=True, n_iter_no_change=3, learning_rate_init=0.01, random_state=0
    )
    classifier.fit(X, y, validation=(X, flipped))
    scores = classifier.validation_scores_
    assert len(scores) < 200
    assert scores.index(max(scores)) < len(scores) - 1
    assert classifier.best_validation_score_ == max(scores)
    assert classifier.score(X, flipped) == max(scores)


def test_an_exhausted_max_iter_is_a_convergence_warning():
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        MLPClassifier(max_iter=2).fit(*IRIS)


# ---- additions to scikit-learn ----


def test_class_weights_are_weights_of_the_samples():
    X, y = two_classes()
    first = MLPClassifier(max_iter=5, class_weight={1: 3.0, 2: 0.5}, random_state=0).fit(X, y)
    second = MLPClassifier(max_iter=5, random_state=0)
    second.fit(X, y, sample_weight=np.where(y == 1, 3.0, 0.5))
    np.testing.assert_array_equal(first.coefs_[0], second.coefs_[0])


def test_balanced_classes_have_the_same_total_weight():
    X, y = np.ones((200, 1)), np.repeat([0, 1], [190, 10])  # X says nothing about y
    probabilities = [
        MLPClassifier((), class_weight=weight, learning_rate_init=0.05, tol=0, random_state=0)
        .fit(X, y)
        .predict_proba(X)[:, 1]
        .mean()
        for weight in (None, "balanced")
    ]
    assert probabilities[0] == pytest.approx(10 / 200, abs=0.02)
    assert probabilities[1] == pytest.approx(0.5, abs=0.1)


def test_a_scoring_by_name_is_that_of_the_whole_validation_set():
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X)
    for scoring in ("f1", "roc_auc", "f1_macro"):
        classifier = MLPClassifier(max_iter=2, scoring=scoring, random_state=0)
        classifier.fit(X[:300], y[:300], validation=(X[300:], y[300:]))
        predicted = classifier.predict(X[300:])
        expected = {
            "f1": f1_score(y[300:], predicted),
            "f1_macro": f1_score(y[300:], predicted, average="macro"),
            "roc_auc": roc_auc_score(y[300:], classifier.predict_proba(X[300:])[:, 1]),
        }
        assert classifier.validation_scores_[-1] == pytest.approx(expected[scoring])
        assert len(classifier.validation_scores_) == 2


def test_a_network_has_what_was_asked_for():
    classifier = MLPClassifier(
        (6, 4), activation=nn.GELU, dropout=0.25, batch_norm=True, max_iter=1,
        solver=functools.partial(nn.RMSprop, alpha=0.9), learning_rate_init=0.02,
        learning_rate=functools.partial(nn.StepLR, step_size=1, gamma=0.5),
    )  # fmt: skip
    classifier.fit(*IRIS)
    block = ["BatchNorm1d", "GELU", "Dropout"]
    kinds = [type(layer).__name__ for layer in classifier.model_]
    assert kinds == ["Linear", *block, "Linear", *block, "Linear"]
    assert classifier.model_[3].p == 0.25
    assert isinstance(classifier.optimizer_, nn.RMSprop)
    assert classifier.optimizer_.lr == 0.01  # halved after the only epoch


def test_batch_norm_trains_where_the_last_batch_has_one_sample():
    X, y = IRIS
    MLPClassifier(batch_norm=True, batch_size=50, max_iter=2).fit(X[:101], y[:101])


def test_a_model_is_copied_and_an_integer_dtype_is_for_an_embedding():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 9, (80, 3))
    y = np.array(["even", "odd"])[words[:, 0] % 2]
    model = nn.Sequential(nn.Embedding(9, 8), nn.Flatten(), nn.Linear(24, 2))
    before = model.state_dict()
    net = NetClassifier(model, dtype=np.int64, learning_rate_init=0.05, random_state=0)
    assert net.fit(words, y).score(words, y) == 1
    assert net.model_[2].weight.dtype == np.float32
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_images_and_several_losses():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(60, 1, 6, 6)).astype(np.float32)
    y = (images[:, 0].mean(axis=(1, 2)) > 0).astype(int)
    for loss, last in (
        (None, nn.Linear(64, 2)),
        (nn.BinaryCrossEntropy(), nn.Linear(64, 1)),
        (nn.NegativeLogLikelihood(), nn.Sequential(nn.Linear(64, 2), nn.LogSoftmax())),
        (nn.CrossEntropy(from_logits=False), nn.Sequential(nn.Linear(64, 2), nn.Softmax())),
    ):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), last)
        net = NetClassifier(model, loss=loss, learning_rate_init=0.01, random_state=0)
        probabilities = net.fit(images, y).predict_proba(images)
        assert net.score(images, y) > 0.9
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_regression_with_another_loss_and_several_outputs():
    X, _ = IRIS
    X = scale(X)
    regressor = MLPRegressor(loss=nn.Huber(delta=0.5), learning_rate_init=0.01, random_state=0)
    regressor.fit(X[:, :2], X[:, 2:])
    assert regressor.predict(X[:, :2]).shape == (150, 2)
    assert regressor.score(X[:, :2], X[:, 2:]) > 0.85


def test_labels_of_several_kinds():
    X, y = make_multilabel_classification(n_samples=200, n_classes=4, random_state=0)
    classifier = MLPClassifier(learning_rate_init=0.01, random_state=0).fit(X, y)
    assert (classifier.predict(X) == y).mean() > 0.95
    assert classifier.predict_proba(X).shape == (200, 4)


# ---- at home in scikit-learn ----


def test_the_tools_of_scikit_learn_take_it():
    X, y = two_classes()
    labels = np.array(["", "versicolor", "virginica"])[y]
    classifier = MLPClassifier((10,), max_iter=30, learning_rate_init=0.02, random_state=0)
    pipeline = make_pipeline(StandardScaler(), classifier).set_output(transform="pandas")
    search = GridSearchCV(
        pipeline, {"mlpclassifier__dropout": [0.0, 0.2]}, cv=3, n_jobs=2, scoring="roc_auc"
    ).fit(X, labels)
    assert search.best_score_ > 0.9
    assert cross_val_score(pipeline, X, labels, cv=3).min() > 0.8
    calibrated = CalibratedClassifierCV(pipeline, cv=3).fit(X, labels)
    assert calibrated.predict_proba(X).shape == (100, 2)
    importance = permutation_importance(pipeline.fit(X, labels), X, labels, random_state=0)
    assert importance.importances_mean.argmax() in (2, 3)  # the petals tell the species


def test_a_grid_of_networks():
    X, y = two_classes()
    grid = {"model": [functools.partial(perceptron, hidden=size) for size in (1, 20)]}
    net = NetClassifier(perceptron, max_iter=20, learning_rate_init=0.02, random_state=0)
    search = GridSearchCV(net, grid, cv=3, n_jobs=2).fit(X, y)
    assert search.best_params_["model"].keywords["hidden"] == 20


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: type(estimator).__name__)
def test_the_same_seed_gives_the_same_bits(estimator):
    X, y = IRIS
    dropout = {"dropout": 0.2} if "MLP" in type(estimator).__name__ else {}
    first, second = (
        clone(estimator).set_params(max_iter=3, random_state=7, early_stopping=True, **dropout)
        for _ in range(2)
    )
    first.fit(X, y)
    nn.seed(99)
    second.fit(X, y)
    np.testing.assert_array_equal(first.predict(X), second.predict(X))
    for a, b in zip(first.model_.parameters(), second.model_.parameters(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)


def test_a_fit_leaves_the_generator_of_the_package_alone():
    nn.seed(3)
    expected = nn.Linear(2, 2).weight.data
    nn.seed(3)
    MLPClassifier(max_iter=2, dropout=0.1, random_state=0).fit(*IRIS)
    np.testing.assert_array_equal(nn.Linear(2, 2).weight.data, expected)


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: type(estimator).__name__)
def test_a_fitted_estimator_survives_pickling_and_goes_on_training(estimator):
    X, y = IRIS
    fitted = clone(estimator).set_params(max_iter=3, random_state=0).fit(X, y)
    buffer = io.BytesIO()
    joblib.dump(fitted, buffer)
    buffer.seek(0)
    for copied in (pickle.loads(pickle.dumps(fitted)), joblib.load(buffer)):
        np.testing.assert_array_equal(copied.predict(X), fitted.predict(X))
    fitted.partial_fit(X, y)
    copied.partial_fit(X, y)
    np.testing.assert_array_equal(copied.predict(X), fitted.predict(X))


def reachable(start):
    """Yield every object that `start` refers to, but no modules and classes."""
    seen, waiting = set(), [start]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, (type, type(gc), type(reachable))):
            continue
        seen.add(id(item))
        yield item
        waiting += [*gc.get_referents(item), *([item.base] if isinstance(item, np.ndarray) else [])]


@pytest.mark.parametrize("estimator", ALL, ids=lambda estimator: type(estimator).__name__)
def test_a_fitted_estimator_holds_no_training_data(estimator):
    X, y = IRIS
    fitted = clone(estimator).set_params(max_iter=2, batch_size=149).fit(X, y)
    arrays = [item for item in reachable(vars(fitted)) if isinstance(item, np.ndarray)]
    assert arrays
    assert not [array.shape for array in arrays if array.shape[:1] in ((149,), (150,), (1,))
                and array.ndim == 2 and array.shape[1] in (3, 4)]  # fmt: skip


def test_partial_fit_is_an_epoch_of_fit():
    X, y = IRIS
    whole = MLPClassifier(max_iter=4, n_iter_no_change=9, random_state=0).fit(X, y)
    parts = MLPClassifier(random_state=0)
    for _ in range(4):
        parts.partial_fit(X, y, classes=[0, 1, 2])
    np.testing.assert_array_equal(parts.coefs_[0], whole.coefs_[0])
    assert parts.loss_curve_ == whole.loss_curve_


def test_partial_fit_needs_the_classes_once_and_no_others():
    X, y = IRIS
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        MLPClassifier().partial_fit(X, y)
    classifier = MLPClassifier().partial_fit(X[:50], y[:50], classes=[0, 1, 2])
    assert classifier.predict_proba(X).shape == (150, 3)
    with pytest.raises(ValueError, match="not the same as on the last call"):
        classifier.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="not in classes_"):
        classifier.partial_fit(X, y + 1)


def test_warm_start_goes_on():
    X, y = IRIS
    classifier = MLPClassifier(max_iter=20, warm_start=True, random_state=0).fit(X, y)
    loss = classifier.loss_
    assert classifier.fit(X, y).loss_curve_[20] < loss
    assert len(classifier.loss_curve_) == 40
    assert classifier.n_iter_ == 20


def test_a_sparse_matrix_trains_as_a_dense_one():
    X, y = IRIS
    dense = MLPClassifier(max_iter=3, random_state=0).fit(X, y)
    sparse = MLPClassifier(max_iter=3, random_state=0).fit(csr_matrix(X), y)
    np.testing.assert_array_equal(sparse.predict_proba(csr_matrix(X)), dense.predict_proba(X))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_data_frames_have_names(frame):
    X, y = IRIS
    names = list("abcd")
    table = frame({name: X[:, place] for place, name in enumerate(names)})
    classifier = MLPClassifier(max_iter=3, early_stopping=True, random_state=0).fit(table, y)
    # Old versions of scikit-learn do not see the names of a new polars.
    expected = getattr(StandardScaler().fit(table), "feature_names_in_", None)
    np.testing.assert_array_equal(getattr(classifier, "feature_names_in_", None), expected)
    np.testing.assert_array_equal(
        classifier.predict(table),
        MLPClassifier(max_iter=3, early_stopping=True, random_state=0).fit(X, y).predict(X),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lbfgs"}, "solver must be one of 'adam', 'sgd'"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"learning_rate": "cosine"}, "learning_rate must be one of"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"alpha": -1.0}, "alpha must be at least 0"),
        ({"hidden_layer_sizes": (5, 0)}, "hidden_layer_sizes must be at least 1"),
        ({"dropout": 1.5}, "p must be between 0 and 1"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**options).fit(*IRIS)


def test_a_model_must_be_a_layer():
    with pytest.raises(TypeError, match="model must be a layer, or a function"):
        NetClassifier().fit(*IRIS)


# ---- compiled ----


def _tasks():
    X, y = IRIS
    labels = make_multilabel_classification(60, 4, n_classes=3, random_state=0)
    numbers = scale(X[:, 2:])
    return {
        "classes": (MLPClassifier, X, y),
        "two classes": (MLPClassifier, *two_classes()),
        "labels": (MLPClassifier, scale(labels[0]), labels[1]),
        "number": (MLPRegressor, scale(X[:, :2]), numbers[:, 0]),
        "numbers": (MLPRegressor, scale(X[:, :2]), numbers),
        "network": (functools.partial(NetClassifier, perceptron), X, y),
        "sparse": (MLPClassifier, csr_matrix(X), y),
    }


@pytest.mark.parametrize("name", _tasks())
def test_compiled_fits_have_the_same_weights_but_for_rounding(name):
    pytest.importorskip("numba")
    kind, X, y = _tasks()[name]
    plain, compiled = (kind(max_iter=5, random_state=0, compile=flag) for flag in (False, True))
    weight = np.linspace(1, 2, X.shape[0])
    for estimator in plain, compiled:
        estimator.fit(X, y, sample_weight=weight)
    for ours, expected in zip(compiled.model_.parameters(), plain.model_.parameters(), strict=True):
        np.testing.assert_allclose(ours.data, expected.data, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(compiled.loss_curve_, plain.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(compiled.predict(X), plain.predict(X), rtol=1e-9)


def test_a_layer_without_a_compiled_form_is_an_error_that_names_it():
    pytest.importorskip("numba")

    class Twice(nn.Layer):
        def forward(self, x):
            self.cache()
            return 2 * x

        def backward(self, grad, input_grad=True):
            return 2 * grad

    net = NetClassifier(nn.Sequential(nn.Linear(4, 3), Twice()), compile=True)
    with pytest.raises(TypeError, match=r"Twice\(\) \('1' in the model\) has no compiled form"):
        net.fit(*IRIS)
