"""`DataLoader`: every sample once in each epoch, in orders that a seed decides."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import nnlite as nn

from .layers import Array


def epoch(loader: nn.DataLoader) -> list[int]:
    """Return the samples of an epoch, in the order in which they come."""
    return [int(sample) for batch in loader for sample in batch]


sizes = st.integers(1, 40)


@given(samples=sizes, batch_size=sizes, shuffle=st.booleans(), seed=st.integers(0, 99))
def test_every_sample_comes_exactly_once_in_each_epoch(
    samples: int, batch_size: int, shuffle: bool, seed: int
) -> None:
    loader = nn.DataLoader(np.arange(samples), batch_size=batch_size, shuffle=shuffle, rng=seed)
    for _ in range(3):
        assert Counter(epoch(loader)) == Counter(range(samples))


@given(samples=sizes, batch_size=sizes, drop_last=st.booleans(), shuffle=st.booleans())
def test_the_length_is_the_number_of_batches(
    samples: int, batch_size: int, drop_last: bool, shuffle: bool
) -> None:
    if drop_last and batch_size > samples:
        return
    loader = nn.DataLoader(
        np.arange(samples), batch_size=batch_size, drop_last=drop_last, shuffle=shuffle
    )
    batches = [len(batch) for batch in loader]
    assert len(loader) == len(batches)
    assert set(batches[:-1]) <= {batch_size}
    if drop_last:
        assert batches == [batch_size] * (samples // batch_size)
    else:
        assert sum(batches) == samples
        assert 1 <= batches[-1] <= batch_size


def test_without_shuffle_the_order_is_that_of_the_arrays() -> None:
    loader = nn.DataLoader(np.arange(10), batch_size=3)
    for _ in range(2):
        assert epoch(loader) == list(range(10))


def test_with_drop_last_and_shuffle_another_rest_is_left_out_each_time() -> None:
    loader = nn.DataLoader(np.arange(10), batch_size=7, shuffle=True, drop_last=True, rng=0)
    left_out = [frozenset(range(10)) - set(epoch(loader)) for _ in range(20)]
    assert {len(samples) for samples in left_out} == {3}
    assert len(set(left_out)) > 5


def test_each_epoch_is_shuffled_differently() -> None:
    loader = nn.DataLoader(np.arange(100), batch_size=10, shuffle=True, rng=0)
    orders = {tuple(epoch(loader)) for _ in range(5)}
    assert len(orders) == 5
    assert tuple(range(100)) not in orders


def test_all_orders_are_equally_likely() -> None:
    # 6 orders of 3 samples, 3000 epochs: each 500 ± 20; five deviations allowed.
    loader = nn.DataLoader(np.arange(3), shuffle=True, rng=0)
    counts = Counter(tuple(epoch(loader)) for _ in range(3000))
    assert len(counts) == 6
    assert all(abs(count - 500) < 105 for count in counts.values())


def test_the_same_seed_gives_the_same_epochs() -> None:
    def epochs(**options: Any) -> list[list[int]]:
        loader = nn.DataLoader(np.arange(50), batch_size=7, shuffle=True, **options)
        return [epoch(loader) for _ in range(3)]

    expected = epochs(rng=3)
    assert epochs(rng=3) == expected
    assert epochs(rng=np.random.default_rng(3)) == expected
    assert epochs(rng=4) != expected
    nn.seed(3)
    assert epochs() == expected
    nn.seed(3)
    assert epochs() == expected


def test_the_package_seed_holds_for_loaders_that_were_made_before() -> None:
    loader = nn.DataLoader(np.arange(50), shuffle=True)
    nn.seed(1)
    first = epoch(loader)
    nn.seed(1)
    assert epoch(loader) == first


def test_a_loader_without_shuffle_draws_nothing() -> None:
    generator = np.random.default_rng(0)
    epoch(nn.DataLoader(np.arange(5), rng=generator))
    assert generator.random() == np.random.default_rng(0).random()


def test_arrays_stay_together(rng: np.random.Generator) -> None:
    images = rng.normal(size=(25, 1, 2, 2))
    labels, weights = np.arange(25), np.arange(25) * 0.5
    loader = nn.DataLoader(images, labels, weights, batch_size=4, shuffle=True, rng=0)
    for batch in loader:
        assert isinstance(batch, tuple)
        x, y, w = batch
        assert_array_equal(x, images[y])
        assert_array_equal(w, y * 0.5)


def test_one_array_gives_arrays_and_keeps_its_dtype() -> None:
    for dtype in (np.float32, np.uint8, np.int64):
        for batch in nn.DataLoader(np.arange(6, dtype=dtype), batch_size=4):
            assert type(batch) is np.ndarray
            assert batch.dtype == dtype


def test_iterating_twice_at_once_gives_two_whole_epochs() -> None:
    loader = nn.DataLoader(np.arange(20), batch_size=3, shuffle=True, rng=0)
    pairs = list(zip(loader, loader, strict=True))
    for side in (0, 1):
        samples = [int(sample) for pair in pairs for sample in pair[side]]
        assert sorted(samples) == list(range(20))
    assert any((a != b).any() for a, b in pairs)


def test_an_epoch_that_is_broken_off_does_not_disturb_the_next() -> None:
    loader = nn.DataLoader(np.arange(20), batch_size=3, shuffle=True, rng=0)
    for _ in loader:
        break
    assert sorted(epoch(loader)) == list(range(20))


def test_shuffled_batches_are_copies_and_others_are_views() -> None:
    data = np.arange(10.0)
    for batch in nn.DataLoader(data, batch_size=3, shuffle=True):
        batch[...] = -1
    assert_array_equal(data, np.arange(10.0))
    for batch in nn.DataLoader(data, batch_size=3):
        assert np.shares_memory(batch, data)


def test_transform_gets_the_arrays_of_each_batch_and_its_result_is_handed_out() -> None:
    seen: list[tuple[int, int]] = []

    def double(images: Array, labels: Array) -> tuple[Array, Array]:
        seen.append((len(images), len(labels)))
        return 2 * images, labels

    images, labels = np.arange(5.0), np.arange(5)
    batches = list(nn.DataLoader(images, labels, batch_size=2, transform=double))
    assert seen == [(2, 2), (2, 2), (1, 1)]
    for x, y in batches:
        assert_array_equal(x, 2 * y)


def test_transform_of_a_single_array_gets_and_returns_an_array() -> None:
    loader = nn.DataLoader(np.arange(5.0), batch_size=2, transform=np.negative)
    assert [batch.tolist() for batch in loader] == [[0, -1], [-2, -3], [-4]]


def test_transform_may_write_into_shuffled_batches() -> None:
    def spoil(batch: Array) -> Array:
        batch *= -1
        return batch

    data = np.arange(10.0)
    loader = nn.DataLoader(data, batch_size=3, shuffle=True, transform=spoil)
    for _ in range(2):
        assert sorted(epoch(loader)) == sorted(range(0, -10, -1))
    assert_array_equal(data, np.arange(10.0))


def test_lists_and_tuples_are_arrays() -> None:
    loader = nn.DataLoader([[1.0, 2.0], [3.0, 4.0]], (0, 1), batch_size=2)
    ((x, y),) = loader
    assert_array_equal(x, [[1, 2], [3, 4]])
    assert_array_equal(y, [0, 1])


def test_a_loader_can_be_pickled_between_epochs() -> None:
    loader = nn.DataLoader(np.arange(30), batch_size=4, shuffle=True, rng=0)
    epoch(loader)
    twin = pickle.loads(pickle.dumps(loader))
    assert epoch(twin) == epoch(loader)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    loader = nn.DataLoader(np.arange(3), batch_size=100)
    assert len(loader) == 1
    assert epoch(loader) == [0, 1, 2]


# ---- what it refuses ----


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((), "^DataLoader: expected at least one array"),
        (
            (np.zeros((5, 2)), np.zeros(4)),
            r"^DataLoader: all arrays need the same length, got the shapes \(5, 2\) and \(4,\)",
        ),
        ((np.zeros((0, 2)),), "^DataLoader: .*empty"),
    ],
    ids=["no arrays", "lengths", "no samples"],
)
def test_arrays_that_cannot_be_iterated_over_together_are_an_error(
    arrays: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        nn.DataLoader(*arrays)


def test_a_pair_of_arrays_given_as_one_is_an_error_that_names_the_star() -> None:
    pair = (np.zeros((5, 2)), np.zeros(5))
    with pytest.raises((TypeError, ValueError), match=r"^DataLoader: .*DataLoader\(\*"):
        nn.DataLoader(pair)


@pytest.mark.parametrize(
    "given",
    [3.0, "abc", None, {"images": [1, 2]}, (x for x in range(3)), {1, 2, 3}],
    ids=["number", "string", "None", "dict", "generator", "set"],
)
def test_what_is_not_an_array_is_an_error_that_says_what_it_is(given: Any) -> None:
    name = type(given).__name__
    with pytest.raises((TypeError, ValueError), match=f"^DataLoader: expected .*arrays.*{name}"):
        nn.DataLoader(given)


def test_ragged_lists_are_an_error_of_the_loader() -> None:
    with pytest.raises((TypeError, ValueError), match="^DataLoader: "):
        nn.DataLoader([[1, 2], [3]])


@pytest.mark.parametrize(
    ("batch_size", "error", "message"),
    [
        (0, ValueError, "DataLoader: batch_size must be at least 1, got 0"),
        (-3, ValueError, "DataLoader: batch_size must be at least 1, got -3"),
        (2.0, TypeError, r"DataLoader: batch_size must be an int, got 2\.0"),
        ("2", TypeError, "DataLoader: batch_size must be an int, got '2'"),
        (None, TypeError, "DataLoader: batch_size must be an int, got None"),
        (True, TypeError, "DataLoader: batch_size must be an int, got True"),
    ],
)
def test_the_batch_size_must_be_a_positive_int(
    batch_size: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        nn.DataLoader(np.arange(5), batch_size=batch_size)


def test_drop_last_that_leaves_nothing_is_an_error_that_names_the_cure() -> None:
    message = "^DataLoader: drop_last leaves no batch of 5 samples with batch_size=6; use a smaller"
    with pytest.raises(ValueError, match=message):
        nn.DataLoader(np.arange(5), batch_size=6, drop_last=True)


def test_a_transform_must_be_callable() -> None:
    with pytest.raises(TypeError, match="^DataLoader: transform must be callable, got 3"):
        nn.DataLoader(np.arange(5), transform=3)  # type: ignore[arg-type]


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="^DataLoader: expected arrays, got int"):
        nn.DataLoader(np.zeros((5, 2)), np.zeros(5), 32)


@pytest.mark.parametrize("rng", ["0", 1.5, True])
def test_rng_must_be_an_int_or_a_generator(rng: Any) -> None:
    with pytest.raises(TypeError, match="rng must be an int or a"):
        nn.DataLoader(np.arange(5), shuffle=True, rng=rng)
