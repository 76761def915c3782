"""Gradient clipping, by norm and by value."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..checks import positive
from ..engine.arrays import Array
from ..engine.blas import vdot
from ..parameter import Parameter


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale the gradients so that their joint norm is at most `max_norm`.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those without a gradient count for nothing.
    max_norm : float
        The largest allowed Euclidean norm of all gradients taken together, above 0.

    Returns
    -------
    float
        The norm before.

    Raises
    ------
    ValueError
        If `max_norm` is not above 0, or if the norm is not finite. Nothing is scaled then.

    Notes
    -----
    Every gradient g is multiplied by ``max_norm / norm`` if the norm is larger than `max_norm`.

    References
    ----------
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([0.0, 0.0])
    >>> p.accumulate([3.0, 4.0])
    >>> nn.clip_grad_norm([p], 1.0)
    5.0
    >>> p.grad
    array([0.6, 0.8], dtype=float32)
    """
    limit = positive(max_norm, "clip_grad_norm: max_norm")
    grads = _gradients(parameters, "clip_grad_norm")
    norm = math.sqrt(sum(vdot(grad, grad) for grad in grads))
    if not norm or not math.isfinite(norm):
        # The squares of a float32 leave its range long before the float32 does.
        norm = math.sqrt(sum(float(np.square(grad, dtype=np.float64).sum()) for grad in grads))
    if not math.isfinite(norm):
        raise ValueError(f"clip_grad_norm: the norm of the gradients is {norm}")
    if norm > limit:
        for grad in grads:
            grad *= limit / norm
    return norm


def clip_grad_value(parameters: Iterable[Parameter], clip_value: float) -> None:
    """Limit each element of each gradient to ``[-clip_value, clip_value]``.

    Parameters
    ----------
    parameters : iterable of Parameter
    clip_value : float
        Above 0.

    Raises
    ------
    ValueError
        If `clip_value` is not above 0.

    Examples
    --------
    >>> import nnlite as nn
    >>> p = nn.Parameter([0.0, 0.0])
    >>> p.accumulate([3.0, -0.5])
    >>> nn.clip_grad_value([p], 1.0)
    >>> p.grad
    array([ 1. , -0.5], dtype=float32)
    """
    limit = positive(clip_value, "clip_grad_value: clip_value")
    for grad in _gradients(parameters, "clip_grad_value"):
        np.clip(grad, -limit, limit, out=grad)


def _gradients(parameters: Iterable[Parameter], name: str) -> list[Array]:
    if isinstance(parameters, Parameter):
        parameters = [parameters]
    if not isinstance(parameters, Iterable):
        raise TypeError(
            f"{name}: expected an iterable of parameters such as model.parameters(), "
            f"got {type(parameters).__name__}"
        )
    parameters = list(parameters)
    for parameter in parameters:
        if not isinstance(parameter, Parameter):
            raise TypeError(f"{name}: expected parameters, got {type(parameter).__name__}")
    if not parameters:
        raise ValueError(
            f"{name}: there are no parameters; model.parameters() can be iterated over once"
        )
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
