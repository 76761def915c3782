"""Data frames, memory maps and iterables of batches can be used for training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnlite as nn


@pytest.mark.parametrize("library", ["pandas", "polars"])
class TestDataFrames:
    def frame(self, library: str) -> Any:
        module = pytest.importorskip(library)
        return module.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0], "label": [0, 1, 1]})

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_rows_and_columns_stay_together(self, library: str, shuffle: bool) -> None:
        frame = self.frame(library)
        loader = nn.DataLoader(frame[["a", "b"]], frame["label"], batch_size=2, shuffle=shuffle)
        x, y = (np.concatenate(parts) for parts in zip(*loader, strict=True))
        order = np.argsort(x[:, 0])
        assert x[order].tolist() == [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
        assert y[order].tolist() == [0, 1, 1]

    def test_fit_evaluate_and_predict_take_them(self, library: str) -> None:
        frame = self.frame(library)
        data = frame[["a", "b"]], frame["label"]
        model = nn.Sequential(nn.Linear(2, 2))
        history = nn.fit(
            model,
            nn.CrossEntropy(),
            nn.SGD(model.parameters(), lr=0.1),
            nn.DataLoader(*data, batch_size=3),
            validation=data,
            progress=False,
        )
        arrays = np.array([[1, 4], [2, 5], [3, 6]], np.float32), np.array([0, 1, 1])
        expected = nn.evaluate(model, nn.CrossEntropy(), arrays)["loss"]
        assert history["validation_loss"][-1] == pytest.approx(expected)
        np.testing.assert_allclose(nn.predict(model, data[0]), model(arrays[0]), rtol=1e-6)

    def test_a_column_of_strings_is_an_error_of_the_layer(self, library: str) -> None:
        module = pytest.importorskip(library)
        frame = module.DataFrame({"a": ["x", "y"], "b": [1.0, 2.0]})
        (batch,) = nn.DataLoader(frame, batch_size=2)
        with pytest.raises(TypeError, match=r"Linear.*expected input of floats, got dtype object"):
            nn.Linear(2, 1)(batch)


class TestMemoryMaps:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        np.save(tmp_path / "x.npy", np.arange(40, dtype=np.float32).reshape(10, 4))
        return tmp_path / "x.npy"

    def test_the_file_is_not_copied(self, path: Path) -> None:
        mapped = np.load(path, mmap_mode="r")
        loader = nn.DataLoader(mapped, batch_size=4)
        assert np.shares_memory(loader.arrays[0], mapped)
        assert all(np.shares_memory(batch, mapped) for batch in loader)

    def test_a_shuffled_batch_reads_its_own_rows(self, path: Path) -> None:
        loader = nn.DataLoader(np.load(path, mmap_mode="r"), batch_size=4, shuffle=True, rng=0)
        batches = list(loader)
        assert np.sort(np.concatenate(batches)[:, 0]).tolist() == list(range(0, 40, 4))
        assert all(batch.base is None for batch in batches)

    def test_a_map_larger_than_memory_is_iterated_over(self, tmp_path: Path) -> None:
        # A sparse file of 1 TB: any copy of it would fail.
        path = tmp_path / "huge"
        with open(path, "wb") as file:
            try:
                file.truncate(2**40)
            except OSError:
                pytest.skip("the file system has no sparse files")
        mapped = np.memmap(path, np.float32, "r").reshape(-1, 2**20)
        loader = nn.DataLoader(mapped, np.arange(len(mapped)), batch_size=2, shuffle=True, rng=0)
        x, y = next(iter(loader))
        assert x.shape == (2, 2**20)
        assert not x.any()
        assert len(y) == 2


class Batches:
    """Batches that are generated again in each iteration."""

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, 6, 2):
            yield np.full((2, 3), start, np.float32), np.array([0, 1])


class TestIterableOfBatches:
    def test_fit_and_evaluate_take_one(self) -> None:
        model = nn.Sequential(nn.Linear(3, 2))
        history = nn.fit(
            model,
            nn.CrossEntropy(),
            nn.SGD(model.parameters(), lr=0.1),
            Batches(),
            validation=Batches(),
            epochs=2,
            progress=False,
        )
        assert len(history.epochs) == 2
        figures = nn.evaluate(model, nn.CrossEntropy(), iter(Batches()))
        assert figures["loss"] == history["validation_loss"][-1]
