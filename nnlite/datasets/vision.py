"""``from_torchvision``: convert a data set of single images into arrays."""

from __future__ import annotations

import operator
import reprlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray


class MapDataset(Protocol):
    """A data set with a length and an index, such as those of torchvision, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def from_torchvision(
    dataset: MapDataset, *, dtype: DTypeLike = np.float32, progress: bool = True
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Read an image-classification data set of torchvision into ``(images, labels)``.

    A torchvision data set decodes and transforms an image each time it is accessed. This function
    does so once, and epochs then iterate over arrays. A random transform is therefore applied only
    once too; use the `transform` of `DataLoader` for augmentation.

    Neither torchvision nor torch is imported: any sequence of ``(image, label)`` pairs works.

    Parameters
    ----------
    dataset : sequence of (image, label)
        An object with a length and an index, such as ``torchvision.datasets.CIFAR10`` or
        ``torch.utils.data.Subset``. Its transform, if it has one, is applied.

        Each image is a PIL image or an array of shape (H, W) or (H, W, C), and is converted as by
        torchvision's ``ToTensor``: channels first, bytes scaled to [0, 1]. A tensor, the result of
        a transform, is used unchanged. All images have the same shape.

        Each label is an integer or a tensor with one integer.
    dtype : data-type, default numpy.float32
        The dtype of the images. With an integer dtype nothing is scaled: uint8 keeps the bytes of a
        data set without a transform, in a quarter of the memory.
    progress : bool, default True
        Whether to show a progress bar on standard error.

    Returns
    -------
    images : ndarray
        Shape (N, C, H, W), or N and the shape of the tensors, C-contiguous.
    labels : ndarray
        Shape (N,), int64.

    Raises
    ------
    TypeError
        If `dataset` has no length or index, or a sample is not a pair of an image and an integer.
    ValueError
        If `dataset` is empty, or images differ in shape.

    Notes
    -----
    The arrays are allocated once, and only one sample at a time is held besides them. The 50,000
    training images of CIFAR-10 take 614 MB as float32 and 154 MB as uint8.

    Examples
    --------
    With torchvision, ``from_torchvision(torchvision.datasets.CIFAR10("data", download=True))``.
    With a list:

    >>> import numpy as np
    >>> import nnlite as nn
    >>> black, white = np.zeros((2, 3), np.uint8), np.full((2, 3), 255, np.uint8)
    >>> images, labels = nn.datasets.from_torchvision([(black, 0), (white, 1)], progress=False)
    >>> images.shape, float(images.max()), labels
    ((2, 1, 2, 3), 1.0, array([0, 1]))
    """
    dtype = np.dtype(dtype)
    if dtype.kind not in "fiu":
        raise TypeError(f"from_torchvision: expected a floating or integer dtype, got {dtype}")
    name = type(dataset).__name__
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            f"from_torchvision: expected a data set with a length and an index, got {name}"
        )
    count = len(dataset)
    if count == 0:
        raise ValueError(f"from_torchvision: {name} is empty")

    labels = np.empty(count, np.int64)
    from tqdm import tqdm  # here, so that `import nnlite` stays fast

    for index in tqdm(range(count), desc=name, unit="image", disable=not progress):
        sample = dataset[index]
        where = f"from_torchvision: sample {index} of {name}"
        try:
            image, labels[index] = _convert(sample, dtype)
        except (TypeError, OverflowError) as error:
            raise TypeError(f"{where}: {error}") from error
        if index == 0:
            images = np.empty((count, *image.shape), dtype)
        elif image.shape != images.shape[1:]:
            raise ValueError(
                f"{where}: expected an image of shape {images.shape[1:]} as before, got "
                f"{image.shape}; give the data set a transform that makes them equal, such as "
                "torchvision.transforms.Resize((height, width))"
            )
        images[index] = image
    return images, labels


def _convert(sample: Any, dtype: np.dtype[Any]) -> tuple[NDArray[Any], int]:
    if not (isinstance(sample, (tuple, list)) and len(sample) == 2):
        raise TypeError(
            f"expected a pair (image, label), got {reprlib.repr(sample)}; only data sets for image "
            "classification can be read"
        )
    image, label = sample
    try:
        class_index = operator.index(label)
    except TypeError as error:
        raise TypeError(
            f"expected an integer label, got {reprlib.repr(label)}; give the data set a "
            "target_transform that makes one"
        ) from error
    return _to_array(image, dtype), class_index


def _to_array(image: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert a PIL image or an array as ToTensor does; return it, or a tensor, in `dtype`."""
    try:
        array: NDArray[Any] = np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"cannot make an array of the image: {error}") from error
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise TypeError(
            f"expected a PIL image, an array or a tensor of numbers, got {reprlib.repr(image)}"
        )
    # Recognise a PIL image by its method, since PIL may not be installed.
    if isinstance(image, np.ndarray) or hasattr(image, "getbands"):
        if array.ndim not in (2, 3):
            raise TypeError(f"expected an image of shape (H, W) or (H, W, C), got {array.shape}")
        array = np.moveaxis(np.atleast_3d(array), 2, 0)
        if array.dtype == np.uint8 and dtype.kind == "f":
            scaled: NDArray[Any] = np.divide(array, 255, dtype=dtype)
            return scaled
    if not np.can_cast(array.dtype, dtype, "same_kind" if dtype.kind == "f" else "safe"):
        raise TypeError(f"cannot keep {array.dtype} pixels as {dtype}; choose another dtype")
    return array.astype(dtype, copy=False)
