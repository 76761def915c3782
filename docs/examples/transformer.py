"""Train a small transformer on Shakespeare's sonnets, character by character."""

from pathlib import Path

import numpy as np

import nnlite as nn

rng = np.random.default_rng(0)
nn.seed(0)
text = Path(__file__).with_name("sonnets.txt").read_text(encoding="ascii")
alphabet, codes = np.unique(list(text), return_inverse=True)
inputs, targets = codes[:-1], codes[1:]
train = [array[:86_000].reshape(-1, 50) for array in (inputs, targets)]
test = tuple(array[86_000:94_600].reshape(-1, 50) for array in (inputs, targets))
loader = nn.DataLoader(*train, batch_size=16, shuffle=True)
options = {"activation": "gelu", "norm_first": True, "is_causal": True}
layers = [nn.TransformerEncoderLayer(64, 4, 128, 0.0, **options) for _ in range(2)]
first = nn.Embedding(61, 64), nn.LearnedPositions(50, 64)
last = nn.LayerNorm(64), nn.Linear(64, 61), nn.Permute(0, 2, 1)  # classes before steps
model = nn.Sequential(*first, *layers, *last)
loss, optimizer = nn.CrossEntropy(), nn.Adam(model.parameters(), lr=0.003)


def write(length, temperature=0.6):
    """Print characters, each drawn from what the model expects after the last 50."""
    written = [0]  # code 0 is the end of a line
    for _ in range(length):
        logits = nn.predict(model, np.array([written[-50:]]))[0, :, -1].astype(float)
        scores = np.exp(logits / temperature)  # below 1: safer text
        written.append(rng.choice(61, p=scores / scores.sum()))
    print("".join(alphabet[written[1:]]), end="\n\n")


for epochs in (0, 1, 7):
    nn.fit(model, loss, optimizer, loader, epochs=epochs, progress=False)
    test_loss = nn.evaluate(model, loss, test)["loss"]
    print(f"--- epoch {loader.epoch}, test loss {test_loss:.2f} ---")
    write(400)
