"""Random stacks of layers, with random losses and optimizers, train alike compiled and not."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nnlite as nn

STEPS = 12
ACTIVATIONS = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Softplus, nn.SELU, nn.Mish,
    nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign, nn.GELU,
    nn.PReLU, nn.Identity,
)  # fmt: skip


class Stack:
    """Layers that fit behind each other, for an input of the shape ``(N, *shape)``."""

    def __init__(self, rng):
        self.rng, self.layers = rng, []
        start = {
            "features": lambda: (self.number(2, 7),),
            "sequences": lambda: (self.number(3, 7), self.number(2, 5)),
            "tokens": lambda: (self.number(3, 7),),
            "lines": lambda: (self.number(1, 4), self.number(6, 12)),
            "images": lambda: (self.number(1, 4), self.number(6, 10), self.number(6, 10)),
        }
        self.kind = str(rng.choice(list(start)))
        self.shape = self.input_shape = start[self.kind]()
        self.has_tokens = self.kind == "tokens"

    def number(self, first, last):
        return int(self.rng.integers(first, last + 1))

    def flag(self):
        return bool(self.rng.random() < 0.5)

    def one_of(self, *choices):
        return choices[int(self.rng.integers(len(choices)))]

    def add(self, layer):
        self.layers.append(layer)
        sample = np.zeros((2, *self.shape), np.int64 if self.kind == "tokens" else np.float32)
        self.shape = nn.predict(layer, sample).shape[1:]

    def grow(self):
        """Add a layer, and perhaps an activation."""
        getattr(self, self.kind)()
        if self.flag():
            self.add(self.one_of(*ACTIVATIONS)())

    def tokens(self):
        self.add(nn.Embedding(9, self.number(2, 5), rng=self.number(0, 99)))
        self.kind = "sequences"

    def features(self):
        width, seed = self.shape[-1], self.number(0, 99)
        other = nn.Linear(width, self.number(2, 7), self.flag(), rng=seed)
        self.add(
            self.one_of(
                other,
                other,
                nn.BatchNorm1d(width, affine=self.flag()),
                nn.LayerNorm(width),
                nn.RMSNorm(width),
                nn.Dropout(0.3, rng=seed),
                nn.Residual(nn.Linear(width, width, rng=seed), nn.Tanh()),
                nn.Softmax(),
            )
        )

    def sequences(self):
        width, seed = self.shape[-1], self.number(0, 99)
        outputs = self.one_of("all", "last")
        recurrent = self.one_of(nn.RNN, nn.LSTM, nn.GRU)(
            width, self.number(2, 5), num_layers=self.number(1, 2), bidirectional=self.flag(),
            bias=self.flag(), outputs=outputs, rng=seed,
        )  # fmt: skip
        layer = self.one_of(
            recurrent,
            recurrent,
            nn.Linear(width, self.number(2, 5), rng=seed),
            nn.LayerNorm(width),
            nn.MultiheadAttention(width, 1, rng=seed),
            nn.Dropout(0.2, rng=seed),
        )
        self.add(layer)
        if len(self.shape) == 1:
            self.kind = "features"

    def lines(self):
        self._convolved(nn.Conv1d, nn.MaxPool1d, nn.AvgPool1d, nn.BatchNorm1d, nn.InstanceNorm1d)

    def images(self):
        self._convolved(nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.BatchNorm2d, nn.InstanceNorm2d)

    def _convolved(self, convolution, max_pool, avg_pool, batch_norm, instance_norm):
        channels, seed = self.shape[0], self.number(0, 99)
        size = min(self.shape[1:])
        if size < 3:
            self.add(nn.Flatten())
            self.kind = "features"
            return
        groups = self.one_of(1, 1, channels)
        convolved = convolution(
            channels, groups * self.number(1, 3), self.number(1, min(size, 5)),
            stride=self.number(1, 2), padding=self.number(0, 2), groups=groups, bias=self.flag(),
            rng=seed,
        )  # fmt: skip
        self.add(
            self.one_of(
                convolved,
                convolved,
                convolved,
                max_pool(self.number(2, 3), stride=self.number(1, 2), padding=self.number(0, 1)),
                avg_pool(2, stride=self.number(1, 2), padding=self.number(0, 1)),
                batch_norm(channels),
                instance_norm(channels, affine=self.flag()),
                nn.GroupNorm(1, channels),
            )
        )

    def model(self):
        """Return the layers with a last one of three outputs."""
        for _ in range(self.number(1, 5)):
            self.grow()
        if len(self.shape) > 1:
            self.add(nn.Flatten())
        self.add(nn.Linear(self.shape[0], 3, rng=self.number(0, 99)))
        return nn.Sequential(*self.layers)

    def loss(self):
        """Return a loss, and a function that makes targets for a number of samples."""
        labels = lambda n: self.rng.integers(3, size=n)  # noqa: E731
        numbers = lambda n: self.rng.normal(size=(n, 3))  # noqa: E731
        shares = lambda n: self.rng.uniform(size=(n, 3))  # noqa: E731
        reduction = self.one_of("mean", "mean", "sum")
        return self.one_of(
            (nn.CrossEntropy(reduction=reduction), labels),
            (nn.CrossEntropy(label_smoothing=0.1, weight=[1.0, 2.0, 0.5]), labels),
            (nn.Focal(), labels),
            (nn.MultiMargin(), labels),
            (nn.MeanSquaredError(reduction=reduction), numbers),
            (nn.Huber(), numbers),
            (nn.BinaryCrossEntropy(reduction=reduction), shares),
        )

    def optimizer(self):
        """Return a function of parameters that makes an optimizer."""
        kind, options = self.one_of(
            (nn.SGD, {"lr": 0.02}),
            (nn.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": self.flag(), "weight_decay": 0.01}),
            (nn.Adam, {"lr": 0.01, "weight_decay": self.one_of(0.0, 0.01)}),
            (nn.AdamW, {"lr": 0.01}),
            (nn.RMSprop, {"lr": 0.003, "momentum": self.one_of(0.0, 0.5)}),
        )
        return lambda parameters: kind(parameters, **options)

    def inputs(self, n):
        if self.has_tokens:
            return self.rng.integers(9, size=(n, *self.input_shape))
        return self.rng.normal(size=(n, *self.input_shape))


class Run:
    """A model with its loss and its optimizer, compiled or not."""

    def __init__(self, model, loss, optimizer, dtype, max_norm, compiled, native=False):
        self.model, self.dtype, self.max_norm = copy.deepcopy(model).astype(dtype), dtype, max_norm
        self.loss = copy.deepcopy(loss)
        self.optimizer = optimizer(self.model.parameters())
        if compiled:
            self.step = nn.compile(
                self.model, self.loss, self.optimizer, max_grad_norm=max_norm, native=native
            )

    def step(self, x, target):
        value = self.loss(self.model(x), target)
        self.optimizer.zero_grad()
        self.model.backward(self.loss.backward(), input_grad=False)
        if self.max_norm is not None:
            nn.clip_grad_norm(self.model.parameters(), self.max_norm)
        self.optimizer.step()
        return value

    def __call__(self, x, target):
        """Make a step; return the loss, the gradients, and the arrays of the model after it."""
        arrays = [a.astype(self.dtype) if a.dtype.kind == "f" else a for a in (x, target)]
        value = self.step(*arrays)
        gradients = {f"d {name}": p.grad for name, p in self.model.named_parameters()}
        return {"loss": np.float64(value)}, gradients, self.model.state_dict()

    def follow(self, other):
        """Take over the state of another run."""
        self.model.load_state_dict(other.model.state_dict())
        self.optimizer.load_state_dict(other.optimizer.state_dict())


def runs(seed, *options):
    """Return runs of one training, and its batches."""
    stack = Stack(np.random.default_rng(seed))
    model, (loss, targets), optimizer = stack.model(), stack.loss(), stack.optimizer()
    max_norm = stack.one_of(None, None, 0.5)
    sizes = [stack.one_of(4, 6, 6, 6) for _ in range(STEPS)]
    batches = [(stack.inputs(n), targets(n)) for n in sizes]
    made = [Run(model, loss, optimizer, dtype, max_norm, *rest) for dtype, *rest in options]
    return *made, batches


def check_double(seed, native=False):
    """Compare steps from the same state, since Adam makes steps of rounding errors of 0."""
    plain, compiled, batches = runs(seed, (np.float64, False), (np.float64, True, native))
    for batch in batches:
        for atol, expected, found in zip(
            (1e-11, 1e-11, 1e-8), plain(*batch), compiled(*batch), strict=True
        ):
            for name, array in expected.items():
                assert_allclose(found[name], array, rtol=1e-8, atol=atol, err_msg=name)
        compiled.follow(plain)


def check_single(seed, native=False):
    """Compare with gradients in float64: the error may be a few times as large as uncompiled."""
    exact, plain, compiled, batches = runs(
        seed, (np.float64, False), (np.float32, False), (np.float32, True, native)
    )
    for batch in batches:
        for results in list(zip(*[run(*batch) for run in (exact, plain, compiled)], strict=True))[
            :2
        ]:
            scale = max(1e-3, *[np.abs(array).max() for array in results[0].values()])
            for name, wanted in results[0].items():
                usual, error = (np.abs(result[name] - wanted).max() for result in results[1:])
                assert error <= 8 * usual + 2e-6 * scale, name
        for run in (exact, compiled):
            run.follow(plain)


@pytest.mark.parametrize("seed", range(30))
def test_in_double_precision(seed):
    check_double(seed)


@pytest.mark.parametrize("seed", range(30))
def test_in_single_precision(seed):
    check_single(seed)


@pytest.mark.parametrize(("seed", "check"), [(100, check_double), (101, check_single)])
def test_as_machine_code(seed, check):
    pytest.importorskip("numba")
    check(seed, native=True)
