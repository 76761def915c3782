"""``TensorBoard``: the figures of a run for TensorBoard."""

from __future__ import annotations

import os
import time
from typing import Any

from ..checks import boolean
from ..files.reading import as_path
from ..training.callbacks import Callback
from ..training.state import Training

_VALIDATION = "validation_"


class TensorBoard(Callback):
    """Write the figures of each epoch, and the distributions of the weights, for TensorBoard.

    ``tensorboard --logdir runs`` shows them. The figures of training are in the folder "train", and
    those of the validation data in "validation", so that the curves of both share a chart. The
    files are written by TensorBoard's own writer, which needs neither TensorFlow nor PyTorch.

    Parameters
    ----------
    log_dir : str or path-like
        The folder of this run, such as "runs/1"; it is made if it does not exist.
    histograms : bool, default True
        Whether the weights are written too.

    Raises
    ------
    ImportError
        If tensorboard is not installed.
    OSError
        At the start of `fit`, if the folder cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import nnlite as nn
    >>> from nnlite.interop.tensorboard import TensorBoard
    >>> x = np.ones((4, 1), np.float32)
    >>> model = nn.Sequential(nn.Linear(1, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     history = nn.fit(
    ...         model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1), [(x, x)],
    ...         validation=(x, x), epochs=2, progress=False, callbacks=[TensorBoard(folder)],
    ...     )
    ...     sorted(os.listdir(folder))
    ['train', 'validation']
    """

    def __init__(self, log_dir: str | os.PathLike[str], histograms: bool = True) -> None:
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "TensorBoard needs tensorboard; install it with: pip install tensorboard"
            ) from error
        self.log_dir = as_path(log_dir, "TensorBoard")
        self._folder = os.path.abspath(self.log_dir)
        self.histograms = boolean(histograms, "TensorBoard: histograms")
        self._writers: dict[str, Any] = {}

    def on_fit_begin(self, training: Training) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._close()
        if training.processes.rank:
            return
        has_validation = any(name.startswith(_VALIDATION) for name in training.names)
        for name in ("train", "validation") if has_validation else ("train",):
            self._writers[name] = EventFileWriter(os.path.join(self._folder, name))

    def on_epoch_end(self, training: Training) -> None:
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        if training.processes.rank:
            return
        for name in training.names:
            value = training.history[name][-1]
            place = "validation" if name.startswith(_VALIDATION) else "train"
            self._add(place, scalar_pb(name.removeprefix(_VALIDATION), value), training.epoch)
        if self.histograms:
            for name, parameter in training.model.named_parameters():
                self._add("train", histogram_pb(name, parameter.data), training.epoch)
        for writer in self._writers.values():
            writer.flush()

    def _add(self, place: str, summary: Any, epoch: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writers[place].add_event(Event(wall_time=time.time(), step=epoch, summary=summary))

    def on_fit_end(self, training: Training) -> None:
        self._close()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}
