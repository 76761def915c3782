"""The parts of `fit` that are compiled."""

from __future__ import annotations

import numpy as np

import nnlite as nn

from ..engine.arrays import Array
from ..modes import no_grad
from ..training.batches import Batch
from . import programs
from .compile import CompiledModel, Gradients
from .forms import form_of
from .optimizers import CompiledUpdate


class CompiledFit:
    """Passes through a model and its loss, and the step of the optimizer, as native functions.

    Attributes
    ----------
    model : CompiledModel
        For validation.
    step : callable
        Moves the parameters as the optimizer's ``step`` does after ``synchronize``.
    """

    def __init__(
        self, model: nn.Layer, loss: nn.Layer, optimizer: nn.Optimizer, native: bool = True
    ) -> None:
        form_of(loss)
        self.model = CompiledModel(model, native)
        self._gradients = Gradients(model, loss, native)
        self.step = CompiledUpdate(optimizer, native)

    def passes(self, batch: Batch) -> tuple[Array, float]:
        """Add the gradients of a batch, with its scale, to those of the parameters.

        Return the output of the model and the loss.
        """
        arrays = tuple(map(np.asarray, (*batch.inputs, *batch.targets)))
        try:
            loss, output = self._gradients.passes(
                programs.Batch(arrays, len(batch.inputs)), batch.scale
            )
        except ValueError:
            with no_grad():  # the batch knows what is not finite
                batch.loss_of(self._gradients.loss, self._gradients.model(*batch.inputs))
            raise
        return output, loss
