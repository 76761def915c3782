"""CIFAR-10, 60,000 colour photographs in ten classes, read from its binary files."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from .digits import Split, standardized

_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = ("test_batch.bin",)
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32  # the label, then the pixels

# Mean and standard deviation of the training pixels, scaled to [0, 1], for each channel.
_MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32).reshape(3, 1, 1)
_STD = np.array([0.2470, 0.2435, 0.2616], np.float32).reshape(3, 1, 1)


def cifar10(directory: str | os.PathLike[str], *, normalize: bool = True) -> tuple[Split, Split]:
    """Load CIFAR-10 as ``(train_images, train_labels), (test_images, test_labels)``.

    The training split has 50,000 images, the test split 10,000. They are read from the unpacked
    binary version, `cifar-10-binary.tar.gz`. The Python version, which torchvision downloads,
    consists of pickles. Loading a pickle can run any code in it, so nnlite does not read them. If
    you trust the files, use torchvision:
    ``from_torchvision(torchvision.datasets.CIFAR10("data"))``.

    Parameters
    ----------
    directory : str or path-like
        The folder of the six files, or the one that contains it as ``cifar-10-batches-bin/``.
    normalize : bool, default True
        Whether to scale the pixels to [0, 1] and to standardise each channel with the mean
        (0.4914, 0.4822, 0.4465) and the standard deviation (0.2470, 0.2435, 0.2616) of the training
        split. If False, the pixels are the stored bytes.

    Returns
    -------
    train, test : tuple of (images, labels)
        ``images`` has shape (N, 3, 32, 32) and dtype float32, or uint8 if `normalize` is False.
        ``labels`` has shape (N,) and dtype int64: airplane, automobile, bird, cat, deer, dog, frog,
        horse, ship, truck.

    Raises
    ------
    ValueError
        If a file is damaged.
    FileNotFoundError
        If a file is missing.

    Notes
    -----
    The images take 737 MB as float32, 184 MB as bytes. A file is a sequence of records of 3073
    bytes: the label, then the red, the green and the blue pixels, each row by row.

    References
    ----------
    A. Krizhevsky, "Learning multiple layers of features from tiny images", technical report,
    University of Toronto, 2009. https://www.cs.toronto.edu/~kriz/cifar.html

    Examples
    --------
    With the files in ``data/cifar-10-batches-bin``: ``train, test = nn.datasets.cifar10("data")``.
    """
    folder = _find(os.fspath(directory))
    train, test = (_read_split(folder, names, normalize) for names in (_TRAIN, _TEST))
    return train, test


def _find(directory: str) -> str:
    """Return the folder that contains all six files."""
    folders = (directory, os.path.join(directory, "cifar-10-batches-bin"))
    missing = {
        folder: [
            name for name in (*_TRAIN, *_TEST) if not os.path.isfile(os.path.join(folder, name))
        ]
        for folder in folders
    }
    folder = min(folders, key=lambda folder: len(missing[folder]))
    if not missing[folder]:
        return folder
    message = f"{folder}: no {' and no '.join(missing[folder])}"
    if os.path.isdir(os.path.join(directory, "cifar-10-batches-py")):
        message += "; the files in cifar-10-batches-py are pickles, which nnlite does not load"
    raise FileNotFoundError(
        f"{message}; unpack https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz there, or use "
        "from_torchvision(torchvision.datasets.CIFAR10(...))"
    )


def _read_split(folder: str, names: tuple[str, ...], normalize: bool) -> Split:
    records = np.concatenate([_read(os.path.join(folder, name)) for name in names])
    labels = records[:, 0].astype(np.int64)
    pixels = records[:, 1:].reshape(-1, *_SHAPE)
    return standardized(pixels, _MEAN, _STD) if normalize else pixels, labels


def _read(path: str) -> NDArray[np.uint8]:
    """Return the records of a file, of shape (N, 3073)."""
    size = os.path.getsize(path)
    if not size or size % _RECORD:
        raise ValueError(
            f"{path}: expected records of {_RECORD} bytes, a label and its pixels, got {size}"
        )
    records = np.fromfile(path, np.uint8).reshape(-1, _RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"{path}: expected labels from 0 to 9, got {records[:, 0].max()}")
    return records
