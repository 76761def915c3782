"""The estimators for scikit-learn: its own checks, and what a user does with them."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import nnlite as nn
from nnlite.interop.sklearn import MLPClassifier, MLPRegressor, NetClassifier, NetRegressor


def perceptron(input_shape, n_outputs):
    return nn.Sequential(nn.Linear(*input_shape, 50), nn.Tanh(), nn.Linear(50, n_outputs))


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        MLPClassifier(max_iter=100),
        MLPRegressor(max_iter=100),
        NetClassifier(perceptron, max_iter=100),
        NetRegressor(perceptron, max_iter=100),
    ]
)
def test_estimators_pass_the_checks_of_scikit_learn(estimator, check):
    check(estimator)
