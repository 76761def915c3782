"""nnlite's perceptrons compared with scikit-learn's: ``python -m benchmarks.sklearn_table``.

The data is scikit-learn's six small bundled data sets, and MNIST. Both sides use scikit-learn's
defaults, standardised data, the same folds, number of epochs and dtype, and nnlite trains with
``compile=True`` too. All train each fold in turn in one process with a single thread, and the
figure is processor time, so that a busy machine changes little.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets, neural_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler, scale

import nnlite as nn
from nnlite.interop.sklearn import MLPClassifier, MLPRegressor

from .harness import THREADED

Fold = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Task(NamedTuple):
    """A data set and the number of epochs for both sides."""

    name: str
    folds: Callable[[], Iterator[Fold]]
    epochs: int
    classes: bool


def shipped(load: Callable[..., Any], classes: bool = True) -> Callable[[], Iterator[Fold]]:
    """Return a function that yields ten folds, two times five, of a data set of scikit-learn."""

    def folds() -> Iterator[Fold]:
        X, y = load(return_X_y=True)
        y = y if classes else scale(y)
        splitter = StratifiedKFold if classes else KFold
        for seed in range(2):
            for train, test in splitter(5, shuffle=True, random_state=seed).split(X, y):
                scaler = StandardScaler().fit(X[train])
                yield scaler.transform(X[train]), y[train], scaler.transform(X[test]), y[test]

    return folds


def mnist() -> Iterator[Fold]:
    """Yield the two splits of MNIST."""
    (images, labels), (test_images, test_labels) = nn.datasets.mnist()
    yield images.reshape(-1, 784), labels, test_images.reshape(-1, 784), test_labels


TASKS = (
    Task("iris", shipped(datasets.load_iris), 200, True),
    Task("wine", shipped(datasets.load_wine), 200, True),
    Task("breast cancer", shipped(datasets.load_breast_cancer), 200, True),
    Task("digits", shipped(datasets.load_digits), 50, True),
    Task("diabetes", shipped(datasets.load_diabetes, False), 200, False),
    Task("linnerud", shipped(datasets.load_linnerud, False), 200, False),
    Task("MNIST", mnist, 5, True),
)


class Row(NamedTuple):
    """Scores and seconds for each fold: of nnlite, nnlite compiled, and scikit-learn."""

    scores: np.ndarray
    seconds: np.ndarray


def measure(index: int) -> Row:
    """Train all sides on each fold of a task."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    task = TASKS[index]
    kinds: tuple[Any, Any] = (MLPRegressor, neural_network.MLPRegressor)
    if task.classes:
        kinds = (MLPClassifier, neural_network.MLPClassifier)
    options = {"max_iter": task.epochs, "n_iter_no_change": task.epochs}
    scores, seconds = [], []
    for seed, (X, y, X_test, y_test) in enumerate(task.folds()):
        ours, theirs = (kind(**options, random_state=seed) for kind in kinds)
        sides = [ours, clone(ours).set_params(compile=True), theirs]
        for estimator in sides:  # to warm up
            clone(estimator).set_params(max_iter=2).fit(X[:200], y[:200])
        times = []
        for estimator in sides:
            begin = time.process_time()
            estimator.fit(X, y)
            times.append(time.process_time() - begin)
        seconds.append(times)
        scores.append([estimator.score(X_test, y_test) for estimator in sides])
    return Row(np.array(scores), np.array(seconds))


def main() -> None:
    """Print a row for each data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="data sets; all if left out")
    names = parser.parse_args().names or [task.name for task in TASKS]
    chosen = [index for index, task in enumerate(TASKS) if task.name in names]
    print("Score: accuracy, or R2 (diabetes, linnerud); mean over folds, and its standard error")
    print("for the difference. Time: median of a fit, of one thread. Ratio: scikit-learn's time")
    print("over that of nnlite, compiled at last.\n")
    print(f"{'':14}{'epochs':>7}{'nnlite':>9}{'sklearn':>9}{'difference':>19}", end="")
    print(f"{'nnlite':>10}{'compiled':>10}{'sklearn':>10}{'ratios':>14}")
    # BLAS reads the number of its threads when it is loaded: in a new process.
    os.environ.update({f"{library}_NUM_THREADS": "1" for library in THREADED})
    context = multiprocessing.get_context("spawn")
    ratios = []
    with ProcessPoolExecutor(1, mp_context=context) as process:
        for index, row in zip(chosen, process.map(measure, chosen), strict=True):
            ratios.append(print_row(TASKS[index], row))
    plain, compiled = np.exp(np.log(ratios).mean(axis=0))
    print(f"\ngeometric mean of the ratios: {plain:.2f}, compiled {compiled:.2f}")


def print_row(task: Task, row: Row) -> np.ndarray:
    """Print the figures of a data set, and return the ratios of the times."""
    ours, _, theirs = row.scores.mean(axis=0)
    differences = row.scores[:, 0] - row.scores[:, 2]
    count = len(differences)
    error = differences.std(ddof=1) / count**0.5 if count > 1 else np.nan
    times = np.median(row.seconds, axis=0)
    ratios = np.median(row.seconds[:, 2:] / row.seconds[:, :2], axis=0)
    print(
        f"{task.name:14}{task.epochs:7}{ours:9.4f}{theirs:9.4f}"
        f"{ours - theirs:+10.4f} ± {error:6.4f}"
        + "".join(f"{seconds:8.3f} s" for seconds in times)
        + "".join(f"{ratio:7.2f}" for ratio in ratios),
        flush=True,
    )
    return ratios


if __name__ == "__main__":
    main()
