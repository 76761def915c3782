"""Normalisation: its formulas and gradients, running statistics, and batches that have no variance.

Parity with PyTorch, of values, gradients and running statistics, is in ``parity/``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn
from nnlite.engine import blas as cores
from nnlite.engine import moments

from ..registry import Array

sizes = st.integers(1, 4)
eps = st.sampled_from([1e-5, 1e-2, 1.0])


def drawn(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Return random values with a different mean and deviation for each feature."""
    x = np.random.default_rng(seed).normal(size=shape)
    features = np.arange(1, shape[1] + 1).reshape(-1, *[1] * (len(shape) - 2))
    return x * features + features


def with_values(layer: Any, seed: int = 1) -> Any:
    """Return `layer` in float64, its weight and bias no longer 1 and 0."""
    rng = np.random.default_rng(seed)
    for parameter in layer.astype(np.float64).parameters():
        parameter.data = rng.uniform(0.5, 2, size=parameter.shape)
    return layer


def innermost(x: Array, axes: tuple[int, ...]) -> Array:
    """Return an equal array that lies in memory in the order of `axes`."""
    return x.transpose(axes).copy().transpose(np.argsort(axes))


# ---- the formulas ----


def test_batch_norm_at_known_points() -> None:
    # Mean 3 and biased variance 8: (x - 3) / √(8 + 1) · 3 + 2 = x - 1.
    norm = nn.BatchNorm1d(1, eps=1.0).astype(np.float64)
    norm.weight.data[...], norm.bias.data[...] = 3, 2
    x = np.array([[-1.0], [3.0], [7.0], [3.0]])
    assert_allclose(norm(x), x - 1, rtol=1e-14)
    # Σ G = 1 and Σ G x̂ = -4/3 for G = (1, 0, 0, 0), M = 4 and weight / deviation = 1.
    x_grad = norm.backward(np.array([[1.0], [0.0], [0.0], [0.0]]))
    assert_allclose(norm.bias.grad, [1], rtol=1e-14)
    assert_allclose(norm.weight.grad, [-4 / 3], rtol=1e-14)
    expected = [1 - 1 / 4 - 4 / 9, -1 / 4, -1 / 4 + 4 / 9, -1 / 4]
    assert_allclose(x_grad[:, 0], expected, rtol=1e-13)


def test_layer_norm_at_known_points() -> None:
    norm = nn.LayerNorm(4, eps=1.0).astype(np.float64)
    norm.weight.data[...], norm.bias.data[...] = 3, [2, 2, 2, 0]
    assert_allclose(
        norm(np.array([[-1.0, 3.0, 7.0, 3.0]])), [[-2, 2, 6, 0]], rtol=1e-14, atol=1e-15
    )


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.LayerNorm])
def test_two_values_become_minus_one_and_one_whatever_they_are(kind: Any) -> None:
    # So without eps they have no influence on the output, and no gradient.
    norm = kind(2, eps=0.0).astype(np.float64)
    x = np.array([[3.0, -2.0], [5.0, 7.0]])
    y = norm(x)
    assert_allclose(y, [[-1, -1], [1, 1]] if kind is nn.BatchNorm1d else [[1, -1], [-1, 1]])
    assert_allclose(norm.backward(np.array([[1.0, 2.0], [-3.0, 5.0]])), 0, atol=1e-14)


@given(shape=hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=5))
def test_batch_norm_gives_every_feature_mean_zero_and_variance_one(shape: tuple[int, ...]) -> None:
    axes = (0, *range(2, len(shape)))
    y = nn.BatchNorm1d(shape[1], eps=0.0).astype(np.float64)(drawn(shape))
    assert_allclose(y.mean(axis=axes), 0, atol=1e-12)
    assert_allclose(y.var(axis=axes), 1, rtol=1e-10)


@given(shape=hnp.array_shapes(min_dims=2, max_dims=3, min_side=3, max_side=5))
def test_what_is_added_to_a_feature_or_multiplied_with_it_gets_no_gradient(
    shape: tuple[int, ...],
) -> None:
    # y does not change with x + c and, without eps, not with c · x: the slopes along these are 0.
    axes = (0, *range(2, len(shape)))
    norm, x = with_values(nn.BatchNorm1d(shape[1], eps=0.0)), drawn(shape)
    x_grad = norm.backward(np.random.default_rng(2).normal(size=norm(x).shape))
    scale = np.abs(x_grad).max()
    assert_allclose(x_grad.sum(axis=axes), 0, atol=1e-11 * scale)
    assert_allclose((x_grad * x).sum(axis=axes), 0, atol=1e-10 * scale)


@pytest.mark.parametrize("value", [1.3e25, 1e30, 1.1e30])
@pytest.mark.parametrize("batch", [3, 7, 1000])
def test_a_large_constant_has_no_deviation(batch: int, value: float) -> None:
    layer = nn.BatchNorm1d(2, momentum=1.0)
    x = np.full((batch, 2), value, np.float32)
    with np.errstate(over="ignore"):
        assert_array_equal(layer(x), 0)
    assert_array_equal(layer.running_mean, np.float32(value))
    assert_array_equal(layer.running_var, 0)


def test_images_are_normalised_as_all_their_pixels_are(rng: np.random.Generator) -> None:
    images = with_values(nn.BatchNorm2d(3))
    pixels = with_values(nn.BatchNorm1d(3))
    x, grad = drawn((4, 3, 5, 2)), rng.normal(size=(4, 3, 5, 2))

    def flat(image: Array) -> Array:
        return np.moveaxis(image, 1, -1).reshape(-1, 3)

    assert_allclose(flat(images(x)), pixels(flat(x)), rtol=1e-12)
    x_grad, expected = images.backward(grad), pixels.backward(flat(grad))
    assert_allclose(flat(x_grad), expected, rtol=1e-10, atol=1e-14)
    for name, value in images.state_dict().items():
        assert_allclose(value, pixels.state_dict()[name], rtol=1e-12)


def test_layer_norm_is_batch_norm_of_the_transposed_matrix(rng: np.random.Generator) -> None:
    layer = nn.LayerNorm(5, elementwise_affine=False)
    batch = nn.BatchNorm1d(3, affine=False).astype(np.float64)
    x, grad = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    assert_allclose(layer(x), batch(x.T).T, rtol=1e-12)
    assert_allclose(layer.backward(grad), batch.backward(grad.T).T, rtol=1e-10, atol=1e-14)


def test_the_parameters_begin_with_one_and_zero() -> None:
    for norm in (nn.BatchNorm1d(3), nn.BatchNorm2d(3), nn.LayerNorm((2, 3))):
        assert (norm.weight.data == 1).all()
        assert (norm.bias.data == 0).all()


def test_constant_features_become_the_bias() -> None:
    for norm, shape in ((nn.BatchNorm1d(3), (4, 3)), (nn.LayerNorm(3), (4, 3))):
        norm.bias.data = [1.0, 2.0, 3.0]
        y = norm(np.full(shape, 8, np.float32))
        assert_array_equal(y, np.tile(np.float32([1, 2, 3]), (4, 1)))
        assert np.isfinite(norm.backward(np.ones_like(y))).all()


# Floats next to each other and far from 0, as a base and a unit: sums of the base and a few units
# are exact.
NARROW = [
    (np.float32, 12345.678, 2.0**-10),
    (np.float32, 1000000.5, 2.0**-4),
    (np.float32, -1e8 - 8, 8.0),
    (np.float64, 1e12 + 0.3, 2.0**-13),
    (np.float64, 12345.678, 2.0**-39),
]


@pytest.mark.parametrize("count", [2, 256, 10_000])
@pytest.mark.parametrize(("dtype", "base", "unit"), NARROW)
def test_constant_rows_and_features_become_zero_and_have_the_gradient_of_their_deviation(
    dtype: Any, base: float, unit: float, count: int, rng: np.random.Generator
) -> None:
    x, grad = np.full((2, count), base, dtype), rng.normal(size=(2, count)).astype(dtype)
    expected = (grad - grad.mean(axis=1, keepdims=True)) / math.sqrt(1e-5)
    tolerance = {"rtol": 1e-3, "atol": 1e-3}
    of_rows = nn.LayerNorm(count).astype(dtype)
    assert_array_equal(of_rows(x), 0)
    assert_allclose(of_rows.backward(grad), expected, **tolerance)
    of_features = nn.BatchNorm1d(2, momentum=1).astype(dtype)
    assert_array_equal(of_features(x.T), 0)
    assert_allclose(of_features.backward(grad.T).T, expected, **tolerance)
    assert_array_equal(of_features.running_mean, x[:, 0])
    assert_array_equal(of_features.running_var, 0)


@pytest.mark.parametrize("count", [4, 256, 10_000])
@pytest.mark.parametrize(("dtype", "base", "unit"), NARROW)
def test_rows_and_features_that_hardly_vary_are_normalized_like_what_they_vary_by(
    dtype: Any, base: float, unit: float, count: int, rng: np.random.Generator
) -> None:
    steps = rng.integers(-2, 3, size=(2, count)).astype(float)
    steps[:, 0], steps[:, 1] = -2, 1
    x = (dtype(base) + steps * unit).astype(dtype)
    grad = rng.normal(size=(2, count))
    deviation = np.sqrt((steps * unit).var(axis=1, keepdims=True) + 1e-5)
    expected = unit * (steps - steps.mean(axis=1, keepdims=True)) / deviation
    expected_grad = grad - grad.mean(axis=1, keepdims=True)
    expected_grad -= expected * (grad * expected).mean(axis=1, keepdims=True)
    expected_grad /= deviation
    for layer, to_input, to_rows in (
        (nn.LayerNorm(count), np.asarray, np.asarray),
        (nn.BatchNorm1d(2), np.transpose, np.transpose),
        (
            nn.BatchNorm1d(2),
            lambda rows: rows.reshape(2, -1, 2).swapaxes(0, 1),
            lambda sequences: sequences.swapaxes(0, 1).reshape(2, -1),
        ),
    ):
        y = to_rows(layer.astype(dtype)(to_input(x)))
        dx = to_rows(layer.backward(to_input(grad)))
        assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
        assert_allclose(dx, expected_grad, rtol=1e-3, atol=1e-4 * np.abs(expected_grad).max())


@pytest.mark.parametrize("offset", [1e2, 1e4])
def test_a_large_mean_does_not_swallow_the_variance(offset: float) -> None:
    # The mean of squares minus the squared mean would leave nothing of it in float32.
    x = (offset + np.random.default_rng(0).normal(size=(64, 3))).astype(np.float32)
    exact = x.astype(np.float64)
    for norm, axis in ((nn.BatchNorm1d(3, eps=0.0), 0), (nn.LayerNorm(3, eps=0.0), 1)):
        expected = exact - exact.mean(axis=axis, keepdims=True)
        expected /= exact.std(axis=axis, keepdims=True)
        assert_allclose(norm(x), expected, atol=3e-7 * offset * np.abs(expected).max() / 0.1)


# ---- gradients ----


@given(data=st.data(), eps=eps, affine=st.booleans(), tracks=st.booleans(), training=st.booleans())
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_every_gradient_of_batch_norm_agrees_with_central_differences(
    kind: Any, data: st.DataObject, eps: float, affine: bool, tracks: bool, training: bool
) -> None:
    ranks = (2, 3) if kind is nn.BatchNorm1d else (4,)
    rank = data.draw(st.sampled_from(ranks))
    # Of three values at least: without eps, two have no gradient but that of rounding.
    shape = (data.draw(st.integers(3, 5)), *(data.draw(sizes) for _ in range(rank - 1)))
    norm = kind(shape[1], eps=eps, affine=affine, track_running_stats=tracks)
    norm = with_values(norm).train(training)
    if tracks:
        norm.running_mean[...], norm.running_var[...] = 0.5, 2.0
    nn.gradcheck(norm, drawn(shape)).raise_if_failed()


@given(
    shape=hnp.array_shapes(min_dims=2, max_dims=4, min_side=3, max_side=4),
    data=st.data(),
    eps=eps,
    affine=st.booleans(),
    bias=st.booleans(),
)
def test_every_gradient_of_layer_norm_agrees_with_central_differences(
    shape: tuple[int, ...], data: st.DataObject, eps: float, affine: bool, bias: bool
) -> None:
    rank = data.draw(st.integers(1, len(shape) - 1))
    norm = with_values(nn.LayerNorm(shape[-rank:], eps, affine, bias))
    nn.gradcheck(norm, drawn(shape)).raise_if_failed()


@pytest.mark.parametrize("training", [True, False])
def test_a_frozen_weight_does_not_stop_the_bias(training: bool) -> None:
    for norm in (nn.BatchNorm1d(3), nn.LayerNorm(3)):
        frozen = with_values(norm).train(training)
        frozen.weight.requires_grad = False
        x = drawn((4, 3))
        frozen.backward(np.ones_like(frozen(x)))
        assert frozen.weight.grad is None
        assert_array_equal(frozen.bias.grad, [4, 4, 4])


# ---- running statistics ----


def test_running_statistics_by_hand() -> None:
    # Means 2 and 6, unbiased variances 2 and 8; a quarter of each replaces a quarter of before.
    norm = nn.BatchNorm1d(1, momentum=0.25)
    assert (norm.running_mean, norm.running_var, norm.num_batches_tracked) == (0, 1, 0)
    norm(np.array([[1.0], [3.0]]))
    assert_allclose(norm.running_mean, [0.5])
    assert_allclose(norm.running_var, [1.25])
    norm(np.array([[4.0], [8.0]]))
    assert_allclose(norm.running_mean, [0.375 + 1.5])
    assert_allclose(norm.running_var, [0.9375 + 2.0])
    assert norm.num_batches_tracked == 2
    # (x - 1.875) / √2.9375 in evaluation, for one sample as well.
    y = norm.eval()(np.array([[4.0]]))
    assert_allclose(y, (4 - 1.875) / math.sqrt(2.9375 + 1e-5), rtol=1e-6)


@given(batches=st.lists(st.integers(2, 6), min_size=1, max_size=5))
def test_without_momentum_the_running_statistics_are_plain_averages(batches: list[int]) -> None:
    norm = nn.BatchNorm2d(2, momentum=None).astype(np.float64)
    xs = [drawn((batch, 2, 2, 3), seed) for seed, batch in enumerate(batches)]
    for x in xs:
        norm(x)
    means = [x.mean(axis=(0, 2, 3)) for x in xs]
    variances = [x.var(axis=(0, 2, 3), ddof=1) for x in xs]
    assert_allclose(norm.running_mean, np.mean(means, axis=0), rtol=1e-12)
    assert_allclose(norm.running_var, np.mean(variances, axis=0), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0.1, 0.9, None])
def test_running_statistics_are_pytorchs_after_many_batches(
    momentum: float | None, dtype: str, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    norm = nn.BatchNorm2d(3, momentum=momentum).astype(dtype)
    theirs = torch.nn.BatchNorm2d(3, momentum=momentum).to(getattr(torch, dtype))
    for step in range(100):
        x = (drawn((2 + step % 3, 3, 2, 2), step) + step / 20).astype(dtype)
        norm(x)
        theirs(torch.tensor(x))
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    for name, buffer in theirs.named_buffers():
        mine = norm.state_dict()[name]
        assert mine.dtype == buffer.numpy().dtype
        assert_allclose(mine, buffer.numpy(), rtol=tolerance, atol=tolerance, err_msg=name)
    x = drawn((1, 3, 2, 2)).astype(dtype)
    assert_allclose(
        norm.eval()(x), theirs.eval()(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5
    )


def test_a_state_dict_of_pytorch_loads_and_predicts_alike() -> None:
    torch = pytest.importorskip("torch")
    t = torch.nn
    theirs = t.Sequential(t.BatchNorm2d(3), t.Flatten(), t.LayerNorm(12), t.BatchNorm1d(12))
    for seed in range(3):
        theirs(torch.tensor(drawn((4, 3, 2, 2), seed).astype(np.float32)))
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.LayerNorm(12), nn.BatchNorm1d(12))
    model.load_state_dict(theirs.state_dict())
    x = drawn((4, 3, 2, 2), 9).astype(np.float32)
    expected = theirs.eval()(torch.tensor(x)).detach().numpy()
    assert_allclose(model.eval()(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use", ["evaluation", "backward", "error", "gradcheck"])
def test_running_statistics_change_in_a_training_forward_only(use: str) -> None:
    norm, x = nn.BatchNorm1d(2).astype(np.float64), drawn((4, 2))
    y = norm(x)
    before = norm.state_dict()
    if use == "evaluation":
        norm.eval()(x)
    elif use == "backward":
        norm.backward(np.ones_like(y))
    elif use == "gradcheck":
        assert nn.gradcheck(norm, x)
    else:
        for wrong in (x[:1], x[:, :1], x[:0], x.astype(int)):
            with pytest.raises((ValueError, TypeError)):
                norm(wrong)
    for name, value in norm.state_dict().items():
        assert_array_equal(value, before[name])


def test_without_gradients_training_still_tracks_as_in_pytorch() -> None:
    norm = nn.BatchNorm1d(2)
    with nn.no_grad():
        norm(drawn((4, 2)).astype(np.float32))
    assert norm.num_batches_tracked == 1


def test_in_evaluation_a_sample_does_not_depend_on_the_others() -> None:
    norm = with_values(nn.BatchNorm2d(3))
    x = drawn((6, 3, 2, 2))
    norm(x)
    norm.eval()
    whole, grad = norm(x), drawn((6, 3, 2, 2), 5)
    x_grad = norm.backward(grad)
    for sample in range(6):
        part = slice(sample, sample + 1)
        assert_allclose(norm(x[part]), whole[part], rtol=1e-12)
        assert_allclose(norm.backward(grad[part]), x_grad[part], rtol=1e-12)


def test_without_running_statistics_evaluation_takes_those_of_the_batch() -> None:
    norm = with_values(nn.BatchNorm1d(2, track_running_stats=False))
    x = drawn((5, 2))
    assert list(norm.state_dict()) == ["weight", "bias"]
    assert_array_equal(norm(x), norm.eval()(x))


def test_backward_is_that_of_the_mode_in_which_forward_was() -> None:
    norm, other = with_values(nn.BatchNorm1d(2)), with_values(nn.BatchNorm1d(2))
    x, grad = drawn((5, 2)), drawn((5, 2), 3)
    norm(x)
    other(x)
    assert_array_equal(norm.eval().backward(grad), other.backward(grad))


def test_tied_layers_share_the_running_statistics() -> None:
    # As one module used twice does in PyTorch.
    norm = nn.BatchNorm1d(2)
    twin = norm.tied()
    twin(drawn((4, 2)).astype(np.float32))
    assert norm.num_batches_tracked == 1
    assert_array_equal(norm.running_mean, twin.running_mean)
    norm(drawn((4, 2), 1).astype(np.float32))
    assert_array_equal(twin.running_var, norm.running_var)


@pytest.mark.parametrize("affine", [True, False])
def test_float64_inputs_leave_float32_statistics_float32(affine: bool) -> None:
    norm = nn.BatchNorm1d(2, affine=affine)
    norm(drawn((4, 2)))
    assert norm.running_mean.dtype == norm.running_var.dtype == np.float32
    assert norm.num_batches_tracked.dtype == np.int64


# ---- memory ----


@pytest.mark.parametrize("axes", [(2, 1, 3, 0), (1, 2, 3, 0), (3, 2, 1, 0), (0, 2, 3, 1)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_images_in_another_memory_order_give_the_same(
    axes: tuple[int, ...], training: bool
) -> None:
    x, grad = drawn((5, 3, 4, 2)), drawn((5, 3, 4, 2), 1)
    norm, reference = (with_values(nn.BatchNorm2d(3)).train(training) for _ in range(2))
    expected = reference(x)
    expected_grad = reference.backward(grad)
    assert_allclose(norm(innermost(x, axes)), expected, rtol=1e-12)
    assert_allclose(norm.backward(innermost(grad, axes)), expected_grad, rtol=1e-10, atol=1e-14)
    for name, value in norm.state_dict().items():
        assert_allclose(value, reference.state_dict()[name], rtol=1e-12)
    for p, q in zip(norm.parameters(), reference.parameters(), strict=True):
        assert_allclose(p.grad, q.grad, rtol=1e-12)


# ---- errors ----


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(3), (1, 3)),
        (nn.BatchNorm1d(3), (1, 3, 1)),
        (nn.BatchNorm2d(3), (1, 3, 1, 1)),
        (nn.BatchNorm1d(3, affine=False), (1, 3)),
        (nn.BatchNorm1d(3, track_running_stats=False), (1, 3)),
    ],
    ids=str,
)
def test_one_value_for_each_feature_is_an_error_in_training(
    norm: nn.Layer, shape: tuple[int, ...]
) -> None:
    before = norm.state_dict()
    message = r"^BatchNorm.*: one value for each feature has no variance.*got an input of shape"
    with pytest.raises(ValueError, match=message + r".*larger batch, or drop_last=True$"):
        norm.train()(np.ones(shape, np.float32))
    for name, value in norm.state_dict().items():
        assert_array_equal(value, before[name])
    norm.eval()
    if norm.running_mean is not None:
        assert norm(np.ones(shape, np.float32)).shape == shape
        return
    with pytest.raises(ValueError, match=r"no variance to normalize.*track_running_stats=True$"):
        norm(np.ones(shape, np.float32))


@pytest.mark.parametrize(
    ("norm", "shape"), [(nn.BatchNorm1d(3), (1, 3, 2)), (nn.BatchNorm2d(3), (1, 3, 2, 1))], ids=str
)
def test_one_sample_of_several_values_for_each_feature_is_a_batch(
    norm: nn.Layer, shape: tuple[int, ...]
) -> None:
    # Two values, which become -1 and 1.
    y = norm(drawn(shape).astype(np.float32))
    assert_allclose(np.abs(y), 1, rtol=1e-3)


@pytest.mark.parametrize(
    ("norm", "shape", "message"),
    [
        (nn.BatchNorm1d(3), (4, 2), r"BatchNorm1d\(3\): expected input of shape \(N, C\) or"),
        (nn.BatchNorm1d(3), (3,), r"BatchNorm1d\(3\): expected .*with 3 features, got \(3,\)"),
        (nn.BatchNorm1d(3), (2, 3, 4, 4), r"BatchNorm1d\(3\): expected .*got \(2, 3, 4, 4\)"),
        (nn.BatchNorm2d(3), (4, 3), r"BatchNorm2d\(3\): expected input of shape \(N, C, H, W\)"),
        (nn.BatchNorm2d(3), (4, 4, 4, 3), r"BatchNorm2d\(3\): expected .*with 3 features, got"),
        (
            nn.LayerNorm(3),
            (4, 2),
            r"LayerNorm\(\(3,\)\): expected .*\(N, \.\.\., 3\), got \(4, 2\)",
        ),
        (nn.LayerNorm((2, 3)), (4, 3, 2), r"LayerNorm.*\(N, \.\.\., 2, 3\), got \(4, 3, 2\)"),
        (nn.LayerNorm(3), (3,), r"LayerNorm.*\(N, \.\.\., 3\), got \(3,\)"),
    ],
    ids=str,
)
def test_an_input_of_the_wrong_shape_is_an_error(
    norm: nn.Layer, shape: tuple[int, ...], message: str
) -> None:
    for training in (True, False):
        with pytest.raises(ValueError, match=f"^{message}"):
            norm.train(training)(np.ones(shape, np.float32))


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_features": 0}, ValueError, "num_features must be at least 1, got 0"),
        ({"num_features": 2.0}, TypeError, "num_features must be an int, got 2.0"),
        ({"num_features": None}, TypeError, "num_features must be an int"),
        ({"eps": -1e-5}, ValueError, "eps must be at least 0"),
        ({"eps": math.nan}, ValueError, "eps must be finite"),
        ({"eps": "small"}, TypeError, "eps must be a number"),
        ({"momentum": -0.1}, ValueError, "momentum must be between 0 and 1, got -0.1"),
        ({"momentum": 1.5}, ValueError, "momentum must be between 0 and 1, got 1.5"),
        ({"momentum": "0.1"}, TypeError, "momentum must be a number"),
    ],
    ids=str,
)
def test_options_of_batch_norm_out_of_range_are_an_error(
    kind: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{kind.__name__}: {message}"):
        kind(**{"num_features": 3} | options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"normalized_shape": 0}, ValueError, "normalized_shape must be at least 1, got 0"),
        ({"normalized_shape": (3, -1)}, ValueError, "normalized_shape must be at least 1"),
        ({"normalized_shape": ()}, ValueError, "normalized_shape must have one size at least"),
        ({"normalized_shape": 2.0}, TypeError, "normalized_shape must be an int"),
        ({"normalized_shape": "3"}, TypeError, "normalized_shape must be an int"),
        ({"eps": -1}, ValueError, "eps must be at least 0"),
        ({"eps": None}, TypeError, "eps must be a number"),
        ({"bias": "no"}, TypeError, "bias must be True or False, got 'no'"),
        ({"elementwise_affine": 1}, TypeError, "elementwise_affine must be True or False, got 1"),
    ],
    ids=str,
)
def test_options_of_layer_norm_out_of_range_are_an_error(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^LayerNorm: {message}"):
        nn.LayerNorm(**{"normalized_shape": 3} | options)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.BatchNorm1d(3), "BatchNorm1d(3)"),
        (nn.BatchNorm2d(3, momentum=None), "BatchNorm2d(3, momentum=None)"),
        (
            nn.BatchNorm2d(3, 0.1, affine=False, track_running_stats=False),
            "BatchNorm2d(3, eps=0.1, affine=False, track_running_stats=False, bias=False)",
        ),
        (nn.LayerNorm([2, 3], bias=False), "LayerNorm((2, 3), bias=False)"),
    ],
    ids=str,
)
def test_repr_shows_what_differs_from_the_defaults(layer: nn.Layer, text: str) -> None:
    assert repr(layer) == text


@pytest.mark.parametrize("shape", [(7, 3), (7, 3, 2), (7, 3, 9, 2), (1, 3, 9, 2)], ids=str)
@pytest.mark.parametrize("batch_last", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 2, 4])
@pytest.mark.parametrize("parts", [1, 3])
def test_in_blocks_and_parts_it_is_the_same(
    shape: tuple[int, ...], batch_last: bool, rows: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x, grad = drawn(shape), rng.normal(size=shape)
    if batch_last and x.ndim > 2:
        axes = (*range(2, x.ndim), 1, 0) if x.ndim == 3 else (2, 1, 3, 0)
        x = innermost(x, axes)
    lines = x.shape[2] if batch_last and x.ndim > 2 else len(x)
    for limit in ("_LARGE", "_LEAD"):
        monkeypatch.setattr(cores, limit, 0)
    monkeypatch.setattr(cores._one_thread, "threads", lambda: parts)
    # 0 stands for lines that are longer than a block.
    monkeypatch.setattr(moments, "_BLOCK", max(rows * x.nbytes // lines, 1))
    norm = with_values(nn.BatchNorm1d(3) if x.ndim < 4 else nn.BatchNorm2d(3))
    y = norm(x)
    dx = norm.backward(grad)
    # The formulas of the docstring.
    axes, count = (0, *range(2, x.ndim)), x.size // 3
    column = (slice(None), *[None] * (x.ndim - 2))
    mean, variance = x.mean(axis=axes), x.var(axis=axes)
    deviation = np.sqrt(variance + 1e-5)
    normalized = (x - mean[column]) / deviation[column]
    weight, bias = norm.weight.data[column], norm.bias.data[column]
    assert_allclose(y, weight * normalized + bias, rtol=1e-10, atol=1e-12)
    d_weight, d_bias = (grad * normalized).sum(axis=axes), grad.sum(axis=axes)
    assert_allclose(norm.weight.grad, d_weight, rtol=1e-10, atol=1e-12)
    assert_allclose(norm.bias.grad, d_bias, rtol=1e-10, atol=1e-12)
    d_normalized = grad - d_bias[column] / count - normalized * d_weight[column] / count
    assert_allclose(dx, weight / deviation[column] * d_normalized, rtol=1e-10, atol=1e-12)
    assert_allclose(norm.running_mean, 0.1 * mean, rtol=1e-6)
    assert_allclose(norm.running_var, 0.9 + 0.1 * x.var(axis=axes, ddof=1), rtol=1e-6)


@pytest.mark.parametrize("shape", [(10_007, 2), (1, 2, 10_007)], ids=str)
def test_the_statistics_of_many_values_are_those_in_float64(
    shape: tuple[int, ...],
) -> None:
    # A sum of 1e4 numbers near 3e4 in float32 has a rounding error that is no longer small against
    # their deviation.
    x = (30_000 + np.random.default_rng(0).uniform(size=shape)).astype(np.float32)
    norm = nn.BatchNorm1d(2, momentum=1.0)
    norm(x)
    axes = (0, *range(2, x.ndim))
    exact = x.astype(np.float64)
    # Half of the distance between two numbers of float32 there.
    assert_allclose(norm.running_mean, exact.mean(axis=axes), rtol=0, atol=2**-10 * 1.01)
    assert_allclose(norm.running_var, exact.var(axis=axes), rtol=1e-3)


def test_float64_statistics_leave_float32_gradients_float32() -> None:
    norm = nn.BatchNorm1d(2, affine=False).astype(np.float64).eval()
    assert norm.running_mean.dtype == np.float64
    x = drawn((4, 2)).astype(np.float32)
    assert norm(x).dtype == norm.backward(x).dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_batch_that_is_not_finite_leaves_the_running_statistics_alone(value: float) -> None:
    layer = nn.BatchNorm1d(2)
    layer(np.array([[1.0, 2.0], [3.0, 5.0]], np.float32))
    before = layer.state_dict()
    with np.errstate(invalid="ignore"):
        layer(np.array([[value, 2.0], [3.0, 5.0]], np.float32))
    for name, entry in layer.state_dict().items():
        assert_array_equal(entry, before[name])


# ---- groups and instances ----


def test_group_norm_by_hand() -> None:
    norm = nn.GroupNorm(2, 4, eps=0.0).astype(np.float64)
    norm.weight.data[...] = [1.0, 2.0, 1.0, 1.0]  # type: ignore[union-attr]
    x = np.array([[[1.0, 3.0], [3.0, 1.0], [0.0, 0.0], [0.0, 4.0]]])
    # The groups have the means 2 and 1, and the variances 1 and 3.
    r = math.sqrt(3)
    assert_allclose(norm(x), [[[-1, 1], [2, -2], [-1 / r, -1 / r], [-1 / r, 3 / r]]], rtol=1e-15)


@given(
    batch=st.integers(1, 3), groups=st.integers(1, 3), members=st.integers(1, 3),
    places=st.lists(st.integers(1, 3), max_size=2), batch_last=st.booleans(), options=st.data(),
)  # fmt: skip
def test_gradients_of_group_norm_agree_with_central_differences(
    batch: int, groups: int, members: int, places: list[int], batch_last: bool, options: Any
) -> None:
    affine, bias = options.draw(st.booleans()), options.draw(st.booleans())
    norm = nn.GroupNorm(groups, groups * members, 0.1, affine, bias=bias)
    x = drawn((batch, groups * members, *places))
    if batch_last and x.ndim == 4:
        x = innermost(x, (2, 1, 3, 0))
    assert nn.gradcheck(norm, x).passed


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("tracks", [True, False])
def test_gradients_of_instance_norm_agree_with_central_differences(
    training: bool, tracks: bool
) -> None:
    norm = nn.InstanceNorm2d(2, 0.1, affine=True, track_running_stats=tracks).train(training)
    assert nn.gradcheck(norm, drawn((3, 2, 2, 3))).passed


def test_instances_are_groups_of_one_channel() -> None:
    x = drawn((3, 4, 2, 5))
    groups = nn.GroupNorm(4, 4, affine=False)
    assert_array_equal(nn.InstanceNorm2d(4)(x), groups(x))
    assert_array_equal(nn.InstanceNorm1d(4)(x[:, :, 0]), groups(x[:, :, 0]))


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 2), (7, 6, 9, 2), (1, 6, 9, 2)], ids=str)
@pytest.mark.parametrize("batch_last", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 4])
@pytest.mark.parametrize("parts", [1, 3])
def test_group_norm_in_blocks_and_parts_is_the_same(
    shape: tuple[int, ...], batch_last: bool, rows: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, grad = drawn(shape), np.random.default_rng(0).normal(size=shape)
    if batch_last and x.ndim > 2:
        axes = (2, 1, 0) if x.ndim == 3 else (2, 1, 3, 0)
        x = innermost(x, axes)
    lines = x.shape[2] if batch_last and x.ndim > 2 else len(x)
    for limit in ("_LARGE", "_LEAD"):
        monkeypatch.setattr(cores, limit, 0)
    monkeypatch.setattr(cores._one_thread, "threads", lambda: parts)
    # 0 stands for lines that are longer than a block.
    monkeypatch.setattr(moments, "_BLOCK", max(rows * x.nbytes // lines, 1))
    norm = nn.GroupNorm(2, 6, eps=0.1).astype(np.float64)
    norm.weight.data[...] = [1.0, -2.0, 0.0, 3.0, 0.5, 1.5]  # type: ignore[union-attr]
    norm.bias.data[...] = [0.5, 1.0, -1.0, 2.0, 0.0, 3.0]  # type: ignore[union-attr]
    y = norm(x)
    dx = norm.backward(grad)
    # The formulas of the docstring.
    column = (slice(None), *[None] * (x.ndim - 2))
    weight, bias = norm.weight.data[column], norm.bias.data[column]

    def mean(values: np.ndarray) -> np.ndarray:
        by_group = values.reshape(len(values), 2, -1)
        means = np.repeat(by_group.mean(axis=2), 3, axis=1)
        return means.reshape(*means.shape, *[1] * (x.ndim - 2))

    deviation = np.sqrt(mean((x - mean(x)) ** 2) + 0.1)
    normalized = (x - mean(x)) / deviation
    assert_allclose(y, weight * normalized + bias, rtol=1e-10, atol=1e-12)
    axes, h = (0, *range(2, x.ndim)), grad * weight
    assert_allclose(norm.weight.grad, (grad * normalized).sum(axis=axes), rtol=1e-10, atol=1e-12)
    assert_allclose(norm.bias.grad, grad.sum(axis=axes), rtol=1e-10, atol=1e-12)
    of_x = (h - mean(h) - normalized * mean(h * normalized)) / deviation
    assert_allclose(dx, of_x, rtol=1e-10, atol=1e-12)


def test_groups_far_from_zero_keep_their_deviation() -> None:
    x = drawn((4, 6, 3, 3)).astype(np.float32)
    for order in (x, innermost(x, (2, 1, 3, 0))):
        far = nn.GroupNorm(2, 6)(order + np.float32(4096))
        exact = (order + np.float32(4096)).astype(np.float64)
        assert_allclose(far, nn.GroupNorm(2, 6).astype(np.float64)(exact), rtol=1e-4, atol=1e-5)


def test_a_sample_is_normalised_alike_in_any_batch_and_memory_order() -> None:
    x = drawn((5, 6, 4, 3))
    norm = nn.GroupNorm(3, 6, affine=False)
    whole = norm(x)
    assert_allclose(norm(innermost(x, (2, 1, 3, 0))), whole, rtol=1e-13, atol=1e-13)
    assert_allclose(norm(x[2:3]), whole[2:3], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: nn.GroupNorm(4, 6), "GroupNorm: num_channels must be a multiple"),
        (
            lambda: nn.GroupNorm(2, 6)(np.ones((2, 3))),
            r"GroupNorm.*: expected input of shape",
        ),
        (lambda: nn.InstanceNorm1d(2)(np.ones((3, 2, 1))), "InstanceNorm1d.*: one value for each"),
        (lambda: nn.InstanceNorm2d(2)(np.ones((3, 2, 4))), r"InstanceNorm2d.*: expected input of"),
        (
            lambda: nn.InstanceNorm2d(2, momentum=2),
            "InstanceNorm2d: momentum must be between",
        ),
    ],
)
def test_groups_and_instances_that_cannot_be(run: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        run()
