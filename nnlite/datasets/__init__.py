"""Data sets as plain arrays: a pair of arrays per split, ready for a `DataLoader`."""

from .cifar import cifar10
from .digits import MNIST_MEAN, MNIST_STD, fashion_mnist, mnist
from .idx import read_idx
from .synthetic import make_blobs, make_circles, make_moons, make_sine, make_spirals, make_xor
from .vision import from_torchvision

__all__ = [
    "MNIST_MEAN",
    "MNIST_STD",
    "cifar10",
    "fashion_mnist",
    "from_torchvision",
    "make_blobs",
    "make_circles",
    "make_moons",
    "make_sine",
    "make_spirals",
    "make_xor",
    "mnist",
    "read_idx",
]
