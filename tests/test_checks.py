"""The shared checks: accepted values and error messages."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nnlite as nn
from nnlite.checks import as_floats, as_output_grad, boolean, integer, number, one_of

LAYER = nn.Linear(3, 2)
F4, F8 = np.dtype(np.float32), np.dtype(np.float64)


# ---- as_floats ----


def test_an_array_that_fits_is_handed_on_without_a_copy() -> None:
    for dtype in (F4, F8):
        x = np.ones((2, 3), dtype)
        assert as_floats(LAYER, x) is x
        assert as_floats(LAYER, x, dtype) is x
    view = np.ones((4, 3), F4)[::2]
    assert as_floats(LAYER, view, F4) is view


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (F4, F4),
        (F8, F8),
        (np.float16, F4),
        (np.longdouble, F8),
        (">f4", F4),
        (">f8", F8),
    ],
)
def test_without_a_wanted_dtype_floats_become_the_nearest_of_the_two(given: Any, kept: Any) -> None:
    array = as_floats(LAYER, np.ones((2, 3), given))
    assert array.dtype == kept
    assert array.dtype.isnative
    assert_array_equal(array, np.ones((2, 3)))


@pytest.mark.parametrize("given", [F4, F8, np.float16, np.longdouble, ">f4", ">f8"])
@pytest.mark.parametrize("wanted", [F4, F8])
def test_with_a_wanted_dtype_floats_become_that(given: Any, wanted: Any) -> None:
    array = as_floats(LAYER, np.ones((2, 3), given), wanted)
    assert array.dtype == wanted
    assert array.dtype.isnative


def test_lists_of_floats_are_floats() -> None:
    assert_array_equal(as_floats(LAYER, [[1.0, 2.0]], F4), np.array([[1, 2]], F4))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.ones(3, int), "int64"),
        (np.ones(3, np.uint8), "uint8"),
        (np.ones(3, bool), "bool"),
        (np.ones(3, complex), "complex128"),
        (np.array(["a"]), "<U1"),
        (np.array([1.0, None]), "object"),
        (np.zeros(3, "datetime64[s]"), r"datetime64\[s\]"),
        ([1, 2], "int64"),
        (None, "object"),
        ("text", "<U4"),
    ],
)
def test_what_are_not_floats_are_an_error_that_names_the_cure(values: Any, dtype: str) -> None:
    message = (
        rf"^Linear\(3, 2\): expected input of floats, got dtype {dtype}; "
        rf"convert it with \.astype\(numpy\.float32\)$"
    )
    with pytest.raises(TypeError, match=message):
        as_floats(LAYER, values)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_no_values_are_an_error_that_shows_the_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^Linear\(3, 2\): input is empty.*\(.*0.*\)$"):
        as_floats(LAYER, np.zeros(shape))


def test_ragged_lists_are_an_error_of_the_layer() -> None:
    with pytest.raises((TypeError, ValueError), match=r"^Linear\(3, 2\): "):
        as_floats(LAYER, [[1.0, 2.0], [3.0]])


# ---- as_output_grad ----


def test_a_gradient_that_fits_is_handed_on_without_a_copy() -> None:
    grad = np.ones((4, 2), F4)
    assert as_output_grad(LAYER, grad, (4, 2), F4) is grad
    assert as_output_grad(LAYER, grad.astype(F8), (4, 2), F4).dtype == F4


def test_a_gradient_of_another_shape_is_an_error_that_shows_both() -> None:
    message = (
        r"^Linear\(3, 2\): backward expects the gradient of its output, of shape \(4, 2\), "
        r"got shape \(2, 4\)$"
    )
    with pytest.raises(ValueError, match=message):
        as_output_grad(LAYER, np.ones((2, 4)), (4, 2), F4)


# ---- integer ----


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_integers_of_every_kind_are_ints(value: Any) -> None:
    result = integer(value, "size")
    assert result == 3
    assert type(result) is int


@pytest.mark.parametrize("value", [3.0, "3", None, True, np.bool_(True), [3], np.array([3]), 3j])
def test_what_is_not_an_integer_is_an_error(value: Any) -> None:
    with pytest.raises(TypeError, match="^size must be an int, got"):
        integer(value, "size")


def test_an_integer_that_is_too_small_is_an_error() -> None:
    assert integer(0, "size", minimum=0) == 0
    with pytest.raises(ValueError, match="^size must be at least 1, got 0$"):
        integer(0, "size")


def test_an_integer_beyond_any_array_is_an_error() -> None:
    with pytest.raises(ValueError, match="^Linear: in_features must be at most [0-9]+, got an int"):
        nn.Linear(10**400, 2)


# ---- number ----


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int8(1), np.array(1.0), Fraction(1)])
def test_numbers_of_every_kind_are_floats(value: Any) -> None:
    result = number(value, "rate")
    assert result == 1
    assert type(result) is float


@pytest.mark.parametrize("value", ["1", None, True, [1.0], np.ones(1), 1j])
def test_what_is_not_a_number_is_an_error(value: Any) -> None:
    with pytest.raises(TypeError, match="^rate must be a number, got"):
        number(value, "rate")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_what_is_not_finite_is_an_error(value: Any) -> None:
    with pytest.raises(ValueError, match="^rate must be finite, got"):
        number(value, "rate", minimum=0, maximum=1)


def test_a_number_out_of_range_is_an_error_that_shows_the_range() -> None:
    assert number(0, "rate", 0, 1) == 0
    assert number(1, "rate", 0, 1) == 1
    with pytest.raises(ValueError, match="^rate must be between 0 and 1, got 1.5$"):
        number(1.5, "rate", 0, 1)
    with pytest.raises(ValueError, match="^rate must be at least 0, got -0.5$"):
        number(-0.5, "rate", 0)


# ---- one_of ----


def test_one_of_several_strings() -> None:
    assert one_of("sum", ("mean", "sum"), "reduction") == "sum"


@pytest.mark.parametrize("value", ["Sum", "", None, 1, ["sum"]])
def test_none_of_several_strings_is_an_error_that_lists_them(value: Any) -> None:
    with pytest.raises(ValueError, match="^reduction must be one of 'mean', 'sum'; got"):
        one_of(value, ("mean", "sum"), "reduction")


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_a_boolean_is_a_bool(value: Any) -> None:
    assert boolean(value, "it") is bool(value)


@pytest.mark.parametrize("value", ["no", "cpu", 0, 1, None, np.ones((50, 50))])
def test_what_only_counts_as_true_or_false_is_no_boolean(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^it must be True or False, got .{1,60}; cure$"):
        boolean(value, "it", "cure")


@pytest.mark.parametrize(
    "make",
    [
        lambda no: nn.Linear(3, 2, no),
        lambda no: nn.Conv1d(1, 1, 2, bias=no),
        lambda no: nn.Conv2d(1, 1, 2, bias=no),
        lambda no: nn.MaxPool1d(2, ceil_mode=no),
        lambda no: nn.MaxPool2d(2, ceil_mode=no),
        lambda no: nn.AvgPool1d(2, count_include_pad=no),
        lambda no: nn.AvgPool2d(2, count_include_pad=no),
        lambda no: nn.BatchNorm1d(2, affine=no),
        lambda no: nn.BatchNorm2d(2, track_running_stats=no),
        lambda no: nn.LayerNorm(2, elementwise_affine=no),
        lambda no: nn.LayerNorm(2, bias=no),
        lambda no: nn.RNN(1, 1, bias=no),
        lambda no: nn.LSTM(1, 1, bidirectional=no),
        lambda no: nn.Linear(1, 1).train(no),
        lambda no: nn.Linear(1, 1).requires_grad_(no),
    ],
)
@pytest.mark.parametrize("no", ["no", "cpu", np.zeros((2, 2))])
def test_options_that_are_no_booleans_are_refused(make: Any, no: Any) -> None:
    with pytest.raises(TypeError, match=r"^[A-Z]\w+: \w+ must be True or False, got"):
        make(no)


def test_masked_and_sparse_arrays_are_refused_with_the_cure() -> None:
    masked = np.ma.masked_array([[1.0, 2.0]], [[True, False]])
    with pytest.raises(TypeError, match=r"a masked array would lose its mask; .*\.filled"):
        nn.Linear(2, 1)(masked)
    nothing_masked = np.ma.masked_array([[1.0, 2.0]])
    assert nn.Linear(2, 1)(nothing_masked).shape == (1, 1)

    class Sparse:
        def toarray(self) -> None: ...

    with pytest.raises(TypeError, match=r"expected arrays, got Sparse; convert .*\.toarray\(\)"):
        nn.Linear(2, 1)(Sparse())  # type: ignore[arg-type]


MASKED_FLOATS = np.ma.masked_array([[1.0, 2.0]], [[True, False]])
MASKED_LABELS = np.ma.masked_array([0, 1], [True, False])
SCORES = np.eye(2)


@pytest.mark.parametrize(
    "take",
    [
        lambda: nn.CrossEntropy()(SCORES, MASKED_LABELS),
        lambda: nn.accuracy(SCORES, MASKED_LABELS),
        lambda: nn.accuracy(MASKED_FLOATS, [0]),
        lambda: nn.binary_accuracy(MASKED_FLOATS, [[0, 1]]),
        lambda: nn.binary_accuracy([1.0, -1.0], MASKED_LABELS),
        lambda: nn.top_k_accuracy(SCORES, MASKED_LABELS, k=1),
        lambda: nn.confusion_matrix(SCORES, MASKED_LABELS),
        lambda: nn.Embedding(3, 2)(MASKED_LABELS),
        lambda: nn.Parameter(MASKED_FLOATS),
        lambda: setattr(nn.Parameter([[1.0, 2.0]]), "data", MASKED_FLOATS),
        lambda: setattr(nn.Parameter([[1.0, 2.0]]), "grad", MASKED_FLOATS),
        lambda: nn.DataLoader([MASKED_FLOATS]),
        lambda: nn.DataLoader([MASKED_FLOATS, MASKED_FLOATS], [0, 1]),
    ],
)
def test_masked_arrays_are_refused_wherever_arrays_are_taken(take: Any) -> None:
    with pytest.raises(TypeError, match=r"a masked array would lose its mask; .*\.filled"):
        take()
