"""PyTorch with torchvision's data set and transforms."""

import sys

from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from .mnist_torch import make_model, train_epoch

__all__ = ["make_loader", "make_model", "train_epoch"]


def make_loader(folder, shuffle=True):
    """Return batches of normalised training images and their labels."""
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    data = datasets.MNIST(folder, train=True, transform=transform)
    return DataLoader(data, batch_size=128, shuffle=shuffle)


if __name__ == "__main__":
    train_epoch(make_model(), make_loader(sys.argv[1]))
