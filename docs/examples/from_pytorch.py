"""Load weights written by PyTorch, and compare the logits with PyTorch's."""

from pathlib import Path

import nnlite as nn

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
model.load_state_dict(nn.load_state(Path(__file__).with_name("digits.safetensors")))
expected = nn.load_state(Path(__file__).with_name("logits.safetensors"))["logits"]

_, (images, labels) = nn.datasets.mnist()
logits = nn.predict(model, images)
difference = abs(logits[:500] - expected).max()
print(f"PyTorch's first logits: {expected[0, :4]}")
print(f"nnlite's first logits:  {logits[0, :4]}")
print(f"the largest difference among {expected.size}: {difference:.1e}")
print(f"the same answers: {(logits[:500].argmax(axis=1) == expected.argmax(axis=1)).all()}")
print(f"accuracy on all {len(images)} test images: {nn.accuracy(logits, labels):.2%}")
