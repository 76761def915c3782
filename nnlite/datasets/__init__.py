"""Data sets as plain arrays, ready for a `DataLoader`: one pair ``(images, labels)`` for each split."""

from nnlite.datasets.digits import MNIST_MEAN, MNIST_STD, mnist
from nnlite.datasets.idx import read_idx
from nnlite.datasets.vision import from_torchvision

__all__ = ["MNIST_MEAN", "MNIST_STD", "from_torchvision", "mnist", "read_idx"]
