"""The callback for MLflow on the page "Training" writes every figure into a local store."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")

SCRIPT = """
import mlflow
import numpy as np
import nnlite as nn

{callback}

mlflow.set_tracking_uri("sqlite:///store.db")
x = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)
model = nn.Sequential(nn.Linear(2, 1))
with mlflow.start_run() as run:
    history = nn.fit(
        model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1), [(x, x[:, :1])],
        epochs=3, callbacks=[to_mlflow], progress=False,
    )
for name, values in history.items():
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
    assert [metric.step for metric in found] == [1, 2, 3]
    assert [metric.value for metric in found] == values.tolist()
print("all figures are there")
"""


def test_mlflow_has_the_history(tmp_path: Path) -> None:
    callback = re.search(r"^def to_mlflow\(.*?(?=^\n|^```)", PAGE, re.MULTILINE | re.DOTALL)
    assert callback is not None
    script = SCRIPT.format(callback=callback[0])
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin",
             "HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
    )  # fmt: skip
    assert done.stdout.endswith("all figures are there\n"), done.stderr
