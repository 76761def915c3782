"""Settings of all tests: the random seed, and how many examples there are of what is tested."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import nnlite as nn

# No deadline: how fast the machine is says nothing about whether a property holds. The examples
# are the same in every run; HYPOTHESIS_PROFILE=explore draws new ones, and more of them, and
# HYPOTHESIS_PROFILE=few fewer, and leaves most cases of each test out.
settings.register_profile("same", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("few", deadline=None, max_examples=5, derandomize=True)
settings.register_profile(
    "explore", deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow]
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "same")
settings.load_profile(PROFILE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With few examples, keep the first and every eighth case after it of each test."""
    if PROFILE == "few":
        places: Counter[str] = Counter()
        kept = []
        for item in items:
            test = item.nodeid.partition("[")[0]
            if places[test] % 8 == 0:
                kept.append(item)
            places[test] += 1
        items[:] = kept


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same seed, in whatever order they run."""
    nn.seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator for the data of one test."""
    return np.random.default_rng(0)
