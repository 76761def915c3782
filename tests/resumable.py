"""A run that saves a checkpoint every few batches, and goes on from the one that it finds.

``python -m tests.resumable FOLDER SEED`` kills it with SIGKILL at random moments, again and again,
until it is done.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import nnlite as nn

EPOCHS = 4
BATCHES = 8
INTERVAL = 3


class Losses:
    """The losses of all batches: a thing of the user's own that has a state."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values = [float(value) for value in state_dict["values"]]


def parts() -> dict[str, Any]:
    """Return all that a run changes, as it is at its beginning."""
    nn.seed(1)
    data = np.random.default_rng(0)
    inputs = data.normal(size=(8 * BATCHES - 3, 6)).astype(np.float32)
    labels = (inputs[:, 0] * inputs[:, 1] > 0).astype(int)
    model = nn.Sequential(
        nn.Linear(6, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(16, 16),
        nn.Tanh(),
        nn.Dropout(0.2, rng=5),
        nn.Linear(16, 2),
    )
    decaying = [p for p in model.parameters() if len(p.shape) > 1]
    others = [p for p in model.parameters() if len(p.shape) == 1]
    optimizer = nn.Adam(
        [{"params": decaying, "weight_decay": 0.01}, {"params": others, "lr": 0.02}], lr=0.01
    )
    return {
        "model": model,
        "optimizer": optimizer,
        "schedule": nn.OneCycleLR(optimizer, max_lr=0.02, total_steps=EPOCHS * BATCHES),
        "loader": nn.DataLoader(inputs, labels, batch_size=8, shuffle=True),
        "noise": np.random.default_rng(9),
        "losses": Losses(),
    }


def run(checkpoint: Path, stop_after: int | None = None) -> None:
    """Train, and leave ``final.npz`` beside the checkpoint; or stop after so many batches."""
    all_parts = parts()
    model, optimizer, schedule, loader, noise, losses = all_parts.values()
    loss = nn.CrossEntropy()
    if checkpoint.exists():
        nn.load_checkpoint(checkpoint, **all_parts)
    while loader.epoch < EPOCHS:
        for inputs, labels in loader:
            inputs += noise.normal(scale=0.1, size=inputs.shape)
            losses.values.append(loss(model(inputs), labels))
            optimizer.zero_grad()
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()
            schedule.step()
            if schedule.count % INTERVAL == 0:
                nn.save_checkpoint(checkpoint, **all_parts)
            if schedule.count == stop_after:
                return
    nn.save_checkpoint(checkpoint.with_name("final.npz"), **all_parts)


def run_killed(checkpoint: Path, seed: int) -> int:
    """Run to the end in processes that are killed, and return how many were.

    The time that they are given grows, so that it is enough in the end on any machine. Whenever one
    was killed, the checkpoint has to load.
    """
    moments = np.random.default_rng(seed)
    kills = 0
    while True:
        child = os.fork()
        if not child:
            run(checkpoint)
            os._exit(0)
        time.sleep(moments.uniform(0, 0.002 * 1.03**kills))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            assert status == 0
            return kills
        kills += 1
        if checkpoint.exists():
            nn.load_checkpoint(checkpoint, **parts())


if __name__ == "__main__":
    print(run_killed(Path(sys.argv[1], "run.npz"), int(sys.argv[2])))
