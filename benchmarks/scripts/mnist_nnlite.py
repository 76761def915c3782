"""nnlite with its own copy of MNIST."""

import nnlite as nn


def make_loader(shuffle=True):
    """Return batches of normalised training images and their labels."""
    train, _ = nn.datasets.mnist()
    return nn.DataLoader(*train, batch_size=128, shuffle=shuffle)


def make_model():
    """Return the network."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def train_epoch(model, loader):
    """Train on every batch once; return the last loss."""
    loss = nn.CrossEntropy()
    optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for images, labels in loader:
        value = loss(model(images), labels)
        optimizer.zero_grad()
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
    return value


if __name__ == "__main__":
    train_epoch(make_model(), make_loader())
