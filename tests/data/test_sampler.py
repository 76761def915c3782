"""Samplers draw in proportion to their weights, and a loader uses their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnlite as nn


class TestWeightedRandomSampler:
    def test_draws_are_in_proportion_to_the_weights(self) -> None:
        draws = np.array(list(nn.WeightedRandomSampler([1, 0, 2, 5], 80_000, rng=0)))
        # Three standard deviations of a frequency are below 0.006.
        np.testing.assert_allclose(np.bincount(draws) / 80_000, [1 / 8, 0, 2 / 8, 5 / 8], atol=6e-3)

    def test_without_replacement_each_sample_comes_once(self) -> None:
        sampler = nn.WeightedRandomSampler([1, 0, 1000, 1], 3, replacement=False, rng=0)
        epochs = [list(sampler) for _ in range(50)]
        assert all(sorted(epoch) == [0, 2, 3] for epoch in epochs)
        assert sum(epoch[0] == 2 for epoch in epochs) > 45

    def test_its_length_is_the_number_of_draws(self) -> None:
        assert len(nn.WeightedRandomSampler([1, 2, 3])) == 3
        assert len(nn.WeightedRandomSampler([1, 2, 3], 10)) == 10

    def test_without_rng_it_uses_the_packages_generator(self) -> None:
        sampler = nn.WeightedRandomSampler(np.ones(50))
        nn.seed(3)
        first = list(sampler)
        assert list(sampler) != first
        nn.seed(3)
        assert list(sampler) == first

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"weights": [1, -1]}, ValueError, "at least 0"),
            ({"weights": [0, 0]}, ValueError, "not all 0"),
            ({"weights": []}, ValueError, "not all 0"),
            ({"weights": [1, np.nan]}, ValueError, "finite"),
            ({"weights": [1, np.inf]}, ValueError, "finite"),
            ({"weights": ["a"]}, TypeError, r"weights of shape \(N,\), got <U1"),
            ({"weights": [[1, 2]]}, TypeError, r"of shape \(1, 2\)"),
            ({"weights": [1, 2], "num_samples": 0}, ValueError, "num_samples must be at least 1"),
            ({"weights": [1], "replacement": 1}, TypeError, "replacement must be True or False"),
            (
                {"weights": [1, 0], "num_samples": 2, "replacement": False},
                ValueError,
                "cannot draw 2 samples without replacement from 1 whose weight is above 0",
            ),
        ],
    )
    def test_a_bad_argument_is_named(
        self, options: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=f"WeightedRandomSampler: .*{message}"):
            nn.WeightedRandomSampler(**options)


class TestLoader:
    def test_it_takes_the_samples_in_the_order_of_the_sampler(self) -> None:
        x, y = np.arange(5) * 10, np.arange(5)
        loader = nn.DataLoader(x, y, batch_size=3, sampler=[4, 0, 4, 2])
        assert len(loader) == 2
        assert [(a.tolist(), b.tolist()) for a, b in loader] == [
            ([40, 0, 40], [4, 0, 4]),
            ([20], [2]),
        ]

    def test_an_epoch_may_be_longer_than_the_data(self) -> None:
        loader = nn.DataLoader(
            np.arange(3), batch_size=10, sampler=nn.WeightedRandomSampler([1, 1, 1], 300, rng=0)
        )
        assert len(loader) == 30
        assert np.bincount(np.concatenate(list(loader))).sum() == 300

    def test_batches_are_copies(self) -> None:
        x = np.zeros(4)
        next(iter(nn.DataLoader(x, batch_size=4, sampler=range(4))))[:] = 1
        assert not x.any()

    @pytest.mark.parametrize("rng", [5, None])
    def test_it_goes_on_with_the_very_next_batch(self, rng: int | None) -> None:
        def loader(seed: int | None) -> nn.DataLoader:
            sampler = nn.WeightedRandomSampler(np.arange(300), rng=seed)
            return nn.DataLoader(np.arange(300), batch_size=30, sampler=sampler)

        first, second = loader(rng), loader(None if rng is None else 6)
        list(first)
        batches = iter(first)
        next(batches)
        state = first.state_dict()
        assert state["order"].dtype == np.uint16
        second.load_state_dict(state)
        expected = [batch.tolist() for batch in batches]
        assert [batch.tolist() for batch in second] == expected
        if rng is not None:  # and the next epoch too
            assert next(iter(second)).tolist() == next(iter(first)).tolist()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"order": np.array([0, 1, 2, 3])}, "no order of 3 samples"),
            ({"order": np.array([0, 1, 4])}, "no order of 3 samples"),
            ({"order": np.array([0, 1, -1])}, "no order of 3 samples"),
            ({"sampler": None}, "another sampler than WeightedRandomSampler"),
            ({"sampler": {"rng": {}}}, "state of a PCG64"),
        ],
    )
    def test_a_state_that_does_not_fit_changes_nothing(self, change: Any, message: str) -> None:
        loader = nn.DataLoader(
            np.arange(4), batch_size=2, sampler=nn.WeightedRandomSampler([1, 1, 1, 1], 3, rng=0)
        )
        iterator = iter(loader)
        next(iterator)
        before = loader.state_dict()
        with pytest.raises(ValueError, match=message):
            loader.load_state_dict({**before, **change})
        assert repr(loader.state_dict()) == repr(before)

    def test_a_state_with_a_sampler_is_not_one_without(self) -> None:
        plain = nn.DataLoader(np.arange(4))
        drawn = nn.DataLoader(np.arange(4), sampler=[0, 1, 2, 3])
        with pytest.raises(ValueError, match="must both have a sampler"):
            plain.load_state_dict(drawn.state_dict())
        with pytest.raises(ValueError, match="lacks 'sampler'"):
            drawn.load_state_dict(plain.state_dict())

    @pytest.mark.parametrize("sampler", [[0, 4], [0, -1], [0.0, 1.0], ["a"]])
    def test_indices_are_checked(self, sampler: Any) -> None:
        with pytest.raises(ValueError, match="the sampler must give . indices from 0 to 3, got"):
            list(nn.DataLoader(np.arange(4), sampler=sampler))

    def test_a_sampler_needs_a_length_and_no_shuffle(self) -> None:
        with pytest.raises(TypeError, match="iterable of indices with a length"):
            nn.DataLoader(np.arange(4), sampler=iter([0]))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="leave out shuffle=True"):
            nn.DataLoader(np.arange(4), sampler=[0], shuffle=True)

    def test_drop_last_counts_the_draws(self) -> None:
        assert len(nn.DataLoader(np.arange(9), batch_size=2, sampler=[0] * 5, drop_last=True)) == 2
        with pytest.raises(ValueError, match="leaves no batch of 1 samples"):
            nn.DataLoader(np.arange(9), batch_size=2, sampler=[0], drop_last=True)
