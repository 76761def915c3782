"""Train a character-level language model on Shakespeare's sonnets."""

from pathlib import Path

import numpy as np

import nnlite as nn

rng = np.random.default_rng(0)
nn.seed(0)

# ---- text ----

text = Path(__file__).with_name("sonnets.txt").read_text(encoding="ascii")
alphabet, codes = np.unique(list(text), return_inverse=True)
inputs = codes[:86_000].reshape(-1, 50)
targets = codes[1:86_001].reshape(-1, 50)
loader = nn.DataLoader(inputs, targets, batch_size=16, shuffle=True)

# ---- network ----

embedding = nn.Embedding(61, 32)
gru = nn.GRU(32, 128)
output = nn.Linear(128, 61)
model = nn.Sequential(embedding, gru, output, nn.Flatten(0, 1))
loss = nn.CrossEntropy()
optimizer = nn.Adam(model.parameters(), lr=0.005)


def train():
    """Train for an epoch."""
    for x, y in loader:
        loss(model(x), y.ravel())
        optimizer.zero_grad()
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()


# ---- writing ----


def write(length):
    """Print characters, each drawn from what the network expects after those before it."""
    code, state = 0, None  # code 0 is the end of a line
    for _ in range(length):
        logits = output(gru(embedding(np.array([[code]])), state))[0, 0].astype(float)
        state = gru.last_state
        scores = np.exp(logits / 0.6)  # temperature below 1: safer text
        code = rng.choice(61, p=scores / scores.sum())
        print(alphabet[code], end="")


# ---- run ----


def report():
    """Print the loss on the last sonnets, and a sample."""
    test_loss = loss(model(codes[None, 86_000:-1]), codes[86_001:])
    print(f"--- epoch {loader.epoch}, test loss {test_loss:.2f} ---")
    write(400)
    print("\n")


report()
train()
report()
for _ in range(5):
    train()
report()
