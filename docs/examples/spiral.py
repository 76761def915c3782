"""Classify points on three arms of a spiral with two hidden layers."""

import matplotlib.pyplot as plt
import numpy as np

import nnlite as nn

rng = np.random.default_rng(0)
nn.seed(0)


def spiral(samples):
    """Return points of the plane, and on which of three noisy arms each of them lies."""
    arms = rng.integers(3, size=samples)
    radius = rng.uniform(0.1, 1, samples)
    angle = 8 * radius + 2 * np.pi / 3 * arms + 0.2 * rng.normal(size=samples)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points.astype(np.float32), arms


train, test = spiral(1000), spiral(2000)
loader = nn.DataLoader(*train, batch_size=50, shuffle=True)
layers = nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3)
model = nn.Sequential(*layers)
optimizer = nn.Adam(model.parameters(), lr=0.01)
nn.fit(model, nn.CrossEntropy(), optimizer, loader, epochs=100, progress=False)
print(f"accuracy on new points: {nn.accuracy(nn.predict(model, test[0]), test[1]):.2%}")

x, y = np.meshgrid(np.linspace(-1.2, 1.2, 400), np.linspace(-1.2, 1.2, 400))
plane = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
regions = nn.predict(model, plane).argmax(axis=1).reshape(x.shape)
colors = np.array(["tab:blue", "tab:orange", "tab:green"])
figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
axes.contourf(x, y, regions, levels=[-0.5, 0.5, 1.5, 2.5], colors=colors, alpha=0.25)
axes.contour(x, y, regions, levels=[0.5, 1.5], colors="white")
axes.scatter(*train[0].T, c=colors[train[1]], s=20, edgecolors="white", linewidths=0.5)
axes.set_aspect("equal")
axes.set_axis_off()
figure.savefig("spiral.svg")
