"""Train in nnlite, load the weights into PyTorch, and compare the predictions."""

import torch
from safetensors.torch import load_file

import nnlite


def make(nn):
    """Return the network, of nnlite's layers or of PyTorch's."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1352, 10),
    )


nnlite.seed(0)
(images, labels), (test_images, test_labels) = nnlite.datasets.mnist()
model = make(nnlite)
optimizer = nnlite.Adam(model.parameters(), lr=0.003)
loader = nnlite.DataLoader(images[:10_000], labels[:10_000], batch_size=100, shuffle=True)
nnlite.fit(model, nnlite.CrossEntropy(), optimizer, loader)
nnlite.save(model, "weights.safetensors")

module = make(torch.nn).eval()
module.load_state_dict(load_file("weights.safetensors"))
logits = nnlite.predict(model, test_images)
with torch.no_grad():
    answers = module(torch.from_numpy(test_images)).numpy()
print(f"the largest difference: {abs(answers - logits).max():.1e}")
print(f"accuracy in nnlite {nnlite.accuracy(logits, test_labels):.2%}")
print(f"accuracy in PyTorch {nnlite.accuracy(answers, test_labels):.2%}")
