"""MNIST: 70,000 handwritten digits, bundled with the package so that no network is needed."""

from __future__ import annotations

import importlib
import os
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine import threads
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

Split = tuple[NDArray[Any], NDArray[np.int64]]


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
        MNIST's file names, such as FashionMNIST from ``root/FashionMNIST``.
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
    files = _find(os.fspath(directory), download)
    splits: dict[str, Split] = {}

    def read(name: str, images: str, labels: str) -> None:
        splits[name] = _read_split(images, labels)

    # In parallel, since most of the time is decompression, which releases the interpreter lock.
    threads.run([partial(read, "train", *files[:2]), partial(read, "test", *files[2:])])
    if normalize:
        for name in ("train", "test"):
            pixels, labels = splits.pop(name)
            splits[name] = _normalized(pixels), labels
            del pixels
    return splits["train"], splits["test"]


def _find(directory: str, download: bool) -> list[str]:
    """Return the paths of the four files, after a download if one is missing and `download`."""
    folders = [os.path.join(directory, *below) for below in ((), ("raw",), ("MNIST", "raw"))]
    found_in = {folder: _files_in(folder) for folder in folders}
    folder, found = max(found_in.items(), key=lambda item: len(item[1]))
    missing = [name for name in _FILES if name not in found]
    if not missing:
        return [found[name] for name in _FILES]
    if download:
        _download(directory)
        return _find(directory, download=False)
    raise FileNotFoundError(
        f"{folder}: no {' and no '.join(missing)}, with or without .gz; give the folder that holds "
        "MNIST's four files or MNIST/raw, download them with download=True, or leave the directory "
        "out to read the files bundled with nnlite"
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


def _download(directory: str) -> None:
    try:
        # Imported here and by name: torchvision is an optional extra.
        torchvision_datasets = importlib.import_module("torchvision.datasets")
    except ImportError as error:
        raise ImportError(
            "mnist: download=True needs torchvision; install it with pip install torchvision, or "
            "leave the directory out to read the files bundled with nnlite"
        ) from error
    try:
        torchvision_datasets.MNIST(directory, download=True)
    except RuntimeError as error:
        raise OSError(
            f"mnist: the download of MNIST to {directory} failed, no mirror of torchvision's gave "
            "it; leave the directory out to read the files bundled with nnlite"
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


def _normalized(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    # The order of operations of torchvision's ToTensor and Normalize, for the same bits.
    images = np.divide(pixels, 255, dtype=np.float32)
    images -= MNIST_MEAN
    images /= MNIST_STD
    return images
