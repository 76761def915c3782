"""Checks of arguments and arrays, shared by layers, losses and optimizers."""

from __future__ import annotations

import math
import operator
import sys
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from .engine.arrays import FLOATS, Array


class Labelled(Protocol):
    """An object with a name for error messages, such as a layer or a loss."""

    @property
    def label(self) -> str:
        """The name."""


def as_floats(
    layer: Labelled, values: ArrayLike, dtype: np.dtype[Any] | None = None, name: str = "input"
) -> Array:
    """Return `values` as a non-empty array of floats, of `dtype` if it is given.

    A layer calls it on every input, with the dtype of its parameters if it has any, so that a
    stray float64 array does not turn a float32 network into a float64 one.

    Raises
    ------
    TypeError
        If the values are not floats, but integers or booleans, for example.
    ValueError
        If the array is empty.
    """
    if (
        type(values) is np.ndarray
        and (values.dtype == dtype if dtype is not None else values.dtype in FLOATS)
        and values.size
    ):
        return values
    check_is_array(values, layer)
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


def floats_of_one_dtype(layer: Labelled, *operands: ArrayLike) -> list[Array]:
    """Return `operands` as float32 arrays, or as float64 if all of them are float64.

    Raises
    ------
    TypeError
        If there are none, or one is not of floats.
    """
    if not operands:
        raise TypeError(f"{layer.label}: expected one input or more, got none")
    arrays = [as_floats(layer, operand) for operand in operands]
    if any(array.dtype != arrays[0].dtype for array in arrays):
        return [array.astype(np.float32, copy=False) for array in arrays]
    return arrays


def check_is_array(values: Any, owner: Labelled | str) -> None:
    """Raise a TypeError for a masked or sparse array, whose mask or values NumPy would lose.

    The same holds for a list or tuple that contains masked arrays.
    """
    if type(values) is np.ndarray:
        return
    if np.ma.is_masked(values) or (
        isinstance(values, (list, tuple))
        and any(isinstance(item, np.ma.MaskedArray) and np.ma.is_masked(item) for item in values)
    ):
        raise TypeError(
            f"{_name(owner)}: a masked array would lose its mask; replace the masked elements with "
            f".filled(value)"
        )
    if hasattr(values, "toarray"):
        raise TypeError(
            f"{_name(owner)}: expected arrays, got {type(values).__name__}; convert it with "
            f".toarray()"
        )


def as_output_grad(layer: Labelled, grad: ArrayLike, shape: tuple[int, ...], dtype: Any) -> Array:
    """Check that `grad` has the output's `shape`; return it as an array of `dtype`.

    Raises
    ------
    TypeError
        If the values are not floats.
    ValueError
        If `grad` has another shape.
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
    """Return `value` as a bool, or raise a TypeError that names it `what`, with `cure` appended."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{what} must be True or False, got {shown(value)}{cure and '; ' + cure}")
    return bool(value)


def shown(value: Any) -> str:
    """Return the repr of `value` for a message, or the name of its type if that is long."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else type(value).__name__


def integer(value: Any, what: str, minimum: float = 1) -> int:
    """Return `value` as an int of at least `minimum`, or raise an error that names it `what`."""
    if type(value) is int and minimum <= value <= sys.maxsize:
        return value
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{what} must be an int, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an int, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{what} must be at least {minimum}, got {number}")
    if number > sys.maxsize:
        raise ValueError(f"{what} must be at most {sys.maxsize}, got an int beyond it")
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
    target: ArrayLike, scores: Array, ignore_index: int | None, owner: Labelled | str
) -> tuple[Array, bool]:
    """Return `target` as class indices for `scores`, and whether any of them is ignored.

    Losses and metrics both call it, so they accept the same labels.

    Raises
    ------
    ValueError
        If `scores` is not (N, C, d1, ...) and `target` (N, d1, ...), or if a label is neither in
        [0, C) nor `ignore_index`.
    TypeError
        If the labels are not integers.
    """
    check_is_array(target, owner)
    labels = np.asarray(target)
    shape = scores.shape
    if len(shape) < 2:
        raise ValueError(
            f"{_name(owner)}: expected predictions of shape (N, classes, ...), got {shape}"
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
            f"{_name(owner)}: expected labels of an integer dtype (class indices), got "
            f"{labels.dtype}, shape {labels.shape}; {cure}"
        )
    expected = shape[:1] + shape[2:]
    if labels.shape != expected:
        cure = f"; {argmax}" if labels.shape == shape else ""
        raise ValueError(
            f"{_name(owner)}: predictions of shape {shape} need labels of shape {expected}, "
            f"got {labels.shape}{cure}"
        )
    classes = shape[1]
    indices = labels.astype(np.intp, copy=False)
    # As an unsigned integer a negative label is large, so one comparison finds both errors.
    unsigned = indices.view(np.uintp)
    if unsigned.item(unsigned.argmax()) < classes:
        is_class = ignore_index is not None and 0 <= ignore_index < classes
        return indices, is_class and ignore_index in labels
    counted = labels if ignore_index is None else labels[labels != ignore_index]
    wrong = counted[(counted < 0) | (counted >= classes)]
    if wrong.size:
        raise ValueError(
            f"{_name(owner)}: labels must be in [0, {classes}) for {classes} classes, "
            f"got {wrong[0]}"
        )
    return indices, True


def _name(owner: Labelled | str) -> str:
    """Return the name of `owner` for a message. Labels are slow, so only errors use them."""
    return owner if isinstance(owner, str) else owner.label
