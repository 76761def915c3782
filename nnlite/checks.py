"""The checks that layers, losses and optimizers share: each a clear sentence or nothing."""

from __future__ import annotations

import math
import operator
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from .engine.arrays import FLOATS, Array


class Labelled(Protocol):
    """Something with a name for error messages, as every layer and loss has."""

    @property
    def label(self) -> str:
        """The name."""


def as_floats(
    layer: Labelled, values: ArrayLike, dtype: np.dtype[Any] | None = None, name: str = "input"
) -> Array:
    """Return `values` as a non-empty array of floats, of `dtype` where one is given.

    A layer calls it on every input, with the dtype of its parameters if it has any: so a float64
    array that strays into a float32 network is converted instead of converting the network.

    Raises
    ------
    TypeError
        If the values are integers, booleans, objects or anything else than floats.
    ValueError
        If there are no values: an empty batch.
    """
    if (
        type(values) is np.ndarray
        and (values.dtype == dtype if dtype is not None else values.dtype in FLOATS)
        and values.size
    ):
        return values
    try:
        array = np.asarray(values)
    except ValueError as error:  # nested lists of several lengths
        raise ValueError(f"{layer.label}: the {name} is no array: {error}") from None
    if array.dtype.kind != "f":
        raise TypeError(
            f"{layer.label}: expected {name} of floats, got dtype {array.dtype}; "
            f"convert it with .astype(numpy.float32)"
        )
    if not array.size:
        raise ValueError(f"{layer.label}: {name} is empty: it has shape {array.shape}")
    if dtype is None:
        dtype = FLOATS[array.dtype.itemsize >= 8]
    return array.astype(dtype, copy=False)


def as_output_grad(layer: Labelled, grad: ArrayLike, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return `grad` as an array of `dtype`, having checked that it has the output's `shape`.

    Raises
    ------
    TypeError
        If the values are not floats.
    ValueError
        If the shape is another one than the output's.
    """
    if type(grad) is np.ndarray and grad.shape == shape and grad.dtype == dtype:
        return grad
    array = as_floats(layer, grad, dtype, name="a gradient")
    if array.shape != shape:
        raise ValueError(
            f"{layer.label}: backward expects the gradient of its output, of shape {shape}, "
            f"got shape {array.shape}"
        )
    return array


def boolean(value: Any, what: str, cure: str = "") -> bool:
    """Return `value` as a bool, or raise a TypeError that names it `what` and ends with `cure`."""
    if not isinstance(value, (bool, np.bool_)):
        shown = repr(value)
        shown = shown if len(shown) <= 60 and "\n" not in shown else type(value).__name__
        raise TypeError(f"{what} must be True or False, got {shown}{cure and '; ' + cure}")
    return bool(value)


def integer(value: Any, what: str, minimum: float = 1) -> int:
    """Return `value` as an int of at least `minimum`, or raise an error that names it `what`."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{what} must be an int, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an int, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{what} must be at least {minimum}, got {number}")
    return number


def number(value: Any, what: str, minimum: float = -math.inf, maximum: float = math.inf) -> float:
    """Return `value` as a finite float within the limits, or raise an error naming it `what`."""
    if type(value) is float and minimum <= value <= maximum and math.isfinite(value):
        return value
    if isinstance(value, (bool, str)) or np.ndim(value) != 0:
        raise TypeError(f"{what} must be a number, got {value!r}")
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be a number, got {value!r}") from None
    except OverflowError:
        raise ValueError(f"{what} must be finite, got an int beyond the range of float") from None
    if not math.isfinite(result):
        raise ValueError(f"{what} must be finite, got {result}")
    if not minimum <= result <= maximum:
        limits = f"at least {minimum:g}"
        if maximum != math.inf:
            limits = f"between {minimum:g} and {maximum:g}"
        raise ValueError(f"{what} must be {limits}, got {result:g}")
    return result


def positive(value: Any, what: str) -> float:
    """Return `value` as a finite float above 0, or raise an error that names it `what`."""
    result = number(value, what, minimum=0)
    if not result:
        raise ValueError(f"{what} must be above 0, got 0")
    return result


def fraction(value: Any, what: str) -> float:
    """Return `value` as a float in [0, 1), or raise an error that names it `what`."""
    result = number(value, what, minimum=0, maximum=1)
    if result == 1:
        raise ValueError(f"{what} must be below 1, got 1")
    return result


def one_of(value: Any, choices: tuple[str, ...], what: str) -> str:
    """Return `value` if it is one of `choices`, or raise an error that names it `what`."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{what} must be one of {listed}; got {value!r}")
    return str(value)


def class_indices(
    target: ArrayLike, scores: Array, ignore_index: int, who: str | Labelled
) -> tuple[Array, bool]:
    """Return `target` as class indices for `scores`, and whether any of them is to be ignored.

    Losses and metrics call it, so that both take the same labels. The name of a loss is looked up
    for an error alone, since it takes longer than the check.

    Raises
    ------
    ValueError
        If `scores` of shape (N, C, d1, ...) has not a label of shape (N, d1, ...) for each, or if
        a label is neither in [0, C) nor `ignore_index`.
    TypeError
        If the labels are not integers.
    """
    labels = np.asarray(target)
    shape = scores.shape
    if len(shape) < 2:
        raise ValueError(
            f"{_name(who)}: expected predictions of shape (N, classes, ...), got {shape}"
        )
    argmax = "turn one-hot rows into indices with argmax(axis=1)"
    if labels.dtype.kind not in "iu":
        cures = {
            "f": argmax if labels.shape == shape else "convert them with .astype(int)",
            "b": "convert them with .astype(int)",
        }
        cure = cures.get(
            labels.dtype.kind,
            "number the classes: names, labels = numpy.unique(labels, return_inverse=True)",
        )
        raise TypeError(
            f"{_name(who)}: expected labels of an integer dtype (class indices), got "
            f"{labels.dtype}, shape {labels.shape}; {cure}"
        )
    expected = shape[:1] + shape[2:]
    if labels.shape != expected:
        cure = f"; {argmax}" if labels.shape == shape else ""
        raise ValueError(
            f"{_name(who)}: predictions of shape {shape} need labels of shape {expected}, "
            f"got {labels.shape}{cure}"
        )
    classes = shape[1]
    indices = labels.astype(np.intp, copy=False)
    # Without its sign a negative number is a large one: one comparison finds both faults.
    unsigned = indices.view(np.uintp)
    if unsigned.item(unsigned.argmax()) < classes:
        return indices, 0 <= ignore_index < classes and ignore_index in labels
    counted = labels[labels != ignore_index]
    wrong = counted[(counted < 0) | (counted >= classes)]
    if wrong.size:
        raise ValueError(
            f"{_name(who)}: labels must be in [0, {classes}) for {classes} classes, got {wrong[0]}"
        )
    return indices, True


def _name(who: str | Labelled) -> str:
    return who if isinstance(who, str) else who.label
