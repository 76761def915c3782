"""torchvision and nnlite give the same arrays for the same data."""

from __future__ import annotations

import functools
import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnlite as nn

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
transforms = pytest.importorskip("torchvision.transforms")
v2 = pytest.importorskip("torchvision.transforms.v2")
Image = pytest.importorskip("PIL.Image")

BUNDLED = Path(nn.datasets.__file__).parent
NORMALIZED = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])


def to_arrays(dataset: Any, **options: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return nn.datasets.from_torchvision(dataset, progress=False, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that torchvision would have downloaded, for MNIST and for FashionMNIST."""
    root = tmp_path_factory.mktemp("torchvision")
    for name in ("MNIST", "FashionMNIST"):
        folder = root / name / "raw"
        folder.mkdir(parents=True)
        for path in BUNDLED.glob("*.gz"):
            (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return root


@pytest.fixture
def mirror() -> Iterator[str]:
    """A web server on this machine that has the bundled files."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=BUNDLED)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class TestMnist:
    @pytest.mark.parametrize("train", [True, False])
    def test_bundled_images_equal_totensor_and_normalize(self, root: Path, train: bool) -> None:
        dataset = torchvision.datasets.MNIST(root, train=train, transform=NORMALIZED)
        first = torch.utils.data.Subset(dataset, range(5_000))
        expected_images, expected_labels = to_arrays(first)
        images, labels = nn.datasets.mnist()[0 if train else 1]
        np.testing.assert_array_equal(images[:5_000], expected_images)
        np.testing.assert_array_equal(labels[:5_000], expected_labels)

    def test_folder_equals_bundled_files(self, root: Path) -> None:
        read, bundled = nn.datasets.mnist(root), nn.datasets.mnist()
        for split, expected_split in zip(read, bundled, strict=True):
            for array, expected in zip(split, expected_split, strict=True):
                np.testing.assert_array_equal(array, expected)

    @pytest.mark.parametrize("train", [True, False])
    def test_raw_pixels_equal_the_stored_tensors(self, root: Path, train: bool) -> None:
        dataset = torchvision.datasets.MNIST(root, train=train)
        images, labels = nn.datasets.mnist(normalize=False)[0 if train else 1]
        np.testing.assert_array_equal(images[:, 0], dataset.data.numpy())
        np.testing.assert_array_equal(labels, dataset.targets.numpy())

    def test_bytes_from_torchvision_equal_raw_pixels(self, root: Path) -> None:
        dataset = torchvision.datasets.MNIST(root, train=False)
        images, _ = to_arrays(dataset, dtype=np.uint8)
        np.testing.assert_array_equal(images, nn.datasets.mnist(normalize=False)[1][0])

    def test_fashion_mnist_is_read_from_its_folder(self, root: Path) -> None:
        dataset = torchvision.datasets.FashionMNIST(root, train=False, transform=NORMALIZED)
        images, labels = to_arrays(dataset)
        read_images, read_labels = nn.datasets.mnist(root / "FashionMNIST")[1]
        np.testing.assert_array_equal(read_images, images)
        np.testing.assert_array_equal(read_labels, labels)

    def test_downloads_where_torchvision_finds_it(
        self, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        md5s = [
            (path.name, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest())
            for path in BUNDLED.glob("*.gz")
        ]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [mirror])
        monkeypatch.setattr(torchvision.datasets.MNIST, "resources", md5s)
        with pytest.raises(FileNotFoundError):
            nn.datasets.mnist(tmp_path)
        train, test = nn.datasets.mnist(tmp_path, download=True, normalize=False)
        assert (len(train[0]), len(test[0])) == (60_000, 10_000)
        # What is there is not asked for again, by either side.
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
        assert len(torchvision.datasets.MNIST(tmp_path, download=True)) == 60_000
        nn.datasets.mnist(tmp_path, download=True, normalize=False)

    def test_reports_a_failed_download(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            torchvision.datasets.MNIST, "mirrors", [f"{(tmp_path / 'nothing').as_uri()}/"]
        )
        with pytest.raises(OSError, match=r"download of MNIST to .*data failed.*bundled"):
            nn.datasets.mnist(tmp_path / "data", download=True)


class TestFromTorchvision:
    @pytest.mark.parametrize(
        "mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F"]
    )
    def test_pil_images_of_every_mode_equal_totensor(self, mode: str) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        image = (
            image.convert("L").convert(mode) if mode in ("LA", "I", "F") else image.convert(mode)
        )
        images, _ = to_arrays([(image, 0)])
        expected = transforms.ToTensor()(image).numpy().astype(np.float32)
        np.testing.assert_array_equal(images[0], expected)

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int32])
    @pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3)])
    def test_arrays_equal_totensor(self, shape: tuple[int, ...], dtype: Any) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
        images, _ = to_arrays([(pixels, 0)])
        expected = transforms.ToTensor()(pixels).numpy().astype(np.float32)
        np.testing.assert_array_equal(images[0], expected)

    @pytest.mark.parametrize(
        "transform",
        [
            None,
            transforms.ToTensor(),
            transforms.Compose([transforms.Resize(8), transforms.ToTensor()]),
            transforms.PILToTensor(),
            transforms.Grayscale(),
            transforms.Compose([transforms.ToTensor(), torch.flatten]),
            v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
            v2.ToImage(),
        ],
        ids=["none", "tensor", "resize", "bytes", "pil", "flat", "v2", "v2-bytes"],
    )
    def test_fake_data_under_each_kind_of_transform(self, transform: Any) -> None:
        dataset = torchvision.datasets.FakeData(6, (3, 12, 10), 10, transform)
        images, labels = to_arrays(dataset)
        samples = [dataset[index] for index in range(6)]
        expected = [
            transforms.ToTensor()(image) if isinstance(image, Image.Image) else image
            for image, _ in samples
        ]
        np.testing.assert_array_equal(images, torch.stack(expected).numpy())
        assert images.dtype == np.float32
        assert labels.tolist() == [int(label) for _, label in samples]

    def test_subsets_and_concatenations_are_data_sets_too(self) -> None:
        dataset = torchvision.datasets.FakeData(6, (3, 4, 5), 10)
        images, labels = to_arrays(dataset)
        data = torch.utils.data
        joined = data.ConcatDataset([data.Subset(dataset, [4, 1]), data.Subset(dataset, [0])])
        joined_images, joined_labels = to_arrays(joined)
        np.testing.assert_array_equal(joined_images, images[[4, 1, 0]])
        np.testing.assert_array_equal(joined_labels, labels[[4, 1, 0]])

    def test_tensor_labels(self) -> None:
        pairs = torch.utils.data.TensorDataset(torch.zeros(3, 1, 2, 2), torch.tensor([2, 0, 1]))
        images, labels = to_arrays(pairs)
        assert images.shape == (3, 1, 2, 2)
        assert labels.tolist() == [2, 0, 1]

    def test_image_folder_of_several_sizes_asks_for_resize(self, tmp_path: Path) -> None:
        for name, size in (("cat", (9, 7)), ("dog", (6, 8))):
            (tmp_path / name).mkdir()
            Image.new("RGB", size, (255, 0, 51)).save(tmp_path / name / "picture.png")
        with pytest.raises(ValueError, match=r"sample 1 of ImageFolder.*Resize"):
            to_arrays(torchvision.datasets.ImageFolder(tmp_path))
        dataset = torchvision.datasets.ImageFolder(tmp_path, transforms.Resize((4, 5)))
        images, labels = to_arrays(dataset)
        assert images.shape == (2, 3, 4, 5)
        assert labels.tolist() == [0, 1]
        for channel, value in enumerate((1, 0, 0.2)):
            np.testing.assert_array_equal(images[:, channel], np.float32(value))

    @pytest.mark.parametrize("label", [torch.tensor(0.5), torch.zeros(40, dtype=torch.int64)])
    def test_refuses_labels_that_are_no_class(self, label: Any) -> None:
        with pytest.raises(TypeError, match="sample 0 of list: expected an integer label"):
            to_arrays([(torch.zeros(1, 2, 2), label)])

    def test_refuses_a_data_set_that_can_only_be_iterated(self) -> None:
        stream_type = type("Stream", (torch.utils.data.IterableDataset,), {"__iter__": iter})
        with pytest.raises(TypeError, match="a length and an index, got Stream"):
            to_arrays(stream_type())
