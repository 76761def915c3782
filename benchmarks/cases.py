"""The cases, which are the rows of the table, with the target ratio of each.

To add a case for another layer, add a line here and a network in `networks`. Another kind of step
needs a module like `training`.
"""

from __future__ import annotations

from fnmatch import fnmatch

from .case import Case
from .inference import Inference
from .mnist_epoch import Epoch, Import
from .networks import (
    MLP,
    ExampleCNN,
    GroupNormalizedCNN,
    LeNet,
    NormalizedCNN,
    RowGRU,
    RowLSTM,
    RowRNN,
    RowTransformer,
    SeparableCNN,
    TransposedCNN,
)
from .sigmoid_gradient import SigmoidGradient
from .training import Training

TINY = MLP(784, 32, 10)
SMALL = MLP(784, 128, 10)
MEDIUM = MLP(784, 256, 128, 10)
WIDE = MLP(784, 1024, 1024, 10)

CASES: list[Case] = [
    *[
        Training(TINY, batch_size, goal=2.5, compiled_goal=goal)
        for batch_size, goal in ((1, 20.0), (32, 10.0), (64, 8.0))
    ],
    *[
        Training(SMALL, batch_size, goal=2.5, compiled_goal=goal)
        for batch_size, goal in ((1, 10.0), (32, 3.0), (64, 3.5))
    ],
    Training(MEDIUM, 128, goal=1.7, compiled_goal=1.4),
    Training(WIDE, 128, goal=1.0),
    Training(WIDE, 512, goal=1.0),
    Training(LeNet(), 64, goal=2.0, compiled_goal=1.6),
    Training(ExampleCNN(), 64, goal=1.4, compiled_goal=1.2),
    Training(RowRNN(), 64, goal=1.2, compiled_goal=2.2),
    Training(SMALL, 32, "Adam", goal=2.0, compiled_goal=3.0),
    Training(NormalizedCNN(), 64, compiled_goal=1.2),
    Training(GroupNormalizedCNN(), 64, goal=0.8, compiled_goal=1.0),
    Training(SeparableCNN(), 64, goal=0.8, compiled_goal=1.0),
    Training(TransposedCNN(), 64, goal=0.8, compiled_goal=1.0),
    Training(RowLSTM(), 64, goal=1.0, compiled_goal=1.25),
    Training(RowGRU(), 64, goal=1.0, compiled_goal=1.25),
    Training(RowTransformer(), 64, goal=1.0, compiled_goal=1.0),
    *[
        Inference(network, batch_size, goal=1.5, compiled_goal=goal if batch_size == 1 else None)
        for network, goal in (
            *((network, 6.0) for network in (TINY, SMALL, MEDIUM, WIDE)),
            *((network, 2.0) for network in (LeNet(), ExampleCNN(), RowRNN(), RowLSTM())),
        )
        for batch_size in (1, 256)
    ],
    SigmoidGradient(goal=3.0, compiled_goal=30.0),
    Epoch("torchvision", goal=25.0, compiled_goal=25.0),
    Epoch("torch"),
    Import(goal=10.0),
    Epoch("torchvision", whole_process=True, goal=10.0),
    Epoch("torch", whole_process=True),
]


def select(patterns: list[str]) -> list[Case]:
    """Return the cases whose name contains or matches one of the patterns; all without patterns.

    Raises
    ------
    ValueError
        If a pattern matches no case.
    """
    chosen = set()
    for pattern in map(str.lower, patterns):
        names = {case.name for case in CASES}
        matched = {name for name in names if fnmatch(name.lower(), f"*{pattern}*")}
        if not matched:
            raise ValueError(f"no case matches {pattern!r}; --list shows their names")
        chosen |= matched
    return [case for case in CASES if not patterns or case.name in chosen]
