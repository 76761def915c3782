"""Train an autoencoder that compresses digits to two numbers."""

import matplotlib.pyplot as plt
import numpy as np

import nnlite as nn

nn.seed(0)
(train, _), (test, labels) = nn.datasets.mnist(normalize=False)
train, test = (images.reshape(-1, 784) / np.float32(255) for images in (train, test))

layers = nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 2)
encoder = nn.Sequential(*layers, nn.BatchNorm1d(2, affine=False))
layers = nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 784)
decoder = nn.Sequential(*layers, nn.Sigmoid())
model, loss = nn.Sequential(encoder, decoder), nn.MeanSquaredError()
loader = nn.DataLoader(train, train, batch_size=128, shuffle=True)
optimizer = nn.Adam(model.parameters(), lr=0.002)
nn.fit(model, loss, optimizer, loader, epochs=3, validation=(test, test))

mean, directions = train.mean(axis=0), np.linalg.eigh(np.cov(train.T))[1][:, -2:]
linear = mean + (test - mean) @ directions @ directions.T
print(f"two principal components: loss {loss(linear, test):.4f}")
first = [list(labels).index(digit) for digit in range(10)]
rows = np.stack([test[first], nn.predict(model, test[first]), linear[first]])
codes = nn.predict(encoder, test)
grid = np.stack(np.meshgrid(np.linspace(-2, 2, 16), np.linspace(2, -2, 16)), axis=-1)
plane = nn.predict(decoder, grid.reshape(-1, 2).astype(np.float32)).reshape(16, 16, 784)
figure, axes = plt.subplot_mosaic("00;12", figsize=(9, 7), height_ratios=[2, 3])
figure.set_layout_engine("constrained")
for panel, images in (axes["0"], rows), (axes["2"], plane):
    tiles = images.reshape(*images.shape[:2], 28, 28).swapaxes(1, 2)
    panel.imshow(tiles.reshape(28 * len(images), -1), cmap="gray_r", vmin=0, vmax=1)
    panel.set_axis_off()
for digit in range(10):
    x, y = codes[labels == digit][:200].T
    axes["1"].plot(x, y, linestyle="", marker=f"${digit}$", markersize=6, markeredgewidth=0)
axes["1"].set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal", xticks=[], yticks=[])
figure.savefig("autoencoder.svg")
