"""``evaluate`` and ``predict``: a trained model on a whole data set, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import integer
from ..data.loader import DataLoader, as_array
from ..engine.arrays import Array
from ..hints import explained
from ..layer import Layer
from ..losses import Loss
from ..modes import evaluating
from ..processes import ALONE
from .arguments import Metrics, check_layer, check_model_and_loss
from .batches import are_arrays, as_batch, as_outputs, batches_of
from .metrics import named_metrics
from .tally import Tally

BATCH_SIZE = 256


@explained
def evaluate(
    model: Layer,
    loss: Loss,
    data: Iterable[Any],
    *,
    metrics: Metrics = (),
    batch_size: int = BATCH_SIZE,
) -> dict[str, float]:
    """Return the loss and the metrics of a model over a whole data set.

    Meanwhile the model is in evaluation mode and caches nothing, for the calling thread only.

    Parameters
    ----------
    model : Layer
    loss : Loss
        With the reduction "mean" or "sum".
    data : tuple of arrays (inputs, targets), or iterable of batches (inputs, targets)
        A third array or item has the weights of the samples. Inputs that are a tuple are several
        inputs of the model. For a loss without targets, such as `TripletMargin`, the arrays are the
        inputs of the model. Processes that share a `DataLoader` get the figures of all its samples.
    metrics : sequence of callable or str, or mapping of str to such
        Functions of (predictions, targets) that return a number, such as `accuracy`; an
        `EpochMetric`; or the name of a scorer of scikit-learn, such as "f1_macro" or "roc_auc". The
        predictions of a model of several outputs are a tuple, and the targets of a loss without
        targets are None.
    batch_size : int, default 256
        Number of samples that go through the model at a time, if `data` are arrays.

    Returns
    -------
    dict of str to float
        "loss", and each metric by its name.

    Raises
    ------
    ValueError
        If there are no data, if every target is ignored, if the loss is not finite, or if data,
        model and loss do not fit together.

    Notes
    -----
    The loss is that of one batch of all samples, whatever the batches are: the mean of a batch is
    weighted by its divisor. With ``w`` the weight of a sample and ``c`` the class weight of its
    label, 0 where it is ignored, the divisor is Σ w c. It is computed from the attributes
    ``weight`` and ``ignore_index`` of the loss; a loss without them divides by the number of
    targets. With layers that use the statistics of the batch also in evaluation mode, the outputs
    and therefore the loss depend on the batches.

    A metric that is a function is the mean over the batches, weighted by their numbers of targets,
    without those that the loss ignores; a batch with no other targets is left out. A figure that is
    no mean over targets, such as an F-score, is computed from the outputs for all samples: a scorer
    of scikit-learn, or an `EpochMetric`. A scorer gets class probabilities and predicted classes
    from the outputs as the loss reads them, without the targets that it ignores, or the outputs
    themselves if it is no loss of classes.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> data = np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 3.0]]), np.array([0, 0, 0])
    >>> figures = nn.evaluate(nn.Identity(), nn.CrossEntropy(), data, metrics=[nn.accuracy])
    >>> {name: round(value, 4) for name, value in figures.items()}
    {'loss': 1.2896, 'accuracy': 0.6667}
    """
    check_model_and_loss(model, loss, "evaluate")
    batch_size = integer(batch_size, "evaluate: batch_size")
    if are_arrays(data):
        data = batches_of(data, batch_size)
    processes = data.shard if isinstance(data, DataLoader) else ALONE
    tally = Tally(loss, named_metrics(metrics, loss, "evaluate"), processes)
    if not isinstance(data, Iterable):
        raise TypeError(
            f"evaluate: expected a tuple of arrays or batches, got {type(data).__name__}"
        )
    with evaluating():
        for given in data:
            batch = as_batch(given, loss)
            tally.add(model(*batch.inputs) if batch.inputs else None, batch)
    if not tally.batches:
        raise ValueError("evaluate: the data gave no batch")
    if not tally.weight:
        raise ValueError("evaluate: every target is ignored or has no weight")
    return tally.figures()


@explained
def predict(
    model: Layer, inputs: ArrayLike | tuple[ArrayLike, ...], batch_size: int = BATCH_SIZE
) -> Any:
    """Return the model's outputs for all `inputs`, computed batch by batch.

    Meanwhile the model is in evaluation mode and caches nothing, for the calling thread only.

    Parameters
    ----------
    model : Layer
        It returns an array with a row for each sample, or a tuple of such arrays.
    inputs : array_like of shape (N, ...), or tuple of such
        A tuple is several inputs of the model.
    batch_size : int, default 256
        Number of samples that go through the model at a time. It bounds the memory and, but for
        rounding, does not change the outputs.

    Returns
    -------
    ndarray of shape (N, ...), or tuple of such
        New arrays, also where the model returns its input.

    Raises
    ------
    ValueError
        If there are no inputs, if several are of different lengths, if the model returns another
        number of rows, or if its outputs would depend on `batch_size`.
    TypeError
        If the model is not a layer or does not return arrays, or if the inputs are not arrays.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Softmax())
    >>> nn.predict(model, np.zeros((1000, 4), dtype=np.float32)).shape
    (1000, 3)
    """
    if (  # a quick test of all arguments
        type(inputs) is np.ndarray
        and inputs.ndim
        and type(batch_size) is int
        and 0 < len(inputs) <= batch_size
        and isinstance(model, Layer)
    ):
        outputs = model.output_at_once([inputs])
        if type(outputs) is np.ndarray and len(outputs) == len(inputs):
            return outputs
    cure = "; write predict(model, inputs)" if isinstance(inputs, Layer) else ""
    check_layer(model, "model", "predict", cure)
    batch_size = integer(batch_size, "predict: batch_size")
    arrays = _as_inputs(inputs)
    samples = len(arrays[0])
    if samples > batch_size:
        _check_independence(model, samples)
    elif len(arrays) > 1:
        outputs = model.output_at_once(arrays)
        if type(outputs) is np.ndarray and len(outputs) == samples:
            return outputs
    with evaluating():
        if samples <= batch_size:
            outputs = model(*arrays)
            everything = [np.array(y) for y in _checked_outputs(model, outputs, samples)]
        else:
            everything = []
            for start in range(0, samples, batch_size):
                part = slice(start, start + batch_size)
                given = [array[part] for array in arrays]
                outputs = model(*given)
                parts = _checked_outputs(model, outputs, len(given[0]))
                if not start:
                    everything = [np.empty((samples, *y.shape[1:]), y.dtype) for y in parts]
                for whole, y in zip(everything, parts, strict=True):
                    whole[part] = y
    return tuple(everything) if isinstance(outputs, tuple) else everything[0]


def _as_inputs(inputs: Any) -> list[Array]:
    """Return the inputs as arrays of the same length, above 0."""
    if isinstance(inputs, DataLoader):
        raise TypeError(
            "predict: expected the inputs as an array, got a DataLoader; give the array that it "
            "was made from"
        )
    if type(inputs) is np.ndarray and inputs.ndim and len(inputs):
        return [inputs]  # the usual case
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    arrays = [as_array(array, "predict") for array in given]
    lengths = {array.shape[:1] for array in arrays}
    if len(lengths) == 1 and lengths.isdisjoint([(), (0,)]):
        return arrays
    shapes = " and ".join(str(array.shape) for array in arrays)
    if not lengths or () in lengths or (0,) in lengths:
        raise ValueError(f"predict: expected at least one input, got shape {shapes or '()'}")
    raise ValueError(f"predict: all inputs need the same length, got the shapes {shapes}")


def _checked_outputs(model: Layer, outputs: Any, samples: int) -> tuple[Array, ...]:
    """Return the outputs as a tuple; raise an error unless they have a row for each sample."""
    parts = as_outputs(outputs)
    for y in parts:
        if not isinstance(y, np.ndarray):
            raise TypeError(
                f"predict: {model.label} must return an array or a tuple of arrays, got "
                f"{type(y).__name__}"
            )
        if y.shape[:1] != (samples,):
            raise ValueError(
                f"predict: {model.label} must return a row for each of the {samples} samples of a "
                f"batch, got shape {y.shape}"
            )
    return parts


def _check_independence(model: Layer, samples: int) -> None:
    """Raise a ValueError if a layer mixes the samples of a batch in evaluation mode."""
    for path, layer in model.named_layers():
        if getattr(layer, "track_running_stats", True) is False:
            name = f"layer {path!r}, {layer.label}," if path else layer.label
            raise ValueError(
                f"predict: {name} uses the statistics of the batch, so that the outputs depend on "
                f"batch_size; use batch_size={samples} for those of all inputs together"
            )
