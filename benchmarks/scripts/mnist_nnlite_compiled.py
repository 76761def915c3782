"""nnlite with its own copy of MNIST, and the training step compiled."""

import nnlite as nn

from .mnist_nnlite import make_loader, make_model

__all__ = ["make_loader", "make_model", "train_epoch"]


def train_epoch(model, loader):
    """Train on every batch once; return the last loss."""
    optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = nn.compile(model, nn.CrossEntropy(), optimizer)
    for images, labels in loader:
        value = step(images, labels)
    return value


if __name__ == "__main__":
    train_epoch(make_model(), make_loader())
