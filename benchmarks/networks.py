"""The networks of the cases, in the style of each library.

nnlite has PyTorch's names, so most networks are built by the same code: `build` gets ``nnlite`` or
``torch.nn``. The weights have the same names too. JAX has no layers; its functions take the weights
by their names in the state dict.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

Weights = Mapping[str, Any]


class Network(ABC):
    """A classifier of ten classes.

    Attributes
    ----------
    name : str
    input_shape : tuple of int
        The shape of one sample.
    has_jax : bool
        Whether there is a version in JAX.
    """

    name: str
    input_shape: tuple[int, ...]
    has_jax: bool = True

    def build(self, nn: Any) -> Any:
        """Return the model in nnlite or in PyTorch, if both have the same code."""
        raise NotImplementedError(f"{self.name}: define build, or nnlite and torch")

    def nnlite(self, nn: Any) -> Any:
        """Return the nnlite model; `nn` is the module ``nnlite``."""
        return self.build(nn)

    def torch(self, nn: Any) -> Any:
        """Return the PyTorch model; `nn` is the module ``torch.nn``."""
        return self.build(nn)

    def jax(self, jax: Any, weights: Weights, x: Any) -> Any:
        """Return the logits in JAX; `jax` is the module."""
        raise NotImplementedError(f"{self.name}: there is no version in JAX")


class MLP(Network):
    """A multilayer perceptron: linear layers of these sizes, with ReLU in between."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.name = f"MLP {'-'.join(map(str, sizes))}"
        self.input_shape = sizes[:1]

    def build(self, nn: Any) -> Any:
        layers: list[Any] = []
        for in_features, out_features in pairwise(self.sizes):
            layers += [nn.Linear(in_features, out_features), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def jax(self, jax: Any, weights: Weights, x: Any) -> Any:
        *hidden, last = range(0, 2 * len(self.sizes) - 2, 2)
        for layer in hidden:
            x = jax.nn.relu(_linear(weights, layer, x))
        return _linear(weights, last, x)


class LeNet(Network):
    """Two convolutions with pooling and three linear layers.

    After Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE 86, 1998; with ReLU and max pooling, as is usual today.
    """

    name = "LeNet"
    input_shape = (1, 28, 28)

    def build(self, nn: Any) -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 10),
        )  # fmt: skip

    def jax(self, jax: Any, weights: Weights, x: Any) -> Any:
        x = _pooled(jax, jax.nn.relu(_convolution(jax, weights, 0, x, padding=2)))
        x = _pooled(jax, jax.nn.relu(_convolution(jax, weights, 3, x)))
        x = jax.nn.relu(_linear(weights, 7, x.reshape(len(x), -1)))
        return _linear(weights, 9, x)


class ExampleCNN(Network):
    """The network of PyTorch's own MNIST example, without its dropout.

    See https://github.com/pytorch/examples/blob/main/mnist/main.py
    """

    name = "PyTorch example CNN"
    input_shape = (1, 28, 28)

    def build(self, nn: Any) -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(),
            nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip

    def jax(self, jax: Any, weights: Weights, x: Any) -> Any:
        x = jax.nn.relu(_convolution(jax, weights, 0, x))
        x = _pooled(jax, jax.nn.relu(_convolution(jax, weights, 2, x)))
        x = jax.nn.relu(_linear(weights, 6, x.reshape(len(x), -1)))
        return _linear(weights, 8, x)


class NormalizedCNN(Network):
    """The same network with batch normalisation instead of the bias of each convolution."""

    name = "PyTorch example CNN with batch norm"
    input_shape = (1, 28, 28)
    has_jax = False  # it would need the running statistics as additional state

    def build(self, nn: Any) -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip


class GroupNormalizedCNN(NormalizedCNN):
    """The same network with group normalisation, in groups of eight channels."""

    name = "PyTorch example CNN with group norm"

    def build(self, nn: Any) -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, bias=False), nn.GroupNorm(4, 32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, bias=False), nn.GroupNorm(8, 64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip


class SeparableCNN(Network):
    """Two depthwise convolutions, each followed by a convolution of single pixels, as in MobileNet.

    After A. Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision
    applications", arXiv:1704.04861.
    """

    name = "CNN of depthwise convolutions"
    input_shape = (1, 28, 28)
    has_jax = False

    def build(self, nn: Any) -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Conv2d(32, 64, 1), nn.ReLU(),
            nn.Conv2d(64, 64, 3, 2, 1, groups=64), nn.Conv2d(64, 64, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(3136, 10),
        )  # fmt: skip


class TransposedCNN(Network):
    """A convolution that halves the image, and a transposed one that doubles it again."""

    name = "CNN with a transposed convolution"
    input_shape = (1, 28, 28)
    has_jax = False

    def build(self, nn: Any) -> Any:
        return nn.Sequential(
            nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(3136, 10),
        )  # fmt: skip


class RowTransformer(Network):
    """A layer of a transformer over the rows of an image, four heads of 32 features."""

    name = "Transformer layer 28x128"
    input_shape = (28, 128)
    has_jax = False

    def nnlite(self, nn: Any) -> Any:
        return self._model(nn, nn.TransformerEncoderLayer(128, 4, 256, dropout=0.0))

    def torch(self, nn: Any) -> Any:
        layer = nn.TransformerEncoderLayer(128, 4, 256, dropout=0.0, batch_first=True)
        return self._model(nn, layer)

    def _model(self, nn: Any, layer: Any) -> Any:
        return nn.Sequential(layer, nn.Flatten(), nn.Linear(28 * 128, 10))


class _OfRows(Network):
    """A recurrent network that reads an image row by row and classifies the last state."""

    input_shape = (28, 28)
    cell: str

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.cell} 28x28-128-10"

    def nnlite(self, nn: Any) -> Any:
        return nn.Sequential(getattr(nn, self.cell)(28, 128, outputs="last"), nn.Linear(128, 10))

    def torch(self, nn: Any) -> Any:
        class LastOutput(getattr(nn, self.cell)):  # type: ignore[misc]
            def forward(self, x: Any) -> Any:
                outputs, _ = super().forward(x)
                return outputs[:, -1]

        return nn.Sequential(LastOutput(28, 128, batch_first=True), nn.Linear(128, 10))


class RowRNN(_OfRows):
    """The plain cell."""

    cell = "RNN"

    def jax(self, jax: Any, weights: Weights, x: Any) -> Any:
        inputs = x @ weights["0.weight_ih_l0"].T + weights["0.bias_ih_l0"]

        def advance(state: Any, given: Any) -> Any:
            state = given + state @ weights["0.weight_hh_l0"].T + weights["0.bias_hh_l0"]
            return jax.numpy.tanh(state), None

        first = jax.numpy.zeros((len(x), 128), x.dtype)
        last, _ = jax.lax.scan(advance, first, inputs.swapaxes(0, 1))
        return _linear(weights, 1, last)


class RowLSTM(_OfRows):
    """Long short-term memory."""

    cell = "LSTM"

    def jax(self, jax: Any, weights: Weights, x: Any) -> Any:
        inputs = x @ weights["0.weight_ih_l0"].T + weights["0.bias_ih_l0"]

        def advance(state: Any, given: Any) -> Any:
            hidden, memory = state
            sums = given + hidden @ weights["0.weight_hh_l0"].T + weights["0.bias_hh_l0"]
            i, f, g, o = jax.numpy.split(sums, 4, axis=1)
            memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
            return (jax.nn.sigmoid(o) * jax.numpy.tanh(memory), memory), None

        zeros = jax.numpy.zeros((len(x), 128), x.dtype)
        (last, _), _ = jax.lax.scan(advance, (zeros, zeros), inputs.swapaxes(0, 1))
        return _linear(weights, 1, last)


class RowGRU(_OfRows):
    """Gated recurrent unit."""

    cell = "GRU"

    def jax(self, jax: Any, weights: Weights, x: Any) -> Any:
        inputs = x @ weights["0.weight_ih_l0"].T + weights["0.bias_ih_l0"]

        def advance(state: Any, given: Any) -> Any:
            sums = state @ weights["0.weight_hh_l0"].T + weights["0.bias_hh_l0"]
            (r, z, n), (h_r, h_z, h_n) = (
                jax.numpy.split(terms, 3, axis=1) for terms in (given, sums)
            )
            reset, update = jax.nn.sigmoid(r + h_r), jax.nn.sigmoid(z + h_z)
            new = jax.numpy.tanh(n + reset * h_n)
            return new + update * (state - new), None

        first = jax.numpy.zeros((len(x), 128), x.dtype)
        last, _ = jax.lax.scan(advance, first, inputs.swapaxes(0, 1))
        return _linear(weights, 1, last)


def _linear(weights: Weights, layer: int, x: Any) -> Any:
    return x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]


def _convolution(jax: Any, weights: Weights, layer: int, x: Any, padding: int = 0) -> Any:
    x = jax.lax.conv_general_dilated(x, weights[f"{layer}.weight"], (1, 1), [(padding,) * 2] * 2)
    return x + weights[f"{layer}.bias"][:, None, None]


def _pooled(jax: Any, x: Any) -> Any:
    window = (1, 1, 2, 2)
    return jax.lax.reduce_window(x, -jax.numpy.inf, jax.lax.max, window, window, "VALID")
