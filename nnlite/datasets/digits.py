"""MNIST, bundled with the package so that no network is needed, and Fashion-MNIST."""

from __future__ import annotations

import importlib
import os
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..engine import threads
from ..engine.blas import share
from ..hints import explained
from .idx import read_idx

#: Mean of the training pixels, scaled to [0, 1].
MNIST_MEAN = 0.1307
#: Standard deviation of the training pixels, scaled to [0, 1].
MNIST_STD = 0.3081

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

# Images that are standardized at a time, and stay in the processor's cache.
_IMAGES_OF_BLOCK = 64

Split = tuple[NDArray[Any], NDArray[np.int64]]


@explained
def mnist(
    directory: str | os.PathLike[str] | None = None,
    *,
    normalize: bool = True,
    download: bool = False,
) -> tuple[Split, Split]:
    """Load MNIST as ``(train_images, train_labels), (test_images, test_labels)``.

    The training split has 60,000 images, the test split 10,000. Each image is one digit from 0 to
    9, white on black.

    Parameters
    ----------
    directory : str or path-like, optional
        A folder with IDX files, gzip-compressed or not, to read instead of the bundled files: the
        folder of the four files, or the root of a torchvision data set, which stores them in
        ``raw/`` or ``MNIST/raw/``. This reads any data set of 28 × 28 images in 10 classes with
        MNIST's file names.
    normalize : bool, default True
        Whether to scale the pixels to [0, 1] and to standardise them with MNIST's mean and standard
        deviation, ``(pixel / 255 - 0.1307) / 0.3081``. If False, the pixels are the stored bytes.
    download : bool, default False
        Whether to download MNIST through torchvision into ``directory`` if it is not there.

    Returns
    -------
    train, test : tuple of (images, labels)
        ``images`` has shape (N, 1, 28, 28) and dtype float32, or uint8 if `normalize` is False.
        ``labels`` has shape (N,) and dtype int64.

    Raises
    ------
    ValueError
        If a file is damaged, has contents that do not match its name, or does not fit the other
        files; or if `download` is True without a `directory`.
    FileNotFoundError
        If a file is missing and `download` is False.
    ImportError
        If a download needs torchvision and it is not installed.
    OSError
        If torchvision cannot download the files.

    Notes
    -----
    The arrays of both splits take 220 MB (220,080,000 bytes); the peak while they are loaded is
    25 MB higher. With ``normalize=False`` they take 55 MB (55,440,000 bytes); the peak is 1 MB
    higher.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE 86(11), 2278-2324, 1998.

    Examples
    --------
    >>> import nnlite as nn
    >>> train, test = nn.datasets.mnist()
    >>> images, labels = train
    >>> images.shape, images.dtype, labels[:10]
    ((60000, 1, 28, 28), dtype('float32'), array([5, 0, 4, 1, 9, 2, 1, 3, 1, 4]))
    """
    if directory is None:
        if download:
            raise ValueError(
                "mnist: download=True needs a directory to download to; "
                "without one the bundled files are read, which need no download"
            )
        directory = os.path.dirname(__file__)
    return _load(_MNIST, directory, normalize, download)


def fashion_mnist(
    directory: str | os.PathLike[str], *, normalize: bool = True, download: bool = False
) -> tuple[Split, Split]:
    """Load Fashion-MNIST as ``(train_images, train_labels), (test_images, test_labels)``.

    Photographs of clothing in the format of MNIST: 60,000 training and 10,000 test images in ten
    classes, which are harder to distinguish than digits. The files are not bundled.

    Parameters
    ----------
    directory : str or path-like
        The folder of the four IDX files, gzip-compressed or not, or the root of a torchvision data
        set, which stores them in ``FashionMNIST/raw/``.
    normalize : bool, default True
        Whether to scale and standardise the pixels, ``(pixel / 255 - 0.2860) / 0.3530``. If False,
        the pixels are the stored bytes.
    download : bool, default False
        Whether to download it through torchvision into ``directory`` if it is not there.

    Returns
    -------
    train, test : tuple of (images, labels)
        As in `mnist`. Labels 0 to 9: T-shirt, trouser, pullover, dress, coat, sandal, shirt,
        sneaker, bag, ankle boot.

    Raises
    ------
    ValueError, FileNotFoundError, ImportError, OSError
        As in `mnist`.

    References
    ----------
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
    learning algorithms", arXiv:1708.07747, 2017.

    Examples
    --------
    After ``torchvision.datasets.FashionMNIST("data", download=True)``, or with ``download=True``:
    ``train, test = nn.datasets.fashion_mnist("data")``.
    """
    return _load(_FASHION, directory, normalize, download)


class _Source(NamedTuple):
    """A data set in MNIST's format: nnlite's name, torchvision's name, and its statistics."""

    function: str
    name: str
    mean: float
    std: float
    cure: str


_MNIST = _Source(
    "mnist",
    "MNIST",
    MNIST_MEAN,
    MNIST_STD,
    "leave the directory out to read the files bundled with nnlite",
)
_FASHION = _Source(
    "fashion_mnist",
    "FashionMNIST",
    0.2860,
    0.3530,
    "get the four files from https://github.com/zalandoresearch/fashion-mnist",
)


def _load(
    source: _Source, directory: str | os.PathLike[str], normalize: bool, download: bool
) -> tuple[Split, Split]:
    files = _find(source, os.fspath(directory), download)
    splits: dict[str, Split] = {}

    def read(name: str, images: str, labels: str) -> None:
        splits[name] = _read_split(images, labels)

    # In parallel, since most of the time is decompression, which releases the interpreter lock.
    threads.run([partial(read, "train", *files[:2]), partial(read, "test", *files[2:])])
    if normalize:
        for name in ("train", "test"):
            pixels, labels = splits.pop(name)
            splits[name] = standardized(pixels, source.mean, source.std), labels
            del pixels
    return splits["train"], splits["test"]


def _find(source: _Source, directory: str, download: bool) -> list[str]:
    """Return the paths of the four files, after a download if one is missing and `download`."""
    folders = [os.path.join(directory, *below) for below in ((), ("raw",), (source.name, "raw"))]
    found_in = {folder: _files_in(folder) for folder in folders}
    folder, found = max(found_in.items(), key=lambda item: len(item[1]))
    missing = [name for name in _FILES if name not in found]
    if not missing:
        return [found[name] for name in _FILES]
    if download:
        _download(source, directory)
        return _find(source, directory, download=False)
    raise FileNotFoundError(
        f"{folder}: no {' and no '.join(missing)}, with or without .gz; give the folder that holds "
        f"{source.name}'s four files or {source.name}/raw, download them with download=True, or "
        f"{source.cure}"
    )


def _files_in(folder: str) -> dict[str, str]:
    """Return the path of each of the four files that exists, preferring uncompressed ones."""
    found = {}
    for name in _FILES:
        for path in (os.path.join(folder, name), os.path.join(folder, f"{name}.gz")):
            if os.path.isfile(path):
                found[name] = path
                break
    return found


def _download(source: _Source, directory: str) -> None:
    try:
        # Imported here and by name: torchvision is an optional extra.
        torchvision_datasets = importlib.import_module("torchvision.datasets")
    except ImportError as error:
        raise ImportError(
            f"{source.function}: download=True needs torchvision; install it with "
            f"pip install torchvision, or {source.cure}"
        ) from error
    try:
        getattr(torchvision_datasets, source.name)(directory, download=True)
    except RuntimeError as error:
        raise OSError(
            f"{source.function}: the download of {source.name} to {directory} failed, no mirror of "
            f"torchvision's gave it; {source.cure}"
        ) from error


def _read_split(images_path: str, labels_path: str) -> Split:
    labels = read_idx(labels_path)
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise ValueError(
            f"{labels_path}: expected labels, uint8 of shape (N,), "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if labels.size == 0:
        raise ValueError(f"{labels_path}: it holds no labels")
    if labels.max() > 9:
        raise ValueError(f"{labels_path}: expected labels from 0 to 9, got {labels.max()}")
    pixels = read_idx(images_path)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (28, 28):
        raise ValueError(
            f"{images_path}: expected images, uint8 of shape (N, 28, 28), "
            f"got {pixels.dtype} of shape {pixels.shape}"
        )
    if len(pixels) != len(labels):
        raise ValueError(
            f"{images_path}: expected an image for each of the {len(labels)} labels in "
            f"{os.path.basename(labels_path)}, got {len(pixels)} images"
        )
    return pixels.reshape(-1, 1, 28, 28), labels.astype(np.int64)


def standardized(
    pixels: NDArray[np.uint8], mean: float | NDArray[Any], std: float | NDArray[Any]
) -> NDArray[np.float32]:
    """Return the pixels scaled to [0, 1], minus `mean`, divided by `std`."""
    images = np.empty(pixels.shape, np.float32)

    def compute(start: int, stop: int) -> None:
        for first in range(start, stop, _IMAGES_OF_BLOCK):
            block = slice(first, min(first + _IMAGES_OF_BLOCK, stop))
            # The order of operations of torchvision's ToTensor and Normalize, for the same bits.
            image = np.divide(pixels[block], 255, out=images[block], dtype=np.float32)
            image -= mean
            image /= std

    share(compute, len(pixels), images.nbytes)
    return images
