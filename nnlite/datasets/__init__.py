"""Data sets as plain arrays: a pair ``(images, labels)`` per split, ready for a `DataLoader`."""

from .digits import MNIST_MEAN, MNIST_STD, mnist
from .idx import read_idx
from .vision import from_torchvision

__all__ = ["MNIST_MEAN", "MNIST_STD", "from_torchvision", "mnist", "read_idx"]
