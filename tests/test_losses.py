"""Losses: the contract of all losses, and the formulas and errors of each."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

from .registry import LOSSES, Array, LossCase
from .test_layer import MEMORY_LAYOUTS

MEANS = ("mean", "batchmean")

every_loss = pytest.mark.parametrize("case", LOSSES, ids=lambda case: case.name)


def name(loss: nn.Layer) -> str:
    return f"^{type(loss).__name__}\\("


def call(loss: nn.Layer, case: LossCase, batch: int = 4, seed: int = 0) -> tuple[Array, Any, Array]:
    """Return the prediction, the loss and a gradient of the loss's shape."""
    rng = np.random.default_rng(seed)
    prediction = case.prediction(rng, batch)
    value = loss(prediction, case.target(rng, batch))
    return prediction, value, np.asarray(rng.normal(size=np.shape(value)))


# ---- the contract of all losses ----


@every_loss
def test_a_reduced_loss_is_a_python_float(case: LossCase) -> None:
    loss = case.make()
    _, value, _ = call(loss, case)
    if loss.reduction == "none":
        assert isinstance(value, np.ndarray)
    else:
        assert isinstance(value, float)


@every_loss
@pytest.mark.parametrize("batch", [1, 4])
def test_the_gradient_agrees_with_central_differences(case: LossCase, batch: int) -> None:
    rng = np.random.default_rng(0)
    prediction, target = case.prediction(rng, batch), case.target(rng, batch)
    assert nn.gradcheck(case.make(), prediction, target).passed


@every_loss
def test_backward_before_forward_is_an_error_that_says_so(case: LossCase) -> None:
    loss = case.make()
    with pytest.raises(RuntimeError, match=name(loss) + ".*call forward"):
        loss.backward()


@every_loss
def test_a_second_backward_gives_the_same_gradient(case: LossCase) -> None:
    loss = case.make()
    prediction, _, _ = call(loss, case)
    first = loss.backward()
    assert first.shape == prediction.shape
    assert_array_equal(loss.backward(), first)
    assert loss.backward(input_grad=False) is None


@every_loss
def test_the_gradient_is_proportional_to_the_gradient_that_comes_in(case: LossCase) -> None:
    loss = case.make()
    call(loss, case)
    assert_allclose(loss.backward(-2.5), -2.5 * loss.backward(), rtol=1e-12)
    assert_array_equal(loss.backward(1), loss.backward())


@every_loss
def test_an_incoming_gradient_of_another_shape_is_an_error(case: LossCase) -> None:
    loss = case.make()
    call(loss, case)
    for shape in ((3,), (4, 1), (1, 4), (4, 4), (5,), (4, 5)):
        with pytest.raises(ValueError, match=name(loss) + ".*shape"):
            loss.backward(np.ones(shape))


@every_loss
def test_an_incoming_gradient_that_is_no_number_is_an_error(case: LossCase) -> None:
    loss = case.make()
    call(loss, case)
    for grad in ("1", None, object()):
        with pytest.raises(TypeError, match=name(loss)):
            loss.backward(grad)


@every_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_has_the_dtype_of_the_prediction(case: LossCase, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    loss = case.make()
    value = loss(case.prediction(rng, 4).astype(dtype), case.target(rng, 4))
    assert loss.backward().dtype == dtype
    assert loss.backward(np.float64(2)).dtype == dtype
    if loss.reduction == "none":
        assert value.dtype == dtype
        assert loss.backward(np.ones(value.shape)).dtype == dtype


def masks(loss: nn.Layer) -> bool:
    """Whether a prediction of -inf masks a class."""
    return isinstance(loss, (nn.NegativeLogLikelihood, nn.Focal)) or (
        isinstance(loss, nn.CrossEntropy) and loss.from_logits
    )


@every_loss
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite_is_an_error_that_says_where(
    case: LossCase, value: float
) -> None:
    rng = np.random.default_rng(0)
    prediction, target = case.prediction(rng, 4), case.target(rng, 4)
    prediction.reshape(4, -1)[2, -1] = value
    loss = case.make()
    if value == -np.inf and masks(loss):
        return
    shown = "NaN" if math.isnan(value) else str(value)
    with pytest.raises(ValueError, match=rf"{name(loss)}.* {shown} at \(2,.*learning rate"):
        loss(prediction, target)
    with pytest.raises(RuntimeError, match="call forward"):
        loss.backward()


@every_loss
def test_an_empty_batch_is_an_error(case: LossCase) -> None:
    rng = np.random.default_rng(0)
    loss = case.make()
    with pytest.raises(ValueError, match=name(loss) + ".*empty"):
        loss(case.prediction(rng, 4)[:0], case.target(rng, 4)[:0])


@every_loss
def test_a_prediction_that_is_not_of_floats_is_an_error(case: LossCase) -> None:
    rng = np.random.default_rng(0)
    loss, prediction, target = case.make(), case.prediction(rng, 4), case.target(rng, 4)
    for dtype in (np.int64, np.bool_, object, np.complex128):
        with pytest.raises(TypeError, match=name(loss) + r".*floats.*\.astype\(numpy\.float32\)"):
            loss(prediction.astype(dtype), target)


@every_loss
def test_a_target_of_another_length_is_an_error(case: LossCase) -> None:
    rng = np.random.default_rng(0)
    prediction, target = case.prediction(rng, 4), case.target(rng, 4)
    loss = case.make()
    for wrong in (target[:3], target[:1], target[..., None], target[None], target.reshape(-1)[-1]):
        with pytest.raises(ValueError, match=name(loss) + ".*shape"):
            loss(prediction, wrong)


@every_loss
def test_a_forward_that_fails_leaves_the_last_gradient_as_it_was(case: LossCase) -> None:
    rng = np.random.default_rng(0)
    prediction, target = case.prediction(rng, 4), case.target(rng, 4)
    loss = case.make()
    loss(prediction, target)
    expected = loss.backward()
    for wrong in (prediction * np.nan, prediction[:0], prediction.astype(int)):
        with pytest.raises((ValueError, TypeError)):
            loss(wrong, target)
        assert_array_equal(loss.backward(), expected)


@every_loss
def test_a_loss_writes_into_nothing_that_it_got_or_gave(case: LossCase) -> None:
    loss = case.make()
    seen: list[tuple[Array, Array]] = []
    for seed, batch in enumerate((4, 4, 2, 4)):
        rng = np.random.default_rng(seed)
        prediction, target = case.prediction(rng, batch), case.target(rng, batch)
        seen += [(prediction, prediction.copy()), (target, target.copy())]
        value = loss(prediction, target)
        if loss.reduction == "none":
            seen.append((value, value.copy()))
        grad = rng.normal(size=np.shape(value))
        seen.append((grad, np.copy(grad)))
        result = loss.backward(grad)
        seen.append((result, result.copy()))
        for array, before in seen:
            assert_array_equal(array, before)


@every_loss
def test_writing_into_all_that_a_loss_got_and_gave_changes_nothing_later(case: LossCase) -> None:
    loss, untouched = case.make(), case.make()
    for seed, batch in enumerate((4, 4, 2, 4)):
        rng = np.random.default_rng(seed)
        prediction, target = case.prediction(rng, batch), case.target(rng, batch)
        mine = [prediction.copy(), target.copy()]
        value, expected = loss(*mine), untouched(prediction, target)
        assert_allclose(value, expected, rtol=1e-12)
        grad = rng.normal(size=np.shape(value))
        result, expected_result = loss.backward(grad), untouched.backward(grad)
        assert_allclose(result, expected_result, rtol=1e-12)
        for array in (*mine, result, value):
            if isinstance(array, np.ndarray):
                array[...] = 0 if array.dtype.kind in "iu" else np.nan


@every_loss
def test_results_do_not_depend_on_how_the_arrays_lie_in_memory(case: LossCase) -> None:
    rng = np.random.default_rng(0)
    given = case.prediction(rng, 4), case.target(rng, 4)
    for kind, layout in MEMORY_LAYOUTS.items():
        prediction, target = map(layout, given)
        loss, reference = case.make(), case.make()
        value = loss(prediction, target)
        expected = reference(np.array(prediction).tolist(), np.array(target).tolist())
        assert_allclose(value, expected, rtol=1e-12, err_msg=kind)
        grad = np.asarray(rng.normal(size=np.shape(value)))
        laid_out = layout(grad) if grad.ndim else grad
        result, expected = loss.backward(laid_out), reference.backward(np.array(laid_out))
        assert_allclose(result, expected, rtol=1e-12, err_msg=kind)


@every_loss
def test_the_sum_does_not_depend_on_how_samples_are_split_into_batches(case: LossCase) -> None:
    rng = np.random.default_rng(0)
    prediction, target = case.prediction(rng, 7), case.target(rng, 7)
    loss = case.make()
    value, grad = loss(prediction, target), loss.backward()
    total = 0.0
    for part in (slice(0, 4), slice(4, 5), slice(5, 7)):
        value_part = loss(prediction[part], target[part])
        share = 1.0
        if loss.reduction in MEANS:
            share = case.weight(target[part]) / case.weight(target)
        assert_allclose(share * loss.backward(), grad[part], rtol=1e-12)
        total += share * np.sum(value_part)
    assert_allclose(total, np.sum(value), rtol=1e-12)


@every_loss
def test_repr_can_be_typed_back_in_and_copies_are_equal(case: LossCase) -> None:
    loss = case.make()
    _, value, _ = call(loss, case)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        with pytest.raises(RuntimeError, match="call forward"):  # it has no cache of the batch
            twin.backward()
        assert_array_equal(call(twin, case)[1], value)
        assert repr(twin) == repr(loss)
    typed = eval(repr(loss), dict(vars(nn)))
    assert repr(typed) == repr(loss)
    assert_array_equal(call(typed, case)[1], value)


@every_loss
def test_tied_has_a_cache_of_its_own(case: LossCase) -> None:
    loss = case.make()
    call(loss, case, seed=0)
    expected = loss.backward()
    twin = loss.tied()
    with pytest.raises(RuntimeError, match="call forward"):
        twin.backward()
    call(twin, case, seed=1)
    assert_array_equal(loss.backward(), expected)


@every_loss
def test_a_weight_counts_a_sample_as_often_as_it_says(case: LossCase) -> None:
    rng = np.random.default_rng(0)
    prediction, target = case.prediction(rng, 4), case.target(rng, 4)
    times = np.array([3, 1, 0, 2])
    weighted, repeated = case.make(), case.make()
    value = weighted(prediction, target, times)
    expected = repeated(prediction.repeat(times, axis=0), target.repeat(times, axis=0))
    assert_allclose(np.sum(value), np.sum(expected), rtol=1e-12)
    sums = np.add.reduceat(repeated.backward(), [0, 3, 4])
    assert_allclose(weighted.backward(), np.insert(sums, 2, 0, axis=0), rtol=1e-12)


@every_loss
def test_equal_weights_change_nothing_but_the_scale(case: LossCase) -> None:
    loss = case.make()
    rng = np.random.default_rng(0)
    prediction, target = case.prediction(rng, 4), case.target(rng, 4)
    plain, grad = loss(prediction, target), loss.backward()
    scale = 1.0 if loss.reduction in MEANS else 2.5
    assert_allclose(loss(prediction, target, np.full(4, 2.5)), scale * plain, rtol=1e-12)
    assert_allclose(loss.backward(), scale * grad, rtol=1e-12)


@every_loss
def test_float64_targets_and_weights_do_not_change_the_dtype(case: LossCase) -> None:
    rng = np.random.default_rng(0)
    loss = case.make()
    prediction = case.prediction(rng, 4).astype(np.float32)
    value = loss(prediction, case.target(rng, 4), np.array([0.5, 1.0, 2.0, 1.0]))
    assert loss.backward().dtype == np.float32
    if loss.reduction == "none":
        assert value.dtype == np.float32


@every_loss
def test_wrong_sample_weights_are_an_error(case: LossCase) -> None:
    rng = np.random.default_rng(0)
    loss, given = case.make(), (case.prediction(rng, 4), case.target(rng, 4))
    wrong: list[tuple[Any, type[Exception]]] = [
        ([1.0, 1.0, 1.0], ValueError),
        ([[1.0], [1.0], [1.0], [1.0]], ValueError),
        (1.0, ValueError),
        ([1.0, -1.0, 1.0, 1.0], ValueError),
        ([1.0, np.nan, 1.0, 1.0], ValueError),
        (["a", "b", "c", "d"], TypeError),
        ([True, False, True, True], TypeError),
    ]
    for weights, error in wrong:
        with pytest.raises(error, match=f"{name(loss)}.*sample weights"):
            loss(*given, weights)


@every_loss
def test_a_batch_without_weight_has_no_mean_but_a_sum(case: LossCase) -> None:
    rng = np.random.default_rng(0)
    loss = case.make()
    prediction, target = case.prediction(rng, 4), case.target(rng, 4)
    if loss.reduction in MEANS:
        with pytest.raises(ValueError, match=f"{name(loss)}.*sample weights.*not all zero"):
            loss(prediction, target, np.zeros(4))
    else:
        assert_array_equal(loss(prediction, target, np.zeros(4)), 0)
        assert_array_equal(loss.backward(), np.zeros_like(prediction))


@every_loss
def test_masked_targets_and_weights_are_refused(case: LossCase) -> None:
    rng = np.random.default_rng(0)
    loss = case.make()
    prediction, target = case.prediction(rng, 4), case.target(rng, 4)
    masked = np.ma.masked_array(target, np.arange(target.size).reshape(target.shape) == 1)
    with pytest.raises(TypeError, match=r"masked array.*\.filled"):
        loss(prediction, masked)
    with pytest.raises(TypeError, match=r"masked array.*\.filled"):
        loss(prediction, target, np.ma.masked_array(np.ones(4), [0, 1, 0, 0]))


@every_loss
def test_an_unknown_reduction_is_an_error_that_lists_the_known_ones(case: LossCase) -> None:
    kind = type(case.make())
    message = f"^{kind.__name__}: reduction must be one of 'mean', 'sum', 'none'.*; got 'average'$"
    with pytest.raises(ValueError, match=message):
        kind(reduction="average")


# ---- CrossEntropy ----


def test_cross_entropy_of_equal_logits_is_the_log_of_the_number_of_classes() -> None:
    loss = nn.CrossEntropy()
    assert loss(np.zeros((3, 10)), np.array([0, 4, 9])) == pytest.approx(math.log(10), rel=1e-15)
    # (softmax - one-hot) / N
    expected = np.full((3, 10), 0.1)
    expected[[0, 1, 2], [0, 4, 9]] -= 1
    assert_allclose(loss.backward(), expected / 3, rtol=1e-14)


def test_cross_entropy_by_hand() -> None:
    # Softmax of (log 1, log 2, log 5) is (1, 2, 5) / 8, whatever is added to all three.
    x = np.log([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]) + np.array([[0.0], [100.0]])
    target = np.array([2, 0])
    losses = np.array([math.log(8 / 5), math.log(8)])
    assert_allclose(nn.CrossEntropy("none")(x, target), losses, rtol=1e-13)
    assert nn.CrossEntropy("sum")(x, target) == pytest.approx(losses.sum(), rel=1e-13)
    assert nn.CrossEntropy()(x, target) == pytest.approx(losses.mean(), rel=1e-13)
    loss = nn.CrossEntropy("sum")
    loss(x, target)
    expected = [[1 / 8, 2 / 8, 5 / 8 - 1], [1 / 8 - 1, 2 / 8, 5 / 8]]
    assert_allclose(loss.backward(), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_is_stable_for_logits_of_ten_thousand(dtype: Any) -> None:
    x = np.array([[1e4, -1e4], [1e4, -1e4], [-1e4, -1e4], [1e4, 1e4]], dtype)
    loss = nn.CrossEntropy("none")
    with np.errstate(all="raise", under="ignore"):
        losses = loss(x, np.array([0, 1, 0, 1]))
        grad = loss.backward()
    assert_allclose(losses, [0, 2e4, math.log(2), math.log(2)], rtol=1e-6)
    assert_array_equal(grad, [[0, 0], [1, -1], [-0.5, 0.5], [0.5, -0.5]])


def test_a_sure_and_right_prediction_still_has_a_loss_above_zero() -> None:
    # log(1 + exp(-30)) = 9.36e-14 is within reach of float64, with the largest logit taken off.
    value = nn.CrossEntropy()(np.array([[30.0, 0.0]]), np.array([0]))
    assert value == pytest.approx(math.log1p(math.exp(-30)), rel=2e-3)


@given(
    batch=st.integers(1, 5),
    classes=st.integers(1, 6),
    axes=st.lists(st.integers(1, 3), max_size=2),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    from_logits=st.booleans(),
)
def test_gradients_agree_with_central_differences_for_all_shapes_and_options(
    batch: int, classes: int, axes: list[int], reduction: str, from_logits: bool
) -> None:
    rng = np.random.default_rng(1)
    prediction = rng.normal(size=(batch, classes, *axes))
    if not from_logits:
        prediction = nn.Softmax(dim=1)(prediction)
    target = rng.integers(classes, size=(batch, *axes))
    assert nn.gradcheck(nn.CrossEntropy(reduction, from_logits), prediction, target).passed


@given(batch=st.integers(1, 5), classes=st.integers(2, 6))
def test_the_gradient_of_each_sample_sums_to_zero(batch: int, classes: int) -> None:
    # Adding a number to all logits of a sample changes nothing.
    rng = np.random.default_rng(1)
    loss = nn.CrossEntropy()
    loss(rng.normal(size=(batch, classes)), rng.integers(classes, size=batch))
    assert_allclose(loss.backward().sum(axis=1), 0, atol=1e-15)


@given(batch=st.integers(1, 5), classes=st.integers(2, 6))
def test_a_softmax_layer_with_the_loss_of_probabilities_is_the_fused_loss(
    batch: int, classes: int
) -> None:
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(batch, classes)), rng.integers(classes, size=batch)
    fused, softmax, loss = nn.CrossEntropy(), nn.Softmax(), nn.CrossEntropy(from_logits=False)
    assert loss(softmax(x), target) == pytest.approx(fused(x, target), rel=1e-12, abs=1e-15)
    assert_allclose(softmax.backward(loss.backward()), fused.backward(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_probability_of_zero_gives_a_large_and_finite_loss_and_gradient(dtype: Any) -> None:
    loss = nn.CrossEntropy(from_logits=False)
    with np.errstate(all="raise"):
        value = loss(np.array([[1.0, 0.0]], dtype), np.array([1]))
        grad = loss.backward()
    assert value == pytest.approx(-math.log(np.finfo(dtype).tiny), rel=1e-6)
    assert np.isfinite(grad).all()
    assert grad[0, 1] < 0


@pytest.mark.parametrize(
    "dtype",
    [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64, ">i4", ">u8"],
)
@pytest.mark.parametrize("from_logits", [True, False])
def test_labels_may_be_of_every_integer_dtype(dtype: Any, from_logits: bool) -> None:
    prediction = np.full((300, 3), 1 / 3)
    prediction[:, 1:] = [[0.5, 1 / 6]]
    loss = nn.CrossEntropy("none", from_logits)
    expected = loss(prediction, [0, 1, 2] * 100) if not from_logits else None
    if expected is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            expected = loss(prediction, [0, 1, 2] * 100)
    assert_array_equal(loss(prediction, np.tile(np.arange(3), 100).astype(dtype)), expected)
    loss.backward()


@pytest.mark.parametrize("kind", [nn.CrossEntropy, nn.NegativeLogLikelihood])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_may_be_as_large_as_their_dtype_allows(kind: Any, dtype: Any) -> None:
    # Their squares, and the sum of these, are not.
    scores = np.array([[-1, -0.5], [-1, 0]], dtype) * np.finfo(dtype).max
    assert np.isfinite(kind("none")(scores, [1, 1])).all()


@pytest.mark.parametrize("memory_order", ["C", "F"])
@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_not_finite_is_found_wherever_it_is(
    memory_order: Any, place: tuple[int, int], value: float
) -> None:
    predictions = np.zeros((3, 4), np.float32, order=memory_order)
    predictions[place] = value
    message = rf"contain {'NaN' if np.isnan(value) else value} at \({place[0]}, {place[1]}\)"
    with pytest.raises(ValueError, match=message):
        nn.CrossEntropy()(predictions, [0, 0, 0])


def test_a_label_that_no_index_can_hold_is_named_as_it_is() -> None:
    largest = 2**64 - 1
    for ignored in (-1, -100):
        with pytest.raises(ValueError, match=f"got {largest}$"):
            nn.CrossEntropy(ignore_index=ignored)(
                np.zeros((2, 3)), np.array([0, largest], np.uint64)
            )


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([0, 1, 3, 0], ValueError, r"labels must be in \[0, 3\) for 3 classes, got 3$"),
        ([0, -1, 2, 0], ValueError, r"labels must be in \[0, 3\) for 3 classes, got -1$"),
        ([0, 1, 2], ValueError, r"\(4, 3\) need labels of shape \(4,\), got \(3,\)"),
        ([[0], [1], [2], [0]], ValueError, r"labels of shape \(4,\), got \(4, 1\)"),
        (2, ValueError, r"labels of shape \(4,\), got \(\)"),
        ([0.0, 1.0, 2.0, 0.0], TypeError, "labels of an integer dtype.*got float64"),
        ([True, False, True, True], TypeError, "labels of an integer dtype.*got bool"),
        (["a", "b", "c", "a"], TypeError, "labels of an integer dtype.*got <U1"),
        (None, TypeError, "labels of an integer dtype.*got object"),
        (np.eye(4, 3), (ValueError, TypeError), "argmax"),
        (np.eye(4, 3, dtype=int), (ValueError, TypeError), "argmax"),
    ],
    ids=[
        "too high",
        "negative",
        "too few",
        "a column",
        "one number",
        "floats",
        "booleans",
        "strings",
        "nothing",
        "one-hot",
        "one-hot of integers",
    ],
)
def test_wrong_labels_are_an_error(target: Any, error: Any, message: str) -> None:
    for loss in (nn.CrossEntropy(), nn.CrossEntropy(from_logits=False)):
        with pytest.raises(error, match=r"^CrossEntropy\(.*\): .*" + message):
            loss(nn.Softmax()(np.random.default_rng(0).normal(size=(4, 3))), target)


@pytest.mark.parametrize("shape", [(4,), ()])
def test_predictions_without_a_class_axis_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^CrossEntropy\(\): .*\(N, classes, \.\.\.\)"):
        nn.CrossEntropy()(np.ones(shape), np.zeros(shape, int))


@pytest.mark.parametrize(
    "prediction",
    [[[2.0, -1.0]], [[0.5, 0.6]], [[0.2, 0.2]], [[1.5, -0.5]], [[0.5, 0.5], [3.0, 4.0]]],
    ids=["logits", "sum too large", "sum too small", "negative", "second row"],
)
def test_what_are_not_probabilities_are_an_error_for_the_loss_of_probabilities(
    prediction: list[list[float]],
) -> None:
    message = r"^CrossEntropy\(from_logits=False\): expected probabilities.*nn\.Softmax\(\)"
    with pytest.raises(ValueError, match=message):
        nn.CrossEntropy(from_logits=False)(prediction, [0] * len(prediction))


def test_float32_probabilities_of_many_classes_are_probabilities() -> None:
    x = np.random.default_rng(0).normal(size=(8, 20_000)).astype(np.float32)
    loss = nn.CrossEntropy(from_logits=False)
    assert math.isfinite(loss(nn.Softmax()(x), np.zeros(8, int)))


def test_probabilities_given_as_logits_are_warned_of_once() -> None:
    loss = nn.CrossEntropy()
    probabilities = nn.Softmax()(np.random.default_rng(0).normal(size=(4, 3)))
    with pytest.warns(UserWarning, match=r"expects logits.*from_logits=False") as caught:
        loss(probabilities, [0, 1, 2, 0])
    assert caught[0].filename == __file__
    loss(probabilities, [0, 1, 2, 0])


def test_logits_are_not_warned_of(rng: np.random.Generator) -> None:
    # Warnings are errors in these tests.
    nn.CrossEntropy()(rng.normal(size=(4, 3)), [0, 1, 2, 0])
    nn.CrossEntropy()(np.zeros((4, 3)), [0, 1, 2, 0])


@pytest.mark.parametrize(
    ("loss", "score"),
    [
        (nn.CrossEntropy(), 1.0),
        (nn.CrossEntropy(from_logits=False), 1.0),
        (nn.NegativeLogLikelihood(), 0.0),
        (nn.Focal(), 1.0),
    ],
    ids=repr,
)
def test_one_class_has_no_loss_and_is_warned_of(loss: nn.Loss, score: float) -> None:
    with pytest.warns(UserWarning, match="a single class.* use BinaryCrossEntropy"):
        assert loss(np.full((2, 1), score), [0, 0]) == 0


def test_raw_logits_given_as_log_probabilities_are_warned_of_once() -> None:
    loss = nn.NegativeLogLikelihood()
    for scores in (np.array([[1.0, -2.0]]), np.array([[0.25, 0.75]])):  # logits, probabilities
        with pytest.warns(UserWarning, match="expects log-probabilities.*LogSoftmax"):
            nn.NegativeLogLikelihood()(scores, [0])
    loss(np.log([[0.25, 0.75]]), [0])
    loss(np.array([[1.0, -2.0]]), [0])


def test_sigmoids_given_as_logits_are_warned_of_once(rng: np.random.Generator) -> None:
    logits, targets = rng.normal(size=(8, 1)), rng.integers(2, size=(8, 1))
    loss = nn.BinaryCrossEntropy()
    with pytest.warns(UserWarning, match="look like probabilities.*Sigmoid"):
        loss(nn.Sigmoid()(logits), targets)
    loss(nn.Sigmoid()(logits), targets)
    nn.BinaryCrossEntropy()(logits, targets)
    nn.BinaryCrossEntropy()(np.full((8, 1), 0.1), targets)  # logits of a network that is new
    nn.BinaryCrossEntropy(from_logits=False)(nn.Sigmoid()(logits), targets)
    with pytest.warns(UserWarning, match="look like probabilities"):  # some are 0 and 1 exactly
        nn.BinaryCrossEntropy()(np.repeat([[0.0], [0.2], [1.0]], 8, axis=0), np.zeros((24, 1)))


# ---- masked classes ----


def test_a_masked_class_has_no_probability_and_no_gradient() -> None:
    # torch.nn.functional.cross_entropy(torch.tensor([[1, -inf, 2]]), torch.tensor([0])) gives
    # 1.3132616 with the gradient [-0.7310586, 0, 0.7310586].
    logits = np.array([[1.0, -np.inf, 2.0]])
    loss = nn.CrossEntropy()
    assert loss(logits, [0]) == pytest.approx(math.log(1 + math.e))
    assert_allclose(loss.backward(), [[-0.7310586, 0, 0.7310586]], atol=1e-7)
    logs = nn.LogSoftmax()
    likelihood = nn.NegativeLogLikelihood()
    assert likelihood(logs(logits), [0]) == pytest.approx(math.log(1 + math.e))
    assert_allclose(logs.backward(likelihood.backward()), loss.backward(), atol=1e-12)


def test_a_masked_class_may_have_the_target_probability_zero() -> None:
    loss = nn.CrossEntropy()
    assert loss(np.array([[1.0, -np.inf, 2.0]]), np.array([[1.0, 0, 0]])) == pytest.approx(
        math.log(1 + math.e)
    )
    assert_allclose(loss.backward(), [[-0.7310586, 0, 0.7310586]], atol=1e-7)


def test_a_masked_class_of_an_ignored_label_is_no_fault() -> None:
    loss = nn.CrossEntropy(ignore_index=1)
    logits = np.array([[1.0, -np.inf, 2.0], [0.0, 0.0, 0.0]])
    assert loss(logits, [1, 2]) == pytest.approx(math.log(3))
    assert_array_equal(loss.backward()[0], 0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_label_that_is_masked_is_an_error_that_names_the_sample(reduction: str) -> None:
    scores = np.array([[-1.0, -1.0, -1.0], [0.0, -np.inf, -2.0]])
    for loss in (nn.CrossEntropy(reduction), nn.NegativeLogLikelihood(reduction)):
        with pytest.raises(ValueError, match="loss of sample 1 is infinite: .* a masked class"):
            loss(scores, [0, 1])
        with pytest.raises(ValueError, match=r"all classes are masked \(-inf\) in sample 1"):
            loss(np.array([[0.0, -1.0], [-np.inf, -np.inf]]), [0, 1])
        with pytest.raises(RuntimeError, match="call forward"):
            loss.backward()
    with pytest.raises(ValueError, match="infinite: .*label smoothing"):
        nn.CrossEntropy(reduction, label_smoothing=0.1)(scores, [0, 0])


# ---- class probabilities as targets ----


@pytest.mark.parametrize("from_logits", [True, False])
def test_target_probabilities_of_one_hot_rows_are_class_indices(
    rng: np.random.Generator, from_logits: bool
) -> None:
    scores = nn.Softmax(dim=1)(rng.normal(size=(6, 4, 2)))
    if from_logits:
        scores = np.log(scores) + 2
    labels = rng.integers(4, size=(6, 2))
    one_hot = np.moveaxis(np.eye(4)[labels], 2, 1)
    for reduction in ("mean", "sum", "none"):
        sparse = nn.CrossEntropy(reduction, from_logits, label_smoothing=0.2)
        dense = nn.CrossEntropy(reduction, from_logits, label_smoothing=0.2)
        assert_allclose(dense(scores, one_hot), sparse(scores, labels), rtol=1e-12)
        assert_allclose(dense.backward(), sparse.backward(), rtol=1e-10, atol=1e-15)


def test_target_probabilities_by_hand() -> None:
    # With equal logits every class has log p = -log 3, whatever the target is.
    target = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    loss = nn.CrossEntropy()
    assert loss(np.zeros((2, 3)), target) == pytest.approx(math.log(3))
    assert_allclose(loss.backward(), (1 / 3 - target) / 2, atol=1e-12)


def test_the_mean_over_target_probabilities_divides_by_their_number() -> None:
    # torch.nn.functional.cross_entropy(x, y, weight=w), which divides by 2 here, not by weights.
    x = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 1.0]])
    y = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    w = np.array([1.0, 2.0, 0.5])
    logs = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    assert nn.CrossEntropy(weight=w)(x, y) == pytest.approx(-(w * y * logs).sum() / 2)


@pytest.mark.parametrize(
    "target", [[[0.5, 0.6]], [[-0.5, 1.5]], [[0.5, np.nan]]], ids=["sum", "range", "NaN"]
)
def test_target_probabilities_that_are_none_are_an_error(target: Any) -> None:
    with pytest.raises(ValueError, match="target probabilities must be in .* sum to 1"):
        nn.CrossEntropy()(np.zeros((1, 2)), target)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("from_logits", [True, False])
def test_the_gradient_of_a_batch_of_one_image_is_whole(order: Any, from_logits: bool) -> None:
    # Softmax of zeros is 1/C everywhere; the label's entry is 1 less, or -1 / (1/C).
    loss = nn.CrossEntropy("sum", from_logits)
    prediction = np.full((1, 4, 2, 3), 0.0 if from_logits else 0.25, order=order)
    target = np.arange(6).reshape(1, 2, 3) % 4
    loss(prediction, target)
    one_hot = np.moveaxis(np.eye(4)[target], -1, 1)
    expected = 0.25 - one_hot if from_logits else -4 * one_hot
    assert_allclose(loss.backward(), expected, rtol=1e-12)


def test_class_weights_by_hand() -> None:
    # With equal logits every -log p is log 2; the mean divides by the weights of the labels.
    loss = nn.CrossEntropy("sum", weight=[1.0, 3.0])
    assert loss(np.zeros((3, 2)), [0, 1, 1]) == pytest.approx(7 * math.log(2))
    assert_allclose(loss.backward(), [[-0.5, 0.5], [1.5, -1.5], [1.5, -1.5]], rtol=1e-14)
    loss = nn.CrossEntropy(weight=[1.0, 3.0])
    assert loss(np.zeros((3, 2)), [0, 1, 1]) == pytest.approx(math.log(2))


def test_label_smoothing_by_hand() -> None:
    # With ε = 0.15 and C = 3 the target is ε/C = 0.05, and 1 - ε more for the label.
    x = np.log([[1.0, 2.0, 5.0]])
    loss = nn.CrossEntropy(label_smoothing=0.15)
    p, q = np.array([1, 2, 5]) / 8, np.array([0.05, 0.05, 0.9])
    assert loss(x, [2]) == pytest.approx(-(q * np.log(p)).sum(), rel=1e-12)
    assert_allclose(loss.backward(), [p - q], rtol=1e-12)


def test_ignored_labels_count_for_nothing(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))
    loss, rest = nn.CrossEntropy(ignore_index=1), nn.CrossEntropy()
    assert loss(x, [0, 1, 2, 1]) == pytest.approx(rest(x[[0, 2]], [0, 2]), rel=1e-12)
    grad = loss.backward()
    assert_allclose(grad[[0, 2]], rest.backward(), rtol=1e-12)
    assert_array_equal(grad[[1, 3]], 0)


@pytest.mark.parametrize("kind", [nn.CrossEntropy, nn.NegativeLogLikelihood])
def test_a_batch_of_ignored_labels_alone_has_no_mean_but_a_sum(kind: Any) -> None:
    message = rf"^{kind.__name__}\(.*\): every label of the batch is ignored"
    with pytest.raises(ValueError, match=message):
        kind()(np.zeros((2, 3)), [-100, -100])
    total, each = kind("sum"), kind("none")
    assert total(np.zeros((2, 3)), [-100, -100]) == 0.0
    assert_array_equal(each(np.zeros((2, 3)), [-100, -100]), [0, 0])
    assert_array_equal(total.backward(), np.zeros((2, 3)))
    assert_array_equal(each.backward(), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=message):
        kind(weight=[0.0, 1.0])(np.full((1, 2), -1.0), [0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label_smoothing": 1.5}, ValueError, "CrossEntropy: label_smoothing must be between 0"),
        ({"label_smoothing": "a"}, TypeError, "CrossEntropy: label_smoothing must be a number"),
        ({"weight": [1.0, -1.0]}, ValueError, "CrossEntropy: weight must be"),
        ({"weight": [[1.0, 1.0]]}, ValueError, "CrossEntropy: weight must be"),
        ({"weight": [1.0, np.nan]}, ValueError, "CrossEntropy: weight must be"),
        ({"weight": [1.0, None]}, ValueError, "CrossEntropy: weight must be"),
        ({"weight": ["a", "b"]}, TypeError, "CrossEntropy: weight must be a number for each"),
        ({"weight": "balanced"}, TypeError, "CrossEntropy: weight .*class_weights"),
        ({"weight": {0: 1.0, 2: 5.0}}, ValueError, "CrossEntropy: weight as a dict needs"),
        ({"weight": {"a": 1.0}}, ValueError, "CrossEntropy: weight as a dict needs"),
        ({"from_logits": "no"}, TypeError, "CrossEntropy: from_logits must be True or False"),
        ({"reduction": np.ones(3)}, ValueError, "CrossEntropy: reduction must be one of"),
        ({"ignore_index": 1.5}, TypeError, "CrossEntropy: ignore_index must be an int"),
        ({"ignore_index": None}, TypeError, "CrossEntropy: ignore_index must be an int"),
    ],
    ids=str,
)
def test_options_out_of_range_are_an_error(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        nn.CrossEntropy(**options)


def test_class_weights_that_do_not_fit_the_classes_are_an_error() -> None:
    message = r"^CrossEntropy\(.*\): 2 class weights do not fit 3 classes"
    with pytest.raises(ValueError, match=message):
        nn.CrossEntropy(weight=[1.0, 1.0])(np.zeros((1, 3)), [0])


def test_class_weights_may_be_a_dict() -> None:
    assert_array_equal(nn.CrossEntropy(weight={1: 5.0, 0: 1.0}).weight, [1.0, 5.0])
    assert_array_equal(nn.NegativeLogLikelihood(weight={0: 2}).weight, [2.0])


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    # sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1, 2], y=...)
    labels = [0, 0, 0, 1, 2, 2]
    assert_allclose(nn.class_weights(labels), [2 / 3, 2, 1])
    for wrong, error in (
        ([0.5], TypeError), (["a"], TypeError), ([], TypeError), ([-1, 0], ValueError),
        ([0, 2], ValueError),
    ):  # fmt: skip
        with pytest.raises(error, match="^class_weights: "):
            nn.class_weights(wrong)
    with pytest.raises(ValueError, match="no label is of class 3"):
        nn.class_weights(labels, classes=4)
    with pytest.raises(ValueError, match=r"in \[0, 2\) for 2 classes, got 2"):
        nn.class_weights(labels, classes=2)


def test_class_weights_are_copied() -> None:
    weight = np.ones(2)
    loss = nn.CrossEntropy("sum", weight=weight)
    weight[...] = 100
    assert loss(np.zeros((1, 2)), [0]) == pytest.approx(math.log(2))


# ---- NegativeLogLikelihood ----


@given(batch=st.integers(1, 5), classes=st.integers(2, 6))
def test_negative_log_likelihood_of_the_logs_of_softmax_is_cross_entropy(
    batch: int, classes: int
) -> None:
    rng = np.random.default_rng(1)
    x, target = rng.normal(size=(batch, classes)), rng.integers(classes, size=batch)
    logs = np.log(nn.Softmax()(x))
    expected = nn.CrossEntropy()(x, target)
    assert nn.NegativeLogLikelihood()(logs, target) == pytest.approx(expected, rel=1e-12, abs=1e-15)


# ---- the losses of numbers ----

NUMBERS = [nn.MeanSquaredError, nn.MeanAbsoluteError, nn.Huber, nn.BinaryCrossEntropy]


@pytest.mark.parametrize("kind", NUMBERS)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    reduction=st.sampled_from(["mean", "sum", "none"]),
)
def test_gradients_of_losses_of_numbers_agree_with_central_differences(
    kind: Any, shape: list[int], reduction: str
) -> None:
    rng = np.random.default_rng(1)
    prediction, target = rng.normal(size=shape), rng.uniform(0, 1, size=shape)
    assert nn.gradcheck(kind(reduction), prediction, target).passed


@pytest.mark.parametrize(
    ("loss", "losses", "grads"),
    [
        (nn.MeanSquaredError, [0.25, 0, 9], [1, 0, -6]),
        (nn.MeanAbsoluteError, [0.5, 0, 3], [1, 0, -1]),
        (nn.Huber, [0.125, 0, 2.5], [0.5, 0, -1]),
        (lambda r: nn.Huber(r, delta=2.0), [0.125, 0, 4], [0.5, 0, -2]),
    ],
    ids=["MeanSquaredError", "MeanAbsoluteError", "Huber", "Huber of 2"],
)
def test_losses_of_distances_by_hand(loss: Any, losses: list[float], grads: list[float]) -> None:
    prediction, target = np.array([[1.5], [2.0], [-1.0]]), np.array([[1.0], [2.0], [2.0]])
    for reduction, total, share in (("sum", sum(losses), 1), ("mean", sum(losses) / 3, 3)):
        layer = loss(reduction)
        assert layer(prediction, target) == pytest.approx(total, rel=1e-14)
        assert_allclose(layer.backward().ravel(), np.array(grads) / share, rtol=1e-14)
    assert_allclose(loss("none")(prediction, target).ravel(), losses, rtol=1e-14)


def test_binary_cross_entropy_by_hand() -> None:
    # σ(log 3) = 3/4.
    x = np.array([[math.log(3)], [math.log(3)], [0.0]])
    target = np.array([[1.0], [0.0], [0.5]])
    expected = [-math.log(0.75), -math.log(0.25), math.log(2)]
    loss = nn.BinaryCrossEntropy("none")
    assert_allclose(loss(x, target).ravel(), expected, rtol=1e-14)
    assert_allclose(loss.backward(1).ravel(), [-0.25, 0.75, 0], rtol=1e-14, atol=1e-16)
    of_probabilities = nn.BinaryCrossEntropy("none", from_logits=False)
    assert_allclose(of_probabilities(nn.Sigmoid()(x), target).ravel(), expected, rtol=1e-14)
    # -1/p, 1/(1-p), and 0 at p = t.
    assert_allclose(of_probabilities.backward(1).ravel(), [-4 / 3, 4, 0], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy_is_stable_for_logits_of_ten_thousand(dtype: Any) -> None:
    x = np.array([1e4, 1e4, -1e4, -1e4], dtype)
    loss = nn.BinaryCrossEntropy("none")
    with np.errstate(all="raise", under="ignore"):
        losses = loss(x, np.array([1, 0, 1, 0]))
        grad = loss.backward(1)
    assert_array_equal(losses, [0, 1e4, 1e4, 0])
    assert_array_equal(grad, [0, 1, -1, 0])


def test_binary_cross_entropy_of_sure_logits_is_not_rounded_to_zero() -> None:
    losses = nn.BinaryCrossEntropy("none")(np.array([40.0, -40.0]), np.array([1, 0]))
    assert_allclose(losses, math.log1p(math.exp(-40)), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_through_a_saturated_sigmoid_or_softmax_are_finite(
    reduction: str, dtype: Any
) -> None:
    # In PyTorch: sigmoid(-1e4) with BCELoss and pos_weight 10 has a finite gradient.
    sigmoid, softmax = nn.Sigmoid(), nn.Softmax()
    yes = nn.BinaryCrossEntropy(reduction, from_logits=False, pos_weight=10)
    yes(sigmoid(np.array([[-1e4], [1e4]], dtype)), [[1.0], [0.0]], [20.0, 20.0])
    assert np.isfinite(yes.backward()).all()
    assert np.isfinite(sigmoid.backward(yes.backward())).all()
    loss = nn.CrossEntropy(reduction, from_logits=False, weight=[30.0, 20.0])
    loss(softmax(np.array([[-1e4, 0.0]], dtype)), [0], [20.0])
    assert np.isfinite(loss.backward()).all()
    assert np.isfinite(softmax.backward(loss.backward())).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy_of_sure_and_wrong_probabilities_is_finite(dtype: Any) -> None:
    loss = nn.BinaryCrossEntropy("none", from_logits=False)
    with np.errstate(all="raise"):
        losses = loss(np.array([0.0, 1.0, 0.0, 1.0], dtype), np.array([1, 0, 0, 1]))
        grad = loss.backward(1)
    assert np.isfinite(losses).all()
    assert np.isfinite(grad).all()
    assert (losses[:2] > 80).all()
    assert_array_equal(losses[2:], 0)


@pytest.mark.parametrize(
    ("loss", "prediction", "target", "message"),
    [
        (nn.BinaryCrossEntropy(), [0.5], [1.5], r"targets must be in \[0, 1\]"),
        (nn.BinaryCrossEntropy(), [0.5], [-1], r"targets must be in \[0, 1\]"),
        (nn.BinaryCrossEntropy(from_logits=False), [1.5], [1.0], r"probabilities.*nn\.Sigmoid\(\)"),
        (nn.BinaryCrossEntropy(from_logits=False), [-0.5], [1.0], r"probabilities.*nn\.Sigmoid"),
        (nn.MeanSquaredError(), [0.5], [np.nan], "targets are not finite"),
        (nn.MeanSquaredError(), [[0.5, 0.5]], [0.5, 0.5], r"shape \(1, 2\).*\(2,\)"),
        (nn.MeanSquaredError(), [[0.5], [0.5]], [0.5, 0.5], r"shape \(2, 1\).*\(2,\)"),
    ],
)
def test_targets_and_probabilities_out_of_range_are_an_error(
    loss: nn.Layer, prediction: Any, target: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"{name(loss)}.*{message}"):
        loss(prediction, target)


@pytest.mark.parametrize("target", [["a"], [None], [1j]])
@pytest.mark.parametrize("kind", NUMBERS)
def test_targets_that_are_not_numbers_are_an_error(kind: Any, target: Any) -> None:
    with pytest.raises(TypeError, match=f"^{kind.__name__}.*targets must be numbers"):
        kind()([0.5], target)


@pytest.mark.parametrize("delta", [0, -1, float("nan"), "1", None])
def test_delta_must_be_above_zero(delta: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="^Huber: delta must be"):
        nn.Huber(delta=delta)
