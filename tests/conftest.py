"""Settings of all tests: the random seed, and hypothesis without deadlines."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import nnlite as nn

# No deadline: how fast the machine is says nothing about whether a property holds. The examples
# are the same in every run; HYPOTHESIS_PROFILE=explore draws new ones, and more of them, and
# HYPOTHESIS_PROFILE=few fewer.
settings.register_profile("same", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("few", deadline=None, max_examples=5, derandomize=True)
settings.register_profile(
    "explore", deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same seed, in whatever order they run."""
    nn.seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator for the data of one test."""
    return np.random.default_rng(0)
