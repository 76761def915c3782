"""Which pixels an output depends on: saliency and Grad-CAM."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..checks import shown
from ..engine.arrays import Array
from ..layer import Layer
from ..training.arguments import check_layer
from .isolation import isolated_copy, package_generator_kept
from .trace import Trace, trace


def saliency(model: Layer, images: ArrayLike, target: ArrayLike | None = None) -> Array:
    """Return how much the score of a class changes with each pixel.

    Parameters
    ----------
    model : Layer
        A classifier that returns scores (N, classes), best as logits. A copy of it runs, in
        evaluation mode.
    images : array_like of shape (N, C, H, W)
    target : int or array_like of int, shape (N,), optional
        The class of each image; by default the one with the highest score.

    Returns
    -------
    ndarray of shape (N, H, W)

    Raises
    ------
    TypeError
        If `model` is not a layer.
    ValueError
        If the shapes do not fit, or a class is out of range.

    Notes
    -----
    With the score s_t of class t::

        saliency[n, i, j] = max_c |ds_t / dx[n, c, i, j]|

    References
    ----------
    K. Simonyan, A. Vedaldi, A. Zisserman, "Deep inside convolutional networks: visualising image
    classification models and saliency maps", ICLR workshop 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> model[1].weight.data[...] = [[1, -2, 3, 0], [0, 0, 0, 5]]
    >>> nn.saliency(model, np.zeros((1, 1, 2, 2), np.float32), target=0)
    array([[[1., 2.],
            [3., 0.]]], dtype=float32)
    """
    traced = _scores_traced(model, images, target, "saliency")
    gradient: Array = traced.inputs[0].grad
    return np.abs(gradient).max(axis=1)


def grad_cam(
    model: Layer, images: ArrayLike, target: ArrayLike | None = None, *, layer: str | None = None
) -> Array:
    """Return which regions of an image speak for a class, seen by a convolutional layer.

    Parameters
    ----------
    model : Layer
        A convolutional classifier that returns scores (N, classes), best as logits. A copy of it
        runs, in evaluation mode.
    images : array_like of shape (N, C, H, W)
    target : int or array_like of int, shape (N,), optional
        The class of each image; by default the one with the highest score.
    layer : str, optional
        The name of the layer, as in `Layer.named_layers`; by default the last whose output has
        more than one place.

    Returns
    -------
    ndarray of shape (N, H, W)
        Not negative, enlarged to the size of the images with linear interpolation.

    Raises
    ------
    TypeError
        If `model` is not a layer.
    ValueError
        If the shapes do not fit, a class is out of range, or there is no such layer.

    Notes
    -----
    With the output A of the layer, K channels over Z places, and the score s_t of class t::

        w_k = 1/Z Σ_ij ds_t / dA_kij        cam_ij = max(Σ_k w_k A_kij, 0)

    References
    ----------
    R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", ICCV 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(
    ...     nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(676, 10)
    ... )
    >>> nn.grad_cam(model, np.zeros((5, 1, 28, 28), np.float32)).shape
    (5, 28, 28)
    """
    traced = _scores_traced(model, images, target, "grad_cam")
    name = _last_maps(traced) if layer is None else layer
    if name not in traced or np.ndim(traced[name].value) != 4:
        maps = [repr(key) for key, entry in traced.items() if np.ndim(entry.value) == 4]
        raise ValueError(
            f"grad_cam: layer must be one whose output is (N, channels, H, W), got {name!r}; there "
            f"are {', '.join(maps)}"
        )
    values, grads = traced[name].value, traced[name].grad
    weights = grads.mean(axis=(2, 3), keepdims=True)
    maps = np.maximum((weights * values).sum(axis=1), 0)
    height, width = np.shape(images)[2:]
    return _enlarged(_enlarged(maps, height, axis=1), width, axis=2)


def _scores_traced(model: Layer, images: ArrayLike, target: ArrayLike | None, who: str) -> Trace:
    """Return a trace of the gradient of the score of a class of each image."""
    check_layer(model, "model", who)
    x = np.asarray(images)
    if x.ndim != 4 or not x.size:
        raise ValueError(f"{who}: expected images of shape (N, C, H, W), got shape {x.shape}")
    copy = isolated_copy(model).eval()
    with package_generator_kept():
        scores = copy(x)
    if np.ndim(scores) != 2:
        raise ValueError(
            f"{who}: expected a model that returns scores (N, classes), got {np.shape(scores)}"
        )
    wanted = np.asarray(scores.argmax(axis=1) if target is None else target)
    classes = np.arange(scores.shape[1])
    if wanted.shape not in ((), scores.shape[:1]) or not np.isin(wanted, classes).all():
        raise ValueError(
            f"{who}: target must be a class in [0, {len(classes)}), or one for each of the "
            f"{len(x)} images, got {shown(target)}"
        )
    return trace(
        copy, x, grad=np.asarray(np.broadcast_to(wanted, len(x))[:, None] == classes, scores.dtype)
    )


def _last_maps(traced: Trace) -> str:
    """Return the name of the last layer whose output has more than one place."""
    found = ""
    for name, entry in traced.items():
        if np.ndim(entry.value) == 4 and entry.label not in ("", "Parameter"):
            found = name if entry.value[0, 0].size > 1 else found
    return found


def _enlarged(maps: Array, size: int, axis: int) -> Array:
    """Return the maps with an axis of another length, linearly interpolated between centres."""
    length = maps.shape[axis]
    places = (np.arange(size) + 0.5) * length / size - 0.5
    low = np.clip(np.floor(places).astype(int), 0, length - 1)
    high = np.minimum(low + 1, length - 1)
    shape = [1, 1, 1]
    shape[axis] = size
    part = np.clip(places - low, 0, 1).astype(maps.dtype).reshape(shape)
    return (1 - part) * maps.take(low, axis) + part * maps.take(high, axis)
