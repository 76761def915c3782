"""Training runs that have to be the same with one process and with several.

``mpiexec -n 2 python -m tests.interop.mpi_cases FILE`` runs them all and writes their weights and
figures, or ``FILE NAME ...`` some of them; the test computes them again in one process, with the
plain loader and optimizer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import nnlite as nn

SAMPLES, FEATURES, CLASSES = 59, 6, 4


class Setup:
    """What differs between one process and several.

    Attributes
    ----------
    shard : the argument of the loader
    optimizer : callable
        From an optimizer to the one that trains.
    norm : type
        The normalization layer.
    fraction : callable
        From the weight of a part to its fraction of the batch.
    compiles : bool
        Whether the cases that can be compiled are.
    """

    shard: Any = None
    norm: Any = nn.BatchNorm1d
    compiles = False

    def optimizer(self, optimizer: nn.Optimizer) -> nn.Optimizer:
        return optimizer

    def fraction(self, weight: float) -> float:
        return 1.0


class Distributed(Setup):
    """Several processes."""

    compiles = True

    def __init__(self) -> None:
        from nnlite.interop import mpi

        self.shard, self.norm = mpi.shard(), mpi.SyncBatchNorm
        self.optimizer, self.fraction = mpi.DistributedOptimizer, mpi.fraction  # type: ignore[method-assign]


def data(labels: str = "classes") -> tuple[Any, ...]:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(SAMPLES, FEATURES))
    if labels == "values":
        return inputs, rng.normal(size=(SAMPLES, 2))
    return inputs, rng.integers(0, CLASSES, SAMPLES)


def perceptron(*before_last: nn.Layer, outputs: int = CLASSES) -> nn.Sequential:
    layers = [nn.Linear(FEATURES, 8), nn.Tanh(), *before_last, nn.Linear(8, outputs)]
    model = nn.Sequential(*layers)
    model.astype(np.float64)
    return model


def results(model: nn.Layer, history: Any = None) -> dict[str, Any]:
    figures = {} if history is None else {f"history.{k}": v for k, v in history.items()}
    return {**model.state_dict(), **figures}


def fitted(
    setup: Setup,
    make: Callable[[Any], nn.Optimizer],
    model: nn.Layer | None = None,
    loss: Any = None,
    arrays: Any = None,
    batch_size: int = 9,
    epochs: int = 3,
    schedule: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """Train with `fit`: the last batch of an epoch has 5 samples."""
    model = perceptron() if model is None else model
    arrays = data() if arrays is None else arrays
    loader = nn.DataLoader(*arrays, batch_size=batch_size, shuffle=True, shard=setup.shard)
    optimizer = setup.optimizer(make(model.parameters()))
    history = nn.fit(
        model, loss or nn.CrossEntropy(), optimizer, loader, epochs=epochs, progress=False,
        schedule=None if schedule is None else schedule(optimizer), **options,
    )  # fmt: skip
    return results(model, history)


def sgd(parameters: Any) -> nn.Optimizer:
    return nn.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01)


def weighted(setup: Setup) -> dict[str, Any]:
    """Class and sample weights, ignored labels: in some parts of batches nothing counts."""
    inputs, labels = data()
    labels = np.where(np.arange(SAMPLES) % 3 == 0, labels, -1)
    sample_weight = np.random.default_rng(2).random(SAMPLES) * (np.arange(SAMPLES) % 2)
    loss = nn.CrossEntropy(weight=np.array([0.5, 1.0, 2.0, 4.0]), ignore_index=-1)
    arrays = inputs, labels, sample_weight
    model = perceptron(setup.norm(8))
    return fitted(setup, sgd, model, loss, arrays, validation=arrays, metrics=[nn.accuracy])


def frozen(setup: Setup) -> dict[str, Any]:
    model = perceptron()
    for parameter in model[0].parameters():
        parameter.requires_grad = False
    return fitted(setup, sgd, model)


def grouped(setup: Setup) -> dict[str, Any]:
    model = perceptron()
    groups = [
        {"params": list(model[0].parameters()), "lr": 0.01},
        {"params": list(model[2].parameters())},
    ]
    return fitted(setup, lambda _: nn.Adam(groups, lr=0.02), model)


def by_hand(setup: Setup) -> dict[str, Any]:
    """A loop without `fit`, with clipping; the last batch has one sample."""
    model, loss, (inputs, labels) = perceptron(), nn.CrossEntropy(), data()
    optimizer = setup.optimizer(sgd(model.parameters()))
    loader = nn.DataLoader(inputs, labels, batch_size=29, shuffle=True, shard=setup.shard)
    for _ in range(4):
        for batch in loader:
            optimizer.zero_grad()
            fraction = setup.fraction(len(batch[1]) if batch else 0)
            if batch:
                x, y = batch
                loss(model(x), y)
                model.backward(loss.backward(fraction), input_grad=False)
            optimizer.synchronize()
            nn.clip_grad_norm(model.parameters(), 0.5)
            optimizer.step()
    return results(model)


def lbfgs(setup: Setup) -> dict[str, Any]:
    model, loss, (inputs, labels) = perceptron(), nn.CrossEntropy(), data()
    options = {"lr": 0.5, "max_iter": 4, "line_search_fn": "strong_wolfe"}
    optimizer = setup.optimizer(nn.LBFGS(model.parameters(), **options))
    ((x, y),) = nn.DataLoader(inputs, labels, batch_size=SAMPLES, shard=setup.shard)

    def closure() -> float:
        fraction = setup.fraction(len(y))
        optimizer.zero_grad()
        value = loss(model(x), y)
        model.backward(loss.backward(fraction), input_grad=False)
        return fraction * value

    losses = [optimizer.step(closure) for _ in range(3)]
    return {**results(model), "losses": losses}


def compiled(setup: Setup, batch_size: int, labelled: float = 1.0) -> dict[str, Any]:
    """A loop around one function for the step, with all that makes the parts of a batch uneven."""
    inputs, labels = data()
    labels = np.where(np.arange(SAMPLES) % 3 <= 3 * labelled - 1, labels, -1)
    sample_weight = 1 + np.random.default_rng(2).random(SAMPLES)
    loader = nn.DataLoader(
        inputs, labels, sample_weight, batch_size=batch_size, shuffle=True, shard=setup.shard
    )
    model = perceptron()
    loss = nn.CrossEntropy(weight=np.array([0.5, 1.0, 2.0, 4.0]), ignore_index=-1)
    optimizer = setup.optimizer(nn.Adam(model.parameters(), lr=0.01))

    def uncompiled(*batch: Any) -> float:
        value = loss(model(batch[0]), *batch[1:])
        optimizer.zero_grad()
        model.backward(loss.backward(), input_grad=False)
        nn.clip_grad_norm(model.parameters(), 0.2)
        optimizer.step()
        return value

    step: Any = uncompiled
    if setup.compiles:
        step = nn.compile(model, loss, optimizer, max_grad_norm=0.2, native=False)
    losses = [step(*batch) for _ in range(2) for batch in loader]
    return {**results(model), "losses": losses}


def averaged(setup: Setup) -> dict[str, Any]:
    """Averages of the weights, with the statistics of another pass over the data."""
    model = perceptron(setup.norm(8))
    return fitted(setup, sgd, model, callbacks=[nn.EMA(0.8)])


def recurrent(setup: Setup) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    arrays = rng.integers(0, 5, (20, 7)), rng.integers(0, CLASSES, 20)
    model = nn.Sequential(nn.Embedding(5, 6), nn.LSTM(6, 8, outputs="last"), nn.Linear(8, CLASSES))
    model.astype(np.float64)
    return fitted(setup, sgd, model, arrays=arrays)


def images(setup: Setup) -> dict[str, Any]:
    """Batch normalization over images, whose values are far from 0."""
    rng = np.random.default_rng(4)
    arrays = 100 + rng.normal(size=(22, 1, 8, 8)), rng.integers(0, CLASSES, 22)
    norm = nn.BatchNorm2d(3) if setup.norm is nn.BatchNorm1d else setup.norm(3)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(108, CLASSES)
    )
    model.astype(np.float64)
    return fitted(setup, sgd, model, arrays=arrays, validation=arrays)


CASES: dict[str, Callable[[Setup], dict[str, Any]]] = {
    "SGD": lambda s: fitted(s, sgd),
    "Adam": lambda s: fitted(s, lambda p: nn.Adam(p, lr=0.01)),
    "AdamW": lambda s: fitted(s, lambda p: nn.AdamW(p, lr=0.01)),
    "RMSprop": lambda s: fitted(s, lambda p: nn.RMSprop(p, lr=0.01, momentum=0.5, centered=True)),
    "Muon": lambda s: fitted(
        s,
        lambda p: nn.Muon([each for each in p if each.data.ndim == 2], lr=0.02),
    ),
    "fewer samples than processes": lambda s: fitted(s, sgd, batch_size=29, validation=data()),
    "one sample in a batch": lambda s: fitted(s, sgd, batch_size=1, epochs=1),
    "weights": weighted,
    "epoch metrics": lambda s: fitted(s, sgd, validation=data(), metrics=["f1_macro"]),
    "sum": lambda s: fitted(s, lambda p: nn.SGD(p, lr=0.01), loss=nn.CrossEntropy(reduction="sum")),
    "regression": lambda s: fitted(
        s,
        sgd,
        perceptron(outputs=2),
        nn.MeanSquaredError(),
        data("values"),
        validation=data("values"),
        metrics=[],
    ),
    "clipping": lambda s: fitted(s, sgd, max_grad_norm=0.3),
    "accumulation": lambda s: fitted(s, sgd, accumulate=3, max_grad_norm=0.3),
    "schedule": lambda s: fitted(
        s, sgd, schedule=lambda o: nn.OneCycleLR(o, 0.2, 21), schedule_every="step"
    ),
    "plateau": lambda s: fitted(
        s,
        sgd,
        schedule=lambda o: nn.ReduceLROnPlateau(o, patience=0),
        epochs=8,
        validation=tuple(array[::2] for array in data()),
        metrics=[nn.accuracy],
    ),
    "early stopping": lambda s: fitted(
        s,
        lambda p: nn.SGD(p, lr=2.0),
        epochs=20,
        validation=data(),
        callbacks=[nn.EarlyStopping(patience=2)],
    ),
    "frozen": frozen,
    "groups": grouped,
    "by hand": by_hand,
    "LBFGS": lbfgs,
    "compiled step": lambda s: compiled(s, batch_size=9, labelled=1 / 3),
    "compiled step, fewer samples than processes": lambda s: compiled(s, batch_size=29),
    "compiled fit": lambda s: fitted(
        s,
        sgd,
        perceptron(nn.Dropout(0.0)),
        max_grad_norm=0.3,
        accumulate=2,
        validation=data(),
        metrics=[nn.accuracy],
        compile=s.compiles,
    ),
    "EMA": averaged,
    "recurrent": recurrent,
    "images": images,
}


def run(setup: Setup, names: Iterable[str] = CASES) -> dict[str, dict[str, Any]]:
    """Return the results of cases by name."""
    found = {}
    for name in names:
        nn.seed(0)
        found[name] = CASES[name](setup)
    return found


def main(path: str, *names: str) -> None:
    """Run these cases, or all, in this process of several; rank 0 writes the results."""
    from mpi4py import MPI

    nn.seed(0)
    everywhere = MPI.COMM_WORLD.gather(run(Distributed(), names or CASES))
    if everywhere is None:
        return
    for name, first in everywhere[0].items():
        for rank, other in enumerate(everywhere):
            for key, value in first.items():
                same = np.array_equal(value, other[name][key], equal_nan=True)
                assert same, f"{name}: {key} differs in the process of rank {rank}"
    np.savez(
        path, **{f"{name}/{key}": v for name, r in everywhere[0].items() for key, v in r.items()}
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
