"""Fit a curve to noisy measurements."""

import matplotlib.pyplot as plt
import numpy as np

import nnlite as nn

rng = np.random.default_rng(0)
nn.seed(0)


# ---- measurements ----


def curve(x):
    """Return the heights at `x`."""
    return np.sin(3 * x) + x**2 / 4


x = rng.uniform(-3, 3, (2500, 1)).astype(np.float32)
y = curve(x) + 0.3 * rng.standard_normal(x.shape, np.float32)
train = x[:500], y[:500]
test = x[500:], y[500:]

# ---- network ----

model = nn.Sequential(
    nn.Linear(1, 64),
    nn.SiLU(),
    nn.Linear(64, 64),
    nn.SiLU(),
    nn.Linear(64, 1),
)
loss = nn.MeanSquaredError()
optimizer = nn.Adam(model.parameters(), lr=0.01)
history = nn.fit(
    model,
    loss,
    optimizer,
    nn.DataLoader(*train, batch_size=50, shuffle=True),
    epochs=200,
    validation=test,
    schedule=nn.CosineAnnealingLR(optimizer, T_max=200),
    progress=False,
)

# ---- error ----

error = history["validation_loss"] ** 0.5
true_error = loss(curve(test[0]), test[1]) ** 0.5
print(f"error on new points: network {error[-1]:.3f}, true curve {true_error:.3f}")

# ---- figure ----

x = np.linspace(-3, 3, 500, dtype=np.float32)[:, None]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")

left.plot(*train, ".", color="lightgray", label="measured")
left.plot(x, curve(x), "--", color="black", label="true curve")
left.plot(x, nn.predict(model, x), color="tab:orange", label="network")
left.legend(frameon=False)

right.plot(history.epochs, history["loss"] ** 0.5, label="training")
right.plot(history.epochs, error, label="new points")
right.axhline(true_error, linestyle="--", color="black", label="true curve")
right.set(xlabel="epoch", ylabel="root mean squared error", ylim=(0, None))
right.legend(frameon=False)
figure.savefig("regression.svg")
