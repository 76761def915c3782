"""`DataLoader`: every sample once per epoch, in orders determined by the seed."""

from __future__ import annotations

import copy
import functools
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import nnlite as nn
from nnlite.random import generator

from ..registry import Array


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


# ---- its state ----


class Noise:
    """A transform that draws from a generator of its own."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, batch: Array) -> Array:
        return batch + 100 * self.rng.integers(10, size=batch.shape)


class Counting:
    """A transform that has a state."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def __call__(self, batch: Array) -> Array:
        self.count += 1
        return batch + 1000 * self.count

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


class Chain:
    """Transforms, one after the other."""

    def __init__(self, *transforms: Any) -> None:
        self.transforms = transforms

    def __call__(self, batch: Array) -> Array:
        for transform in self.transforms:
            batch = transform(batch)
        return batch


def add_noise(batch: Array, rng: np.random.Generator) -> Array:
    noisy: Array = batch + rng.normal(size=len(batch))
    return noisy


LOADERS: dict[str, Any] = {
    "in order": lambda seed: {},
    "package's generator": lambda seed: {"shuffle": True},
    "own generator": lambda seed: {"shuffle": True, "rng": seed},
    "drop last": lambda seed: {"shuffle": True, "drop_last": True, "rng": seed},
    "noise": lambda seed: {"shuffle": True, "transform": Noise(seed)},
    "counting": lambda seed: {"shuffle": True, "transform": Counting(seed)},
    "bound method": lambda seed: {"shuffle": True, "transform": Noise(seed).__call__},
    "bound method with state": lambda seed: {"transform": Counting(seed).__call__},
    "partial": lambda seed: {
        "transform": functools.partial(add_noise, rng=np.random.default_rng(seed))
    },
    "chain": lambda seed: {"transform": Chain(Noise(seed), np.negative, Noise(seed + 1))},
}


@pytest.mark.parametrize("options", LOADERS.values(), ids=LOADERS.keys())
@pytest.mark.parametrize("batches", range(10))
def test_a_loader_goes_on_with_the_very_next_batch(options: Any, batches: int) -> None:
    def batches_of(loader: nn.DataLoader, epochs: int) -> Any:
        while loader.epoch < epochs:
            for batch in loader:
                # What draws from the same generator as the loader does.
                yield batch, generator().random(), loader

    def new(seed: int) -> nn.DataLoader:
        return nn.DataLoader(np.arange(14), batch_size=3, **options(seed))

    state, package = new(1).state_dict(), generator().bit_generator.state
    course = batches_of(new(1), 3)
    for _, (_, _, loader) in zip(range(batches), course, strict=False):
        state, package = loader.state_dict(), generator().bit_generator.state
    expected = [(batch.tolist(), drawn) for batch, drawn, _ in course]

    resumed = new(2)
    epoch(resumed)
    resumed.load_state_dict(state)
    nn.seed(99)
    generator().bit_generator.state = package
    rest = [(batch.tolist(), drawn) for batch, drawn, _ in batches_of(resumed, 3)]
    assert rest == expected
    assert rest


def test_the_state_within_an_epoch_and_between_two() -> None:
    loader = nn.DataLoader(np.arange(5), batch_size=2, shuffle=True, rng=0)
    seen: list[int] = []
    for number, batch in enumerate(loader, start=1):
        seen += batch.tolist()
        state = loader.state_dict()
        assert (state["epoch"], state["batches"]) == (0, number)
        assert state["order"][: len(seen)].tolist() == seen
        assert state["order"].dtype == np.uint8
    state = loader.state_dict()
    assert (state["epoch"], state["batches"], state["order"]) == (1, None, None)


def test_a_state_taken_after_the_last_batch_ends_the_epoch_and_hands_out_nothing() -> None:
    loader = nn.DataLoader(np.arange(5), batch_size=2)
    for _ in loader:
        state = loader.state_dict()
    resumed = nn.DataLoader(np.arange(5), batch_size=2)
    resumed.load_state_dict(state)
    assert resumed.epoch == 0
    assert list(resumed) == []
    assert resumed.epoch == 1
    assert epoch(resumed) == [0, 1, 2, 3, 4]


def test_an_epoch_that_is_left_has_ended() -> None:
    loader = nn.DataLoader(np.arange(5), batch_size=2)
    for _ in loader:
        break
    assert loader.epoch == 1
    assert loader.state_dict()["batches"] is None


def test_a_loader_that_was_loaded_says_so_before_it_goes_on() -> None:
    loader = nn.DataLoader(np.arange(9), batch_size=2, shuffle=True)
    for _ in loader:
        state = loader.state_dict()
        break
    other = nn.DataLoader(np.arange(9), batch_size=2, shuffle=True)
    other.load_state_dict(state)
    assert other.state_dict()["batches"] == 1
    assert other.state_dict()["order"].tolist() == state["order"].tolist()


def test_the_order_of_a_loaded_epoch_is_not_drawn_again() -> None:
    loader = nn.DataLoader(np.arange(9), batch_size=2, shuffle=True)
    for _ in loader:
        state = loader.state_dict()
        break
    nn.seed(5)
    loader.load_state_dict(state)
    assert len(epoch(loader)) == 7
    assert generator().random() == np.random.default_rng(5).random()


def test_an_older_iteration_has_no_part_in_the_state() -> None:
    loader = nn.DataLoader(np.arange(9), batch_size=2, shuffle=True)
    older = iter(loader)
    next(older)
    for number, _ in enumerate(loader, start=1):
        next(older, None)
        assert loader.state_dict()["batches"] == number
    assert loader.epoch == 1


def test_an_iteration_from_before_a_state_was_loaded_ends_no_epoch_of_it() -> None:
    loader = nn.DataLoader(np.arange(9), batch_size=2)
    state = loader.state_dict()
    older = iter(loader)
    next(older)
    loader.load_state_dict(state)
    assert loader.state_dict()["batches"] is None
    assert len(list(older)) == 4
    assert loader.epoch == 0


def test_a_copy_is_not_within_the_epoch_of_the_loader() -> None:
    loader = nn.DataLoader(np.arange(9), batch_size=2, shuffle=True)
    for _ in loader:
        assert copy.deepcopy(loader).state_dict()["batches"] is None
        assert loader.state_dict()["batches"] is not None


def within() -> dict[str, Any]:
    """Return the state of a loader of 5 samples after the first of 3 batches."""
    loader = nn.DataLoader(np.arange(5), batch_size=2, shuffle=True, rng=0)
    for _ in loader:
        return loader.state_dict()
    raise AssertionError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 6}, "of a loader with samples=6, this one has 5"),
        ({"batch_size": 3}, "of a loader with batch_size=3, this one has 2"),
        ({"shuffle": False}, "of a loader with shuffle=False, this one has True"),
        ({"drop_last": True}, "of a loader with drop_last=True, this one has False"),
        ({"epoch": -1}, "the epoch of the state must be at least 0"),
        ({"epoch": 0.5}, "the epoch of the state must be an int"),
        ({"batches": 4}, "the state is 4 batches into an epoch of 3"),
        ({"batches": "1"}, "the batches of the state must be an int"),
        ({"order": None}, "has no order of 5 samples"),
        ({"order": np.arange(4)}, "has no order of 5 samples"),
        ({"order": np.array([0, 1, 2, 3, 3])}, "has no order of 5 samples"),
        ({"order": np.array([0, 1, 2, 3, 5])}, "has no order of 5 samples"),
        ({"order": np.array([-1, 0, 1, 2, 3])}, "has no order of 5 samples"),
        ({"order": np.arange(5.0)}, "has no order of 5 samples"),
        ({"rng": None}, "both have an rng of their own"),
        ({"rng": {"bit_generator": "PCG64"}}, "no state of a PCG64 generator"),
        ({"transform": {"rng": 1}}, "of another transform than NoneType"),
    ],
)
def test_a_state_that_does_not_fit_is_an_error_and_nothing_is_loaded(
    change: dict[str, Any], message: str
) -> None:
    loader = nn.DataLoader(np.arange(5), batch_size=2, shuffle=True, rng=7)
    epoch(loader)
    before = repr(loader.state_dict())
    with pytest.raises((TypeError, ValueError), match=message):
        loader.load_state_dict({**within(), **change})
    assert repr(loader.state_dict()) == before


@pytest.mark.parametrize("state", [None, [1], {}, {"epoch": 0}])
def test_what_is_no_state_is_an_error(state: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="^DataLoader: (expected|the state lacks)"):
        nn.DataLoader(np.arange(5)).load_state_dict(state)


# ---- errors ----


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


@pytest.mark.parametrize("name", ["shuffle", "drop_last"])
@pytest.mark.parametrize("value", ["no", 0, None])
def test_a_switch_is_true_or_false(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^DataLoader: {name} must be True or False, got"):
        nn.DataLoader(np.arange(4), **{name: value})


def test_numpys_booleans_are_booleans() -> None:
    loader = nn.DataLoader(np.arange(4), shuffle=np.True_, drop_last=np.False_)
    assert (loader.shuffle, loader.drop_last) == (True, False)


@pytest.mark.parametrize("arrays", [[np.zeros((4, 2)), np.zeros((4, 2))], [np.arange(3)]])
def test_a_single_list_of_arrays_is_an_error_that_names_both_cures(arrays: Any) -> None:
    message = r"^DataLoader: .* write DataLoader\(\*arrays\), or numpy\.stack\(arrays\)"
    with pytest.raises(TypeError, match=message):
        nn.DataLoader(arrays)


def test_a_list_of_samples_beside_labels_is_an_array() -> None:
    samples = [np.full(3, value) for value in range(4)]
    (x, y), *_ = nn.DataLoader(samples, [0, 1, 2, 3], batch_size=2)
    assert_array_equal(x, [[0, 0, 0], [1, 1, 1]])
    assert_array_equal(y, [0, 1])


def test_masked_elements_are_an_error() -> None:
    masked = np.ma.masked_equal([1.0, -1.0, 2.0], -1.0)
    with pytest.raises(TypeError, match=r"^DataLoader: a masked array .*\.filled\(value\)"):
        nn.DataLoader(masked)
    assert_array_equal(next(iter(nn.DataLoader(masked.filled(0.0), batch_size=3))), [1, 0, 2])
    nn.DataLoader(np.ma.masked_equal([1.0, 2.0], -1.0))  # nothing is masked


def test_a_sparse_matrix_is_an_error_that_names_the_cure() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"expected arrays, got csr_matrix; .*\.toarray\(\)"):
        nn.DataLoader(sparse.csr_matrix(np.eye(3)))


def test_without_shuffle_nothing_can_write_into_the_data() -> None:
    def doubling(x: Array) -> Array:
        x *= 2
        return x

    data = np.arange(4.0)
    with pytest.raises(ValueError, match="read-only"):
        next(iter(nn.DataLoader(data, transform=doubling)))
    for batch in nn.DataLoader(data, batch_size=2):
        with pytest.raises(ValueError, match="read-only"):
            batch += 1
    assert_array_equal(data, np.arange(4.0))
    assert data.flags.writeable
    shuffled = nn.DataLoader(data, batch_size=4, shuffle=True, transform=doubling)
    assert_array_equal(np.sort(next(iter(shuffled))), 2 * np.arange(4.0))
    assert_array_equal(data, np.arange(4.0))


def test_inputs_in_a_tuple_stay_together_in_every_batch() -> None:
    u, i, r = np.arange(5), 10 * np.arange(5), 100 * np.arange(5)
    loader = nn.DataLoader((u, i), r, batch_size=2, shuffle=True, rng=0)
    batches = list(loader)
    assert [len(targets) for _, targets in batches] == [2, 2, 1]
    for (users, items), ratings in batches:
        assert np.array_equal(10 * users, items)
        assert np.array_equal(100 * users, ratings)

    def transform(inputs: tuple[np.ndarray, ...], targets: np.ndarray) -> tuple[int, int]:
        return len(inputs), len(targets)

    assert list(nn.DataLoader((u, i), r, batch_size=5, transform=transform)) == [(2, 5)]
    with pytest.raises(TypeError, match="got a tuple of arrays"):
        nn.DataLoader(r, (u, i))
    with pytest.raises(ValueError, match="same length"):
        nn.DataLoader((u, i[1:]), r)
