"""PyTorch alone: it comes with no data sets, so the files are read by hand into tensors."""

import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_loader(folder, shuffle=True):
    """Return batches of normalised training images and their labels."""
    with gzip.open(Path(folder) / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(Path(folder) / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    images = (torch.tensor(pixels) / 255 - 0.1307) / 0.3081
    data = TensorDataset(images, torch.from_numpy(labels))
    return DataLoader(data, batch_size=128, shuffle=shuffle)


def make_model():
    """Return the network."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def train_epoch(model, loader):
    """Train on every batch once; return the last loss."""
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for images, labels in loader:
        value = loss(model(images), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return value


if __name__ == "__main__":
    train_epoch(make_model(), make_loader(sys.argv[1]))
