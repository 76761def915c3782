"""Train an autoencoder that compresses digits to two numbers."""

import matplotlib.pyplot as plt
import numpy as np

import nnlite as nn

nn.seed(0)

# ---- images ----

(train, _), (test, labels) = nn.datasets.mnist(normalize=False)
train = train.reshape(-1, 784) / np.float32(255)
test = test.reshape(-1, 784) / np.float32(255)

# ---- network ----

encoder = nn.Sequential(
    nn.Linear(784, 256),
    nn.ReLU(),
    nn.Linear(256, 64),
    nn.ReLU(),
    nn.Linear(64, 2),
    nn.BatchNorm1d(2, affine=False),
)
decoder = nn.Sequential(
    nn.Linear(2, 64),
    nn.ReLU(),
    nn.Linear(64, 256),
    nn.ReLU(),
    nn.Linear(256, 784),
    nn.Sigmoid(),
)
model = nn.Sequential(encoder, decoder)

# ---- training ----

loss = nn.MeanSquaredError()
optimizer = nn.Adam(model.parameters(), lr=0.002)
loader = nn.DataLoader(train, train, batch_size=128, shuffle=True)
nn.fit(model, loss, optimizer, loader, epochs=3, validation=(test, test))

# ---- principal components ----

mean = train.mean(axis=0)
eigenvectors = np.linalg.eigh(np.cov(train.T))[1]
directions = eigenvectors[:, -2:]  # those of the two largest eigenvalues
linear = mean + (test - mean) @ directions @ directions.T
print(f"two principal components: loss {loss(linear, test):.4f}")

# ---- figure ----


def show(axes, images):
    """Show an array of images (rows, columns, 784) as one picture."""
    rows, columns, _ = images.shape
    tiles = images.reshape(rows, columns, 28, 28).swapaxes(1, 2)
    axes.imshow(tiles.reshape(28 * rows, 28 * columns), cmap="gray_r", vmin=0, vmax=1)
    axes.set_axis_off()


figure, axes = plt.subplot_mosaic("00;12", figsize=(9, 7), height_ratios=[2, 3])
figure.set_layout_engine("constrained")

first = [list(labels).index(digit) for digit in range(10)]
show(axes["0"], np.stack([test[first], nn.predict(model, test[first]), linear[first]]))

codes = nn.predict(encoder, test)
for digit in range(10):
    x, y = codes[labels == digit][:200].T
    axes["1"].plot(x, y, linestyle="", marker=f"${digit}$", markersize=6, markeredgewidth=0)
axes["1"].set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal", xticks=[], yticks=[])

grid = np.stack(np.meshgrid(np.linspace(-2, 2, 16), np.linspace(2, -2, 16)), axis=-1)
plane = nn.predict(decoder, grid.reshape(-1, 2).astype(np.float32))
show(axes["2"], plane.reshape(16, 16, 784))
figure.savefig("autoencoder.svg")
