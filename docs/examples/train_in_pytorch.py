"""Train in PyTorch, and write the weights and the logits of test images to files."""

import torch
from safetensors.torch import save_file
from torch import nn

from nnlite import datasets

torch.manual_seed(0)
train, test = datasets.mnist()
images, labels, test_images = map(torch.from_numpy, (*train, test[0]))
model = nn.Sequential(
    nn.Conv2d(1, 8, 3),
    nn.BatchNorm2d(8),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(400, 10),
)
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
for order in torch.randperm(len(images)).split(100):
    loss = nn.functional.cross_entropy(model(images[order]), labels[order])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

model.eval()
with torch.no_grad():
    save_file({"logits": model(test_images[:500])}, "logits.safetensors")
save_file(model.state_dict(), "digits.safetensors")
