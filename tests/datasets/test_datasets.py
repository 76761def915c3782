"""Data sets: all kinds of IDX files, damaged files, and MNIST as published."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnlite as nn
from nnlite.datasets import MNIST_MEAN, MNIST_STD, from_torchvision, mnist, read_idx

BUNDLED = Path(nn.datasets.__file__).parent
MIB = 1 << 20

# type code: (format of struct, dtype, values it can hold)
IDX_TYPES: dict[int, tuple[str, str, st.SearchStrategy[Any]]] = {
    0x08: ("B", "uint8", st.integers(0, 2**8 - 1)),
    0x09: ("b", "int8", st.integers(-(2**7), 2**7 - 1)),
    0x0B: ("h", "int16", st.integers(-(2**15), 2**15 - 1)),
    0x0C: ("i", "int32", st.integers(-(2**31), 2**31 - 1)),
    0x0D: ("f", "float32", st.floats(width=32, allow_nan=False)),
    0x0E: ("d", "float64", st.floats(allow_nan=False)),
}


def idx_bytes(shape: Sequence[int], values: Sequence[float], code: int = 0x08) -> bytes:
    """Write an IDX file with the standard library alone."""
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape)
    return header + struct.pack(f">{len(values)}{IDX_TYPES[code][0]}", *values)


@st.composite
def idx_contents(draw: st.DrawFn) -> tuple[int, list[int], list[float]]:
    code = draw(st.sampled_from(sorted(IDX_TYPES)))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = math.prod(shape)
    values = draw(st.lists(IDX_TYPES[code][2], min_size=size, max_size=size))
    return code, shape, values


@contextmanager
def peak_memory_below(limit: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit


@pytest.fixture(scope="module")
def scratch_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("idx") / "file"


@pytest.fixture(scope="module")
def raw() -> Any:
    return mnist(normalize=False)


@pytest.fixture(scope="module")
def normalized() -> Any:
    return mnist()


class TestReadIdx:
    @given(contents=idx_contents(), compress=st.booleans())
    def test_reads_back_every_type_and_shape(
        self, scratch_file: Path, contents: tuple[int, list[int], list[float]], compress: bool
    ) -> None:
        code, shape, values = contents
        data = idx_bytes(shape, values, code)
        scratch_file.write_bytes(gzip.compress(data) if compress else data)
        array = read_idx(scratch_file)
        assert array.dtype == np.dtype(IDX_TYPES[code][1])
        assert array.dtype.isnative
        assert array.shape == tuple(shape)
        assert array.ravel().tolist() == values
        assert array.flags.c_contiguous
        assert array.flags.writeable

    def test_takes_a_path_as_a_string(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(idx_bytes([2], [3, 4]))
        assert read_idx(str(tmp_path / "file")).tolist() == [3, 4]

    def test_reads_a_gzip_file_of_several_members(self, tmp_path: Path) -> None:
        data = idx_bytes([300], [7] * 300)
        path = tmp_path / "file"
        path.write_bytes(gzip.compress(data[:100]) + gzip.compress(data[100:]))
        assert read_idx(path).tolist() == [7] * 300

    @pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
    def test_refuses_a_file_cut_off_anywhere(
        self, tmp_path: Path, compress: Callable[[bytes], bytes]
    ) -> None:
        whole = compress(idx_bytes([3, 4], range(12)))
        path = tmp_path / "cut-idx2-ubyte"
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match="cut-idx2-ubyte"):
                read_idx(path)

    def test_finds_every_flipped_bit_of_a_gzip_file_that_matters(self, tmp_path: Path) -> None:
        content = idx_bytes([3, 4], range(12))
        whole = gzip.compress(content)
        path = tmp_path / "flipped.gz"
        refused = 0
        for position in range(len(whole)):
            for bit in range(8):
                flipped = bytearray(whole)
                flipped[position] ^= 1 << bit
                path.write_bytes(flipped)
                try:
                    array = read_idx(path)
                except ValueError:
                    refused += 1
                else:
                    assert array.tolist() == np.arange(12).reshape(3, 4).tolist()
        # What may change unnoticed are time, system and flags in the ten bytes of gzip's header.
        assert refused >= 8 * (len(whole) - 10)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "empty"),
            (gzip.compress(b"", mtime=0), "empty"),
            (b"<!DOCTYPE html><html>", "not an IDX file.*<!DO"),
            (b"\x00\x01\x08\x01\x00\x00\x00\x01\x05", "not an IDX file"),
            (b"\x00\x00\x0a\x01\x00\x00\x00\x01\x05", "not an IDX file"),
            (b"\x00\x00\x08", "not an IDX file"),
            (b"\x00\x00\x08\x03\x00\x00\x00\x01", "truncated.*3 dimensions"),
            (idx_bytes([3], [1, 2]), "truncated.*promises 3 bytes.*has 2"),
            (idx_bytes([2], [1, 2, 3]), "goes on after the 2 bytes"),
            (gzip.compress(idx_bytes([2], [1, 2, 3]), mtime=0), "goes on after the 2 bytes"),
            (gzip.compress(idx_bytes([2], [1, 2]), mtime=0) + b"surplus", "gzip"),
            (idx_bytes([1] * 65, [1]), "dimension"),
            (idx_bytes([0, *[2**32 - 1] * 3], []), "array"),
        ],
    )
    def test_names_a_broken_file_and_what_is_wrong(
        self, tmp_path: Path, data: bytes, message: str
    ) -> None:
        path = tmp_path / "broken-file"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"broken-file: .*{message}"):
            read_idx(path)

    def test_names_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="absent-file"):
            read_idx(tmp_path / "absent-file")

    @pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
    @pytest.mark.parametrize("shape", [[2**32 - 1], [2**32 - 1] * 3, [2**32 - 1] * 255])
    def test_allocates_nothing_for_a_promise(
        self, tmp_path: Path, compress: Callable[[bytes], bytes], shape: list[int]
    ) -> None:
        path = tmp_path / "promise"
        path.write_bytes(compress(idx_bytes(shape, bytes(MIB // 4))))
        with peak_memory_below(MIB), pytest.raises(ValueError, match="promise: truncated"):
            read_idx(path)

    def test_does_not_unpack_a_gzip_bomb(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb"
        path.write_bytes(gzip.compress(idx_bytes([10], bytes(32 * MIB))))
        with peak_memory_below(MIB), pytest.raises(ValueError, match="bomb: it goes on"):
            read_idx(path)

    def test_refuses_what_unpacks_to_far_more_than_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb"
        path.write_bytes(gzip.compress(idx_bytes([32 * MIB], bytes(32 * MIB))))
        with peak_memory_below(10 * MIB), pytest.raises(ValueError, match="bomb: it claims to"):
            read_idx(path)

    @pytest.mark.parametrize("compress", [bytes, gzip.compress])
    def test_a_message_is_short_whatever_the_header_has(
        self, tmp_path: Path, compress: Callable[[bytes], bytes]
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(compress(idx_bytes([2**32 - 1] * 255, [1])))
        with pytest.raises(ValueError, match="file: truncated") as caught:
            read_idx(path)
        assert len(str(caught.value)) < len(str(path)) + 200

    def test_a_file_descriptor_is_no_path_and_stays_open(self, tmp_path: Path) -> None:
        with open(tmp_path / "file", "w+b") as file:
            with pytest.raises(TypeError, match="PathLike"):
                read_idx(file.fileno())  # type: ignore[arg-type]
            os.fstat(file.fileno())

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with a name")
    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="pipe: expected a file of arrays, this is no regular"):
            read_idx(tmp_path / "pipe")


def write_mnist_files(
    folder: Path, replaced: Mapping[str, bytes | None] | None = None, *, suffix: str = ""
) -> None:
    """Write three images and labels for each split, with other content, or no file, as told."""
    pixels = [i % 256 for i in range(3 * 28 * 28)]
    contents: dict[str, bytes | None] = {}
    for split in ("train", "t10k"):
        contents[f"{split}-images-idx3-ubyte"] = idx_bytes([3, 28, 28], pixels)
        contents[f"{split}-labels-idx1-ubyte"] = idx_bytes([3], [0, 1, 2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (contents | dict(replaced or {})).items():
        if content is not None:
            data = gzip.compress(content) if suffix else content
            (folder / (name + suffix)).write_bytes(data)


class TestBundledMnist:
    """Published facts about MNIST, read from the bundled files without nnlite."""

    @pytest.mark.parametrize(
        ("name", "md5"),
        [
            ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
            ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
            ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
            ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
        ],
    )
    def test_files_are_the_published_ones(self, name: str, md5: str) -> None:
        content = gzip.decompress((BUNDLED / f"{name}.gz").read_bytes())
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() == md5

    def test_shapes_and_types(self, raw: Any, normalized: Any) -> None:
        for dtype, splits in (("uint8", raw), ("float32", normalized)):
            for count, (images, labels) in zip((60_000, 10_000), splits, strict=True):
                assert images.shape == (count, 1, 28, 28)
                assert images.dtype == dtype
                assert images.flags.c_contiguous
                assert labels.shape == (count,)
                assert labels.dtype == np.int64

    def test_class_counts(self, raw: Any) -> None:
        (_, train_labels), (_, test_labels) = raw
        assert np.bincount(train_labels).tolist() == [
            *(5923, 6742, 5958, 6131, 5842),
            *(5421, 5918, 6265, 5851, 5949),
        ]
        assert np.bincount(test_labels).tolist() == [
            *(980, 1135, 1032, 1010, 982),
            *(892, 958, 1028, 974, 1009),
        ]

    def test_first_labels(self, raw: Any) -> None:
        (_, train_labels), (_, test_labels) = raw
        assert train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]

    @pytest.mark.parametrize(("split", "name"), [(0, "train"), (1, "t10k")])
    @pytest.mark.parametrize("index", [0, 1, 9_999])
    def test_images_are_those_of_the_file(
        self, raw: Any, split: int, name: str, index: int
    ) -> None:
        content = gzip.decompress((BUNDLED / f"{name}-images-idx3-ubyte.gz").read_bytes())
        start = 16 + 784 * index
        assert raw[split][0][index].tobytes() == content[start : start + 784]

    def test_training_pixels_have_the_published_mean_and_deviation(self, raw: Any) -> None:
        histogram = np.bincount(raw[0][0].ravel(), minlength=256)
        values = np.arange(256) / 255
        mean = histogram @ values / histogram.sum()
        variance = histogram @ (values - mean) ** 2 / histogram.sum()
        assert round(mean, 4) == MNIST_MEAN == 0.1307
        assert round(math.sqrt(variance), 4) == MNIST_STD == 0.3081

    def test_normalized_pixels_are_scaled_and_standardised(self, raw: Any, normalized: Any) -> None:
        for (pixels, _), (images, _) in zip(raw, normalized, strict=True):
            expected = (pixels[:500].astype(np.float64) / 255 - 0.1307) / 0.3081
            np.testing.assert_allclose(images[:500], expected, rtol=0, atol=1e-6)
        assert abs(normalized[0][0].mean(dtype=np.float64)) < 1e-3
        # From (0 - 0.1307) / 0.3081 to (1 - 0.1307) / 0.3081.
        assert normalized[0][0].min() == pytest.approx(-0.42421, abs=1e-5)
        assert normalized[0][0].max() == pytest.approx(2.82149, abs=1e-5)

    def test_memory_is_what_the_docstring_says(self) -> None:
        documented = {
            int(figure.replace(",", ""))
            for figure in re.findall(r"\(([\d,]+) bytes\)", mnist.__doc__ or "")
        }
        measured = set()
        for normalize, peak in ((True, 245e6), (False, 57e6)):
            with peak_memory_below(peak):
                splits = mnist(normalize=normalize)
            measured.add(sum(array.nbytes for split in splits for array in split))
        assert measured == documented

    def test_each_call_returns_arrays_of_its_own(self, raw: Any) -> None:
        (images, labels), _ = mnist(normalize=False)
        images[:] = 0
        labels[:] = 0
        assert raw[0][0].any()
        assert raw[0][1].any()

    def test_licence_and_attribution_stand_beside_the_files(self) -> None:
        text = (BUNDLED / "README.md").read_text(encoding="utf-8")
        assert "Yann LeCun" in text
        assert "https://creativecommons.org/licenses/by-sa/3.0/" in text


class TestMnistDirectory:
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    @pytest.mark.parametrize("below", [".", "raw", "MNIST/raw"])
    def test_reads_each_layout(self, tmp_path: Path, below: str, suffix: str) -> None:
        write_mnist_files(tmp_path / below, suffix=suffix)
        for images, labels in mnist(tmp_path, normalize=False):
            assert images.tobytes() == bytes(i % 256 for i in range(3 * 28 * 28))
            assert labels.tolist() == [0, 1, 2]

    def test_takes_a_string_and_normalizes(self, tmp_path: Path) -> None:
        write_mnist_files(tmp_path)
        (images, _), _ = mnist(str(tmp_path))
        assert images.dtype == np.float32
        assert images[0, 0, 0, 7] == pytest.approx((7 / 255 - 0.1307) / 0.3081, abs=1e-6)

    def test_prefers_the_uncompressed_file(self, tmp_path: Path) -> None:
        write_mnist_files(tmp_path, suffix=".gz")
        write_mnist_files(tmp_path, {"train-labels-idx1-ubyte": idx_bytes([3], [9, 9, 9])})
        (_, labels), _ = mnist(tmp_path)
        assert labels.tolist() == [9, 9, 9]

    def test_names_the_missing_file_and_the_cure(self, tmp_path: Path) -> None:
        write_mnist_files(tmp_path / "MNIST" / "raw", {"t10k-labels-idx1-ubyte": None})
        with pytest.raises(FileNotFoundError, match="download=True") as caught:
            mnist(tmp_path)
        assert str(tmp_path / "MNIST" / "raw") in str(caught.value)
        assert "no t10k-labels-idx1-ubyte" in str(caught.value)
        assert "train" not in str(caught.value)

    def test_names_a_missing_directory(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="absent: no train-images-idx3-ubyte"):
            mnist(tmp_path / "absent")

    @pytest.mark.parametrize(
        ("replaced", "content", "blamed", "message"),
        [
            (
                "train-images-idx3-ubyte",
                idx_bytes([3], [5, 0, 4]),
                "train-images-idx3-ubyte",
                r"expected images.*got uint8 of shape \(3,\)",
            ),
            (
                "t10k-labels-idx1-ubyte",
                idx_bytes([3, 28, 28], bytes(3 * 28 * 28)),
                "t10k-labels-idx1-ubyte",
                r"expected labels.*got uint8 of shape \(3, 28, 28\)",
            ),
            (
                "train-images-idx3-ubyte",
                idx_bytes([3, 32, 32], bytes(3 * 32 * 32)),
                "train-images-idx3-ubyte",
                r"\(N, 28, 28\).*\(3, 32, 32\)",
            ),
            (
                "t10k-images-idx3-ubyte",
                idx_bytes([3, 28, 28], bytes(3 * 28 * 28), 0x09),
                "t10k-images-idx3-ubyte",
                "uint8.*int8",
            ),
            (
                "train-labels-idx1-ubyte",
                idx_bytes([3], [0, 1, 2], 0x0C),
                "train-labels-idx1-ubyte",
                "uint8.*int32",
            ),
            (
                "train-labels-idx1-ubyte",
                idx_bytes([2], [0, 1]),
                "train-images-idx3-ubyte",
                "2 labels in train-labels-idx1-ubyte, got 3 images",
            ),
            (
                "t10k-labels-idx1-ubyte",
                idx_bytes([3], [0, 10, 2]),
                "t10k-labels-idx1-ubyte",
                "from 0 to 9, got 10",
            ),
            (
                "train-labels-idx1-ubyte",
                idx_bytes([0], []),
                "train-labels-idx1-ubyte",
                "no labels",
            ),
            ("t10k-images-idx3-ubyte", b"", "t10k-images-idx3-ubyte", "empty"),
        ],
    )
    def test_names_the_file_that_does_not_fit(
        self, tmp_path: Path, replaced: str, content: bytes, blamed: str, message: str
    ) -> None:
        write_mnist_files(tmp_path, {replaced: content})
        with pytest.raises(ValueError, match=f"{blamed}: .*{message}"):
            mnist(tmp_path)


class TestMnistDownload:
    @pytest.fixture
    def downloads(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """Stands in for torchvision; lists the directories that were downloaded to."""
        calls: list[Path] = []

        def download_mnist(root: Path, *, download: bool) -> None:
            assert download
            calls.append(root)
            write_mnist_files(Path(root) / "MNIST" / "raw")

        datasets = types.ModuleType("torchvision.datasets")
        vars(datasets)["MNIST"] = download_mnist
        monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
        monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
        return calls

    def test_downloads_once(self, tmp_path: Path, downloads: list[Path]) -> None:
        for _ in range(2):
            train, _ = mnist(tmp_path, download=True)
            assert train[1].tolist() == [0, 1, 2]
        assert [*map(Path, downloads)] == [tmp_path]

    def test_files_that_are_there_need_no_torchvision(
        self, tmp_path: Path, downloads: list[Path]
    ) -> None:
        write_mnist_files(tmp_path, suffix=".gz")
        mnist(tmp_path, download=True)
        assert not downloads

    def test_asks_for_torchvision(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torchvision", None)
        monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
        with pytest.raises(ImportError, match="pip install torchvision"):
            mnist(tmp_path, download=True)

    def test_needs_a_directory(self) -> None:
        with pytest.raises(ValueError, match="needs a directory"):
            mnist(download=True)


class PilImage:
    """The part of a PIL image that NumPy and nnlite see."""

    def __init__(self, pixels: Any) -> None:
        self.pixels = np.asarray(pixels)

    def getbands(self) -> tuple[str, ...]:
        return ("L",)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return self.pixels


class Tensor:
    """The part of a tensor that NumPy and nnlite see."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return self.values

    def __index__(self) -> int:
        return self.values.__index__()


def to_arrays(samples: Any, **options: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return from_torchvision(samples, progress=False, **options)


class TestFromTorchvision:
    @pytest.mark.parametrize("image_type", [PilImage, np.asarray])
    def test_images_become_channels_first_in_the_unit_interval(
        self, image_type: Callable[[Any], Any]
    ) -> None:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (5, 4, 3, 2), dtype=np.uint8)
        images, labels = to_arrays([(image_type(image), i) for i, image in enumerate(pixels)])
        assert images.shape == (5, 2, 4, 3)
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        for n, channel, row, column in np.ndindex(images.shape):
            expected = pixels[n, row, column, channel] / np.float32(255)
            assert images[n, channel, row, column] == expected
        assert labels.tolist() == [0, 1, 2, 3, 4]
        assert labels.dtype == np.int64

    def test_grey_images_get_one_channel(self) -> None:
        images, _ = to_arrays([(PilImage(np.full((4, 3), 51, np.uint8)), 0)])
        assert images.shape == (1, 1, 4, 3)
        assert (images == np.float32(0.2)).all()

    def test_bilevel_images_become_zeros_and_ones(self) -> None:
        images, _ = to_arrays([(PilImage([[True, False]]), 0)])
        assert images.tolist() == [[[[1.0, 0.0]]]]

    def test_only_bytes_are_scaled(self) -> None:
        images, _ = to_arrays([(PilImage(np.array([[70_000, -3]], np.int32)), 0)])
        assert images.tolist() == [[[[70_000.0, -3.0]]]]

    @pytest.mark.parametrize("shape", [(784,), (28, 28), (3, 4, 5), (2, 3, 4, 5)])
    def test_tensors_are_taken_as_they_are(self, shape: tuple[int, ...]) -> None:
        values = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
        images, labels = to_arrays([(Tensor(value), Tensor(7)) for value in values])
        assert images.tobytes() == values.tobytes()
        assert images.shape == values.shape
        assert labels.tolist() == [7, 7]

    def test_byte_tensors_are_not_scaled(self) -> None:
        images, _ = to_arrays([(Tensor(np.array([[[200]]], np.uint8)), 0)])
        assert images.tolist() == [[[[200.0]]]]

    def test_uint8_keeps_bytes(self) -> None:
        pixels = np.arange(12, dtype=np.uint8).reshape(4, 3)
        images, _ = to_arrays([(PilImage(pixels), 0)], dtype=np.uint8)
        assert images.dtype == np.uint8
        assert images.tobytes() == bytes(range(12))

    @pytest.mark.parametrize("dtype", ["float16", "float64"])
    def test_dtype_is_the_one_asked_for(self, dtype: str) -> None:
        images, _ = to_arrays([(PilImage([[np.uint8(255)]]), 0)], dtype=dtype)
        assert images.dtype == dtype
        assert images.max() == 1

    def test_result_is_independent_of_the_samples(self) -> None:
        value = np.ones((1, 2, 2), np.float32)
        images, _ = to_arrays([(Tensor(value), 0)])
        value[:] = 0
        assert images.all()

    def test_each_sample_is_read_once_and_in_order(self) -> None:
        class Counting:
            read: list[int]

            def __init__(self) -> None:
                self.read = []

            def __len__(self) -> int:
                return 4

            def __getitem__(self, index: int) -> tuple[Any, int]:
                self.read.append(index)
                return np.zeros((1, 1), np.uint8), index

        dataset = Counting()
        to_arrays(dataset)
        assert dataset.read == [0, 1, 2, 3]

    def test_images_are_held_once(self) -> None:
        image = PilImage(np.zeros((32, 32, 3), np.uint8))
        with peak_memory_below(1000 * 32 * 32 * 3 * 4 + MIB):
            to_arrays([(image, 0)] * 1000)

    def test_progress_bar_counts_images_when_wanted(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        samples = [(np.zeros((1, 1), np.uint8), 0)] * 3
        from_torchvision(samples)
        captured = capsys.readouterr()
        assert "3/3" in captured.err
        assert captured.out == ""
        from_torchvision(samples, progress=False)
        assert capsys.readouterr() == ("", "")

    def test_imports_neither_torch_nor_torchvision(self) -> None:
        script = (
            "import sys, numpy, nnlite\n"
            "nnlite.datasets.from_torchvision([(numpy.zeros((1, 1)), 0)], progress=False)\n"
            "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", script], check=True, cwd=BUNDLED.parents[1])

    GOOD = (np.zeros((2, 2), np.uint8), 0)

    @pytest.mark.parametrize(
        ("samples", "error", "message"),
        [
            ([], ValueError, "list is empty"),
            (iter([GOOD]), TypeError, "a length and an index"),
            ([GOOD, (np.zeros((2, 3), np.uint8), 0)], ValueError, "sample 1 .*Resize"),
            ([GOOD, (np.zeros((2, 2, 3), np.uint8), 0)], ValueError, r"\(1, 2, 2\).*\(3, 2, 2\)"),
            ([GOOD, GOOD[0]], TypeError, "sample 1 .*pair"),
            ([(*GOOD, 1)], TypeError, "sample 0 .*pair"),
            ([{"image": GOOD[0], "label": 0}], TypeError, "pair"),
            ([GOOD, (GOOD[0], 1.0)], TypeError, "sample 1 .*integer label, got 1.0.*target_trans"),
            ([(GOOD[0], None)], TypeError, "integer label, got None"),
            ([(GOOD[0], "cat")], TypeError, "integer label, got 'cat'"),
            ([(GOOD[0], np.zeros(40, np.int64))], TypeError, "integer label"),
            ([(GOOD[0], 2**63)], TypeError, "sample 0"),
            ([("picture.png", 0)], TypeError, "sample 0 .*PIL image.*picture.png"),
            ([(None, 0)], TypeError, "sample 0 .*PIL image"),
            ([(3.0, 0)], TypeError, "sample 0 .*PIL image"),
            ([(["a", "b"], 0)], TypeError, "sample 0 .*PIL image"),
            ([([[1], [2, 3]], 0)], TypeError, "sample 0 "),
            ([(np.zeros(4, np.uint8), 0)], TypeError, r"\(H, W\)"),
            ([(np.zeros((1, 2, 3, 4), np.uint8), 0)], TypeError, r"\(H, W\)"),
        ],
    )
    def test_says_which_sample_is_wrong_and_why(
        self, samples: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=f"from_torchvision: .*{message}"):
            to_arrays(samples)

    @pytest.mark.parametrize(
        "pixels",
        [np.full((1, 1), 0.5, np.float32), np.full((1, 1), 300), np.full((1, 1), 300, np.uint16)],
    )
    def test_refuses_pixels_that_an_integer_dtype_cannot_hold(self, pixels: Any) -> None:
        with pytest.raises(TypeError, match=r"sample 0 .* as uint8; choose another dtype"):
            to_arrays([(pixels, 0)], dtype=np.uint8)

    def test_refuses_a_dtype_that_is_not_a_number(self) -> None:
        with pytest.raises(TypeError, match="floating or integer dtype"):
            to_arrays([self.GOOD], dtype="complex64")

    def test_leaves_the_errors_of_the_data_set_alone(self) -> None:
        class Unreadable:
            def __len__(self) -> int:
                return 1

            def __getitem__(self, index: int) -> Any:
                raise OSError("image file is truncated")

        with pytest.raises(OSError, match=r"^image file is truncated$"):
            to_arrays(Unreadable())
