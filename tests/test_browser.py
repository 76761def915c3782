"""A browser has no threads, no processes and no signals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Pyodide raises this where CPython would start a thread or a process.
BROWSER = """
import _thread, os, signal, subprocess, sys, threading

def refuse(*arguments, **options):
    raise RuntimeError("can't start new thread")

def refuse_process(*arguments, **options):
    raise OSError(138, "Not supported")

threading._start_new_thread = threading._start_joinable_thread = refuse
_thread.start_new_thread = _thread.start_new = _thread.start_joinable_thread = refuse
subprocess.Popen = os.posix_spawn = os.system = os.execv = refuse_process
for name in ("fork", "register_at_fork"):
    vars(os).pop(name, None)
sys.modules["multiprocessing"] = sys.modules["_multiprocessing"] = None  # ImportError
"""


def run(script: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BROWSER + script],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_browser_of_these_tests_refuses_threads_and_processes(tmp_path: Path) -> None:
    script = """
for start in (threading.Thread(target=print).start, lambda: os.system("true")):
    try:
        start()
    except (RuntimeError, OSError) as error:
        print(error)
"""
    assert run(script, tmp_path).split("\n")[:2] == [
        "can't start new thread",
        "[Errno 138] Not supported",
    ]


def test_layers_need_neither_signals_nor_files(tmp_path: Path) -> None:
    script = """
import builtins, io
import numpy as np
import nnlite as nn

rng = np.random.default_rng(0)
images = rng.normal(size=(256, 1, 28, 28)).astype(np.float32)
labels = rng.integers(10, size=256)
signal.signal = builtins.open = io.open = os.open = refuse_process
model = nn.Sequential(
    nn.Conv2d(1, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding="same"), nn.ReLU(), nn.AvgPool2d(2),
    nn.Flatten(), nn.Dropout(0.1), nn.Linear(32 * 36, 10),
)
loss = nn.CrossEntropy()
optimizer = nn.Adam(model.parameters())
values = []
for _ in range(3):
    values.append(loss(model(images), labels))
    optimizer.zero_grad()
    model.backward(loss.backward(), input_grad=False)
    optimizer.step()
assert values[2] < values[0], values
sequence = nn.LSTM(4, 64, bidirectional=True)
y = sequence(np.ones((8, 20, 4), np.float32))
assert sequence.backward(np.ones_like(y)).shape == (8, 20, 4)
assert nn.gradcheck(nn.Linear(2, 3), np.ones((2, 2))).passed
"""
    run(script, tmp_path)


def test_digits_are_learned_saved_and_loaded(tmp_path: Path) -> None:
    script = """
import nnlite as nn

nn.seed(0)
train, test = nn.datasets.mnist()
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
history = nn.fit(
    model, nn.CrossEntropy(), nn.Adam(model.parameters(), lr=0.003),
    nn.DataLoader(train[0][:6000], train[1][:6000], batch_size=64, shuffle=True),
    epochs=2, validation=nn.DataLoader(*test, batch_size=1000), metrics={"accuracy": nn.accuracy},
    checkpoint="fit.npz",
)
nn.save(model, "weights.npz")
nn.save_model(model, "model.npz")
nn.save_checkpoint("run.npz", model=model)
again = nn.load_model("model.npz")
again.load_state_dict(nn.load_state("weights.npz"))
assert (nn.predict(again, test[0][:100]) == nn.predict(model, test[0][:100])).all()
print(nn.accuracy(nn.predict(again, test[0]), test[1]))
"""
    assert float(run(script, tmp_path).split()[-1]) > 0.85
