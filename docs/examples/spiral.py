"""Classify points on three arms of a spiral with two hidden layers."""

import matplotlib.pyplot as plt
import numpy as np

import nnlite as nn

rng = np.random.default_rng(0)
nn.seed(0)


# ---- points ----


def spiral(samples):
    """Return points of the plane, and on which of three noisy arms each of them lies."""
    arms = rng.integers(3, size=samples)
    radius = rng.uniform(0.1, 1, samples)
    angle = 8 * radius + 2 * np.pi / 3 * arms + 0.2 * rng.normal(size=samples)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points.astype(np.float32), arms


train = spiral(1000)
test = spiral(2000)

# ---- network ----

model = nn.Sequential(
    nn.Linear(2, 64),
    nn.Tanh(),
    nn.Linear(64, 64),
    nn.Tanh(),
    nn.Linear(64, 3),
)
loss = nn.CrossEntropy()
optimizer = nn.Adam(model.parameters(), lr=0.01)
loader = nn.DataLoader(*train, batch_size=50, shuffle=True)
nn.fit(model, loss, optimizer, loader, epochs=100, progress=False)

points, arms = test
print(f"accuracy on new points: {nn.accuracy(nn.predict(model, points), arms):.2%}")

# ---- figure ----

x, y = np.meshgrid(np.linspace(-1.2, 1.2, 400), np.linspace(-1.2, 1.2, 400))
plane = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
regions = nn.predict(model, plane).argmax(axis=1).reshape(x.shape)

colors = np.array(["tab:blue", "tab:orange", "tab:green"])
points, arms = train
figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
axes.contourf(x, y, regions, levels=[-0.5, 0.5, 1.5, 2.5], colors=colors, alpha=0.25)
axes.contour(x, y, regions, levels=[0.5, 1.5], colors="white")
axes.scatter(*points.T, c=colors[arms], s=20, edgecolors="white", linewidths=0.5)
axes.set_aspect("equal")
axes.set_axis_off()
figure.savefig("spiral.svg")
