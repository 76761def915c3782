"""CIFAR-10 is read from its binary files, and Fashion-MNIST from torchvision's folder."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnlite.datasets import cifar10, fashion_mnist, mnist

from .test_datasets import write_mnist_files

FILES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def record(label: int, first: int) -> bytes:
    """A label, then an image whose bytes count up from `first`."""
    return bytes([label]) + bytes((first + i) % 256 for i in range(3072))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images in each file, as they are numbered."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate(FILES):
        (folder / name).write_bytes(record(number, 2 * number) + record(9, 2 * number + 1))
    return folder


class TestCifar10:
    @pytest.mark.parametrize("root", [False, True], ids=["folder", "root"])
    def test_images_and_labels_are_in_the_order_of_the_files(
        self, folder: Path, root: bool
    ) -> None:
        (images, labels), (test_images, test_labels) = cifar10(
            folder.parent if root else folder, normalize=False
        )
        assert images.shape == (10, 3, 32, 32)
        assert images.dtype == np.uint8
        assert labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
        assert labels.dtype == np.int64
        assert images[:, 0, 0, 0].tolist() == list(range(10))
        assert images[4, 1, 0, 0] == (4 + 1024) % 256  # channels first, then rows
        assert images[4, 2, 3, 7] == (4 + 2 * 1024 + 3 * 32 + 7) % 256
        assert test_labels.tolist() == [5, 9]
        assert test_images[:, 0, 0, 0].tolist() == [10, 11]

    def test_pixels_are_standardised_by_channel(self, folder: Path) -> None:
        raw = cifar10(folder, normalize=False)[0][0]
        images = cifar10(folder)[0][0]
        assert images.dtype == np.float32
        for channel, (mean, std) in enumerate(
            [(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]
        ):
            expected = (raw[:, channel] / 255 - mean) / std
            np.testing.assert_allclose(images[:, channel], expected, atol=1e-5)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "records of 3073 bytes.*got 0"),
            (record(0, 0)[:-1], "got 3072"),
            (record(0, 0) + b"\0", "got 3074"),
            (record(10, 0), "labels from 0 to 9, got 10"),
        ],
    )
    def test_a_damaged_file_is_named(self, folder: Path, content: bytes, message: str) -> None:
        (folder / "data_batch_3.bin").write_bytes(content)
        with pytest.raises(ValueError, match=f"data_batch_3.bin: .*{message}"):
            cifar10(folder)

    def test_a_missing_file_is_named(self, folder: Path) -> None:
        (folder / "test_batch.bin").unlink()
        with pytest.raises(FileNotFoundError, match=r"no test_batch\.bin; .*binary\.tar\.gz"):
            cifar10(folder.parent)

    def test_pickles_are_not_loaded(self, tmp_path: Path) -> None:
        python = tmp_path / "cifar-10-batches-py"
        python.mkdir()
        for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
            (python / name).write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
        with pytest.raises(FileNotFoundError, match="pickles, which nnlite does not load"):
            cifar10(tmp_path)
        assert not (tmp_path / "sprung").exists()


class Trap:
    """Loading its pickle makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


class TestFashionMnist:
    @pytest.mark.parametrize("below", ["", "raw", "FashionMNIST/raw"])
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_it_is_found_in_torchvisions_folders(
        self, tmp_path: Path, below: str, suffix: str
    ) -> None:
        write_mnist_files(tmp_path / below, suffix=suffix)
        raw, images = fashion_mnist(tmp_path, normalize=False)[0][0], fashion_mnist(tmp_path)[0][0]
        np.testing.assert_allclose(images, (raw / 255 - 0.2860) / 0.3530, atol=1e-5)
        assert raw.dtype == np.uint8

    def test_it_is_not_taken_for_mnist_beside_it(self, tmp_path: Path) -> None:
        for name, label in (("MNIST", 1), ("FashionMNIST", 2)):
            labels = b"\0\0\x08\x01\0\0\0\x03" + bytes([label] * 3)
            write_mnist_files(tmp_path / name / "raw", {"train-labels-idx1-ubyte": labels})
        assert mnist(tmp_path)[0][1].tolist() == [1] * 3
        assert fashion_mnist(tmp_path)[0][1].tolist() == [2] * 3

    def test_a_missing_file_is_named_with_the_cure(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"FashionMNIST's four files .*github"):
            fashion_mnist(tmp_path)

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        write_mnist_files(tmp_path, {"t10k-images-idx3-ubyte": gzip.compress(b"\0")})
        with pytest.raises(ValueError, match="t10k-images-idx3-ubyte"):
            fashion_mnist(tmp_path)
