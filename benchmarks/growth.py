"""Step time against batch size and against width, as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .harness import CaseError, Measurement, Session
from .networks import MLP
from .training import Training

BATCH_SIZES = (1, 4, 16, 64, 256, 1024)
WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)


def plot(session: Session, path: Path) -> None:
    """Measure the training step of an MLP over batch sizes and widths, and plot both."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise CaseError("the plot needs matplotlib: pip install -e '.[plot]'") from None

    panels = [
        ("batch size", "784-128-10", BATCH_SIZES,
         [session.measure(Training(MLP(784, 128, 10), size)) for size in BATCH_SIZES]),
        ("hidden width", "784-width-10, batch 64", WIDTHS,
         [session.measure(Training(MLP(784, width, 10), 64)) for width in WIDTHS]),
    ]  # fmt: skip
    # The same data give the same file, and text remains text.
    with mpl.rc_context({"svg.hashsalt": "nnlite", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, (label, title, sizes, measurements) in zip(
            figure.subplots(1, 2, sharey=True), panels, strict=True
        ):
            _draw(axes, sizes, measurements)
            axes.set(xlabel=label, title=f"MLP {title}", xscale="log", yscale="log")
            axes.set_xticks(sizes, labels=map(str, sizes))
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        figure.axes[0].set_ylabel("training step, ms")
        figure.axes[0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw(axes: Any, sizes: Sequence[int], measurements: Sequence[Measurement]) -> None:
    """Draw a line of medians for each side, and the range between the quartiles."""
    styles = {"nnlite": "-o", "PyTorch": "-s", "BLAS": "--"}
    labels = {"BLAS": "matrix products alone"}
    for title in measurements[0].times:
        quartiles = [[1e3 * time for time in one.quartiles(title)] for one in measurements]
        low, median, high = zip(*quartiles, strict=True)
        label = labels.get(title, title)
        (line,) = axes.plot(sizes, median, styles.get(title, "-^"), markersize=4, label=label)
        axes.fill_between(sizes, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
