"""Many small models at a time: scikit-learn's searches over processes, and over machines."""

from __future__ import annotations

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score

from nnlite.interop.sklearn import MLPClassifier

X, Y = load_iris(return_X_y=True)


def estimator() -> MLPClassifier:
    return MLPClassifier((8,), max_iter=5, random_state=0)


@pytest.mark.filterwarnings("ignore")
def test_a_search_over_processes_finds_what_one_process_finds() -> None:
    grid = {"learning_rate_init": [0.001, 0.1], "alpha": [0.0, 0.01]}
    alone, together = (
        GridSearchCV(estimator(), grid, cv=2, n_jobs=jobs).fit(X, Y).cv_results_ for jobs in (1, 2)
    )
    np.testing.assert_array_equal(alone["mean_test_score"], together["mean_test_score"])


@pytest.mark.filterwarnings("ignore")
def test_dask_scores_as_one_process_does() -> None:
    distributed = pytest.importorskip("dask.distributed")
    expected = cross_val_score(estimator(), X, Y, cv=3)
    with (
        distributed.Client(processes=False, n_workers=2, dashboard_address=None),
        joblib.parallel_config(backend="dask"),
    ):
        np.testing.assert_array_equal(cross_val_score(estimator(), X, Y, cv=3), expected)
