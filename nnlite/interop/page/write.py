"""A trained network as one web page: ``to_html``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import nnlite as nn

from ...checks import one_of
from ...datasets.digits import MNIST_MEAN, MNIST_STD
from ...engine.arrays import Array
from ...web.document import DTYPES, Document, packed
from .forms import FORMS, Page, Value

Shape = tuple[int, ...]


def to_html(
    model: nn.Layer,
    path: str | os.PathLike[str] | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    mean: ArrayLike | None = None,
    std: ArrayLike | None = None,
    alphabet: Sequence[str] | None = None,
    activation: str | None = None,
    examples: ArrayLike | None = None,
    targets: ArrayLike | None = None,
    title: str | None = None,
    dtype: str = "float16",
) -> Document:
    """Return a trained network as one web page that computes it, and write the page to a file.

    The page is self-contained: it needs no server and no connection, and works on a phone. It
    shows the output and the values of every layer, live, and the gradient of the winning score
    with respect to the input. A click on a unit shows the gradient of that unit. How an input is
    given depends on its shape:

    - (1, H, W): a drawing, which is scaled and centred as MNIST's digits are;
    - (3, H, W): an image file;
    - (2,): a point in the plane, over the decision surface;
    - (L,), with an `alphabet`: a text. If the outputs are scores of the next character, the page
      writes on, at any temperature;
    - any other: a form, or a file of numbers.

    Parameters
    ----------
    model : Layer
        A model of one input whose output is a vector: layers of nnlite, in `Sequential`, `Residual`
        and `Graph`. The page shows it in evaluation mode. It has no form for `Lambda`, whose
        function is Python, and for masks and indices of pools, which would be a second input or
        output.
    path : str or path-like, optional
        The file, which is replaced in one step.
    input_shape : sequence of int, optional
        The shape of a sample, without the batch axis. It can be left out where the first layer
        tells it, and for MNIST's images.
    labels : sequence of str, optional
        Names of the outputs; by default their indices.
    features : sequence of str, optional
        Names of the inputs of a form or plane.
    mean, std : float or array_like, optional
        The network gets ``(x - mean) / std``, for the numbers x that are typed or the pixels from
        0 to 1. An array has a value for each entry of the first axis. The default is that of
        `nnlite.datasets.mnist` for images of shape (1, 28, 28), otherwise 0 and 1.
    alphabet : sequence of str, optional
        The character of each code, for a model that begins with an `Embedding`. The input is then a
        text, of which the network gets the codes of the last L characters, filled up with code 0
        in front. The characters are also the default of `labels` if there are as many outputs.
    activation : {"softmax", "sigmoid", "none"}, optional
        The function applied to the outputs before they are shown. The default is "softmax" for
        several outputs, and "none" for one and after a layer that gives probabilities.
    examples : array_like of shape (N, ...), optional
        Inputs to choose from, before `mean` and `std`; in a plane they are dots.
    targets : array_like of shape (N,), optional
        The classes or values of the examples, for the colours of the dots.
    title : str, optional
        The heading.
    dtype : {"float16", "float32"}, default "float16"
        How the weights are stored. float16 halves the file; a weight is then rounded to 11
        significant bits.

    Returns
    -------
    Document
        The page. A notebook shows it; ``save(path)`` writes it.

    Raises
    ------
    TypeError
        If `model` is not a layer.
    ValueError
        If the page has no form for a layer, if a weight is not finite, or if shapes, names and
        options do not fit the model.
    OSError
        If the file cannot be written.

    Notes
    -----
    Indices have no gradient. In its place the page shows, for the vector W_i that an index looked
    up, ``G · W_i`` with the gradient G of that vector: the score's change to first order if the
    vector were scaled.

    Examples
    --------
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 10))
    >>> page = nn.to_html(model)
    >>> "Linear(784, 16)" in str(page)
    True
    """
    if not isinstance(model, nn.Layer):
        raise TypeError(f"to_html: expected a model, got {type(model).__name__}")
    one_of(dtype, DTYPES, "to_html: dtype")
    shape = _input_shape(model, input_shape)
    page = Page(np.zeros((1, *shape), _dtype_of(model)), dtype)
    output = _vector(page.layer("", model.tied(), page.input), page)
    outputs = output.sample.shape[1]
    characters = _characters(alphabet, shape, page.indices)
    names = _names(labels, outputs, "labels", "outputs")
    if names is None:
        is_text = characters is not None and len(characters) == outputs
        names = list(characters or ()) if is_text else [str(k) for k in range(outputs)]
    is_digit = shape == (1, 28, 28)
    means = _per_feature(mean, MNIST_MEAN if is_digit else 0.0, shape, "mean")
    stds = _per_feature(std, MNIST_STD if is_digit else 1.0, shape, "std")
    if not (stds > 0).all():
        raise ValueError(f"to_html: std must be above 0, got {stds.min():g}")
    if page.indices is not None and not (mean is None and std is None):
        raise ValueError("to_html: the input is of indices, which mean and std do not fit")
    points = _examples(examples, shape, page.indices)
    kind = _input_kind(shape, page.indices) if characters is None else "text"
    last = page.forms[-1]["kind"]
    is_probability = last in ("Softmax", "Sigmoid") and activation is None
    parameters = sum(parameter.size for parameter in model.parameters())
    document = Document(
        "page.html",
        ("network.js", "arrays.js", "sequences.js", "inputs.js", "page.js"),
        {
            "title": title or ("Draw a digit" if is_digit and outputs == 10 else "A network"),
            "subtitle": f"{len(page.forms)} layers, {parameters:,} parameters, computed here",
            "input": kind,
            "input_shape": shape,
            "layers": page.forms,
            "labels": names,
            "alphabet": characters,
            "indices": page.indices,
            "features": _names(features, int(np.prod(shape)), "features", "inputs"),
            "mean": packed(means),
            "std": packed(stds),
            "examples": [packed(point) for point in points],
            "targets": _targets(targets, len(points)),
            "range": _range(points, means, stds) if kind == "point" else None,
            "activation": _activation(activation, last, outputs),
            "probabilities": is_probability,
            # The value whose gradient is shown: the input of a last layer that saturates.
            "score": len(page.forms) - (last in ("Softmax", "LogSoftmax", "Sigmoid")),
        },
        height=900,
    )
    if path is not None:
        document.save(path)
    return document


# ---- input and output ----


def _vector(output: Any, page: Page) -> Value:
    """Return the output of the model, after checking that it is one vector for a sample."""
    if output is page.input:
        raise ValueError("to_html: the model has no layers")
    if isinstance(output, Value) and output.constant is not None:
        raise ValueError("to_html: the output of the model does not depend on its input")
    values = output if isinstance(output, tuple) else (output,)
    shapes = [value.sample.shape[1:] for value in values]
    if len(shapes) > 1 or len(shapes[0]) != 1:
        raise ValueError(
            f"to_html: expected a model whose output is a vector for each sample, "
            f"got the shape {' and '.join(map(str, shapes))}"
        )
    value: Value = output
    return value


def _dtype_of(model: nn.Layer) -> np.dtype[Any]:
    parameter = next(model.parameters(), None)
    return np.dtype(np.float32) if parameter is None else parameter.dtype


def _input_shape(model: nn.Layer, given: Sequence[int] | None) -> Shape:
    """Return the shape of a sample: the given one, or what the first layers tell."""
    if given is not None:
        shape = tuple(given) if isinstance(given, Sequence) else (given,)
        if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
            raise ValueError(
                f"to_html: input_shape must be the shape of a sample, such as (1, 28, 28), "
                f"got {given!r}"
            )
        return shape
    containers = (nn.Sequential, nn.Residual, nn.Graph, nn.AveragedModel)
    layers = (layer for layer in model.layers() if type(layer) in FORMS)
    first: list[Any] = [layer for layer in layers if type(layer) not in containers][:2]
    kinds = [type(layer) for layer in first]
    if kinds[:1] == [nn.Linear]:
        return (first[0].weight.shape[1],)
    if kinds[:1] == [nn.Conv2d] and first[0].weight.shape[1] == 1:
        return (1, 28, 28)
    if kinds == [nn.Embedding, nn.LearnedPositions]:
        return (first[1].max_len,)
    if kinds == [nn.Flatten, nn.Linear]:
        size = first[1].weight.shape[1]
        return (1, 28, 28) if size == 28 * 28 else (size,)
    raise ValueError(
        "to_html: the layers do not tell the shape of a sample; give it, such as "
        "input_shape=(3, 32, 32)"
    )


def _input_kind(shape: Shape, indices: int | None) -> str:
    if indices is not None:
        return "numbers"
    if len(shape) == 3 and shape[0] in (1, 3):
        return "drawing" if shape[0] == 1 else "image"
    return "point" if shape == (2,) else "numbers"


def _activation(given: str | None, last: str, outputs: int) -> str:
    if given is not None:
        return one_of(given, ("softmax", "sigmoid", "none"), "to_html: activation")
    if last == "LogSoftmax":
        return "exp"
    return "softmax" if outputs > 1 and last not in ("Softmax", "Sigmoid") else "none"


def _names(given: Sequence[str] | None, count: int, option: str, of_what: str) -> list[str] | None:
    if given is None:
        return None
    if isinstance(given, str) or len(given) != count:
        raise ValueError(f"to_html: expected {count} {option}, one for each of the {of_what}")
    return [str(name) for name in given]


def _per_feature(given: ArrayLike | None, default: float, shape: Shape, option: str) -> Array:
    """Return a value for each number of a sample."""
    array = np.asarray(default if given is None else given, np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"to_html: {option} must be finite")
    if array.ndim == 1 and array.size == shape[0]:
        array = array.reshape(-1, *(1 for _ in shape[1:]))
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(
            f"to_html: {option} must be a number, or an array that fits a sample of shape "
            f"{shape}; got shape {array.shape}"
        ) from None


def _characters(given: Sequence[str] | None, shape: Shape, indices: int | None) -> list[str] | None:
    """Return the characters of the codes of a text."""
    if given is None:
        return None
    found = [str(character) for character in given]
    if indices is None or len(shape) != 1:
        raise ValueError(
            "to_html: alphabet is for a model whose first layer is an Embedding of sequences (N, L)"
        )
    if any(len(character) != 1 for character in found) or len(set(found)) < len(found):
        raise ValueError("to_html: alphabet must be of single characters, each of them once")
    if not 0 < len(found) <= indices:
        raise ValueError(
            f"to_html: expected an alphabet of at most {indices} characters, one for each vector "
            f"of the Embedding, got {len(found)}"
        )
    return found


def _examples(given: ArrayLike | None, shape: Shape, indices: int | None) -> Array:
    if given is None:
        return np.zeros((0, *shape))
    array = np.asarray(given, np.float64)
    if array.shape[1:] != shape or not np.isfinite(array).all():
        raise ValueError(
            f"to_html: examples must be finite numbers of shape {('N', *shape)}, "
            f"got shape {array.shape}"
        )
    if indices is not None and not np.isin(array, np.arange(indices)).all():
        raise ValueError(f"to_html: examples must be of indices in [0, {indices})")
    return array


def _targets(given: ArrayLike | None, count: int) -> list[float] | None:
    if given is None:
        return None
    array = np.asarray(given, np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(
            f"to_html: targets must be {count} finite numbers, one for each example, "
            f"got shape {array.shape}"
        )
    return [float(value) for value in array]


def _range(points: Array, means: Array, stds: Array) -> list[tuple[float, float]]:
    """Return the lowest and highest value that is shown of each axis of a plane."""
    low, high = means - 3 * stds, means + 3 * stds
    if len(points):
        low, high = points.min(axis=0), points.max(axis=0)
    margin = np.maximum(0.1 * (high - low), 1e-6)
    return [(float(a), float(b)) for a, b in zip(low - margin, high + margin, strict=True)]
