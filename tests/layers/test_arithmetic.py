"""Arithmetic nodes: their gradients over all shapes, broadcasting, dtypes and domains."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

Array = np.ndarray[Any, np.dtype[Any]]


def away_from_zero(x: Array) -> Array:
    return np.copysign(np.abs(x) + 0.5, x)


def positive(x: Array) -> Array:
    return np.abs(x) + 0.5


def anything(x: Array) -> Array:
    return x


BINARY: dict[str, tuple[Callable[[], nn.Layer], Callable[[Array], Array]]] = {
    "Add": (nn.Add, anything),
    "Subtract": (nn.Subtract, anything),
    "Multiply": (nn.Multiply, anything),
    "Divide": (nn.Divide, away_from_zero),
    "Maximum": (nn.Maximum, anything),
    "Minimum": (nn.Minimum, anything),
}
UNARY: dict[str, tuple[Callable[[], nn.Layer], Callable[[Array], Array]]] = {
    "Negative": (nn.Negative, anything),
    "Abs": (nn.Abs, away_from_zero),
    "Reciprocal": (nn.Reciprocal, away_from_zero),
    "Square": (nn.Square, anything),
    "Sqrt": (nn.Sqrt, positive),
    "Exp": (nn.Exp, anything),
    "Log": (nn.Log, positive),
    "Power(3)": (lambda: nn.Power(3), anything),
    "Power(0)": (lambda: nn.Power(0), anything),
    "Power(-2)": (lambda: nn.Power(-2), away_from_zero),
    "Power(1.7)": (lambda: nn.Power(1.7), positive),
}
# The function of the same name in PyTorch, where its name or its call differs.
TORCH: dict[str, Callable[..., Any]] = {
    "Add": lambda torch, a, b: a + b,
    "Subtract": lambda torch, a, b: a - b,
    "Multiply": lambda torch, a, b: a * b,
    "Divide": lambda torch, a, b: a / b,
    "Maximum": lambda torch, a, b: torch.maximum(a, b),
    "Minimum": lambda torch, a, b: torch.minimum(a, b),
    "Negative": lambda torch, x: -x,
    "Abs": lambda torch, x: torch.abs(x),
    "Reciprocal": lambda torch, x: torch.reciprocal(x),
    "Square": lambda torch, x: torch.square(x),
    "Sqrt": lambda torch, x: torch.sqrt(x),
    "Exp": lambda torch, x: torch.exp(x),
    "Log": lambda torch, x: torch.log(x),
    "Power(3)": lambda torch, x: x**3,
    "Power(0)": lambda torch, x: x**0,
    "Power(-2)": lambda torch, x: x**-2,
    "Power(1.7)": lambda torch, x: x**1.7,
}
EVERY = {**BINARY, **UNARY}
ONE_OF_EACH: list[nn.Layer] = [
    *(make() for make, _ in EVERY.values()),
    nn.MatMul(),
    nn.Sum(),
    nn.Sum(dim=0),
    nn.Mean(dim=(0, -1), keepdim=True),
]

binary = pytest.mark.parametrize("name", BINARY)
unary = pytest.mark.parametrize("name", UNARY)
every = pytest.mark.parametrize("name", EVERY)
each = pytest.mark.parametrize("node", ONE_OF_EACH, ids=repr)


def draws(seed: int, *shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


def operands_of(node: nn.Layer) -> list[Array]:
    """Return float64 operands that suit any node."""
    count = (
        2 if isinstance(node, (*(type(make()) for make, _ in BINARY.values()), nn.MatMul)) else 1
    )
    return [positive(x) for x in draws(0, *[(3, 3)] * count)]


def as_tuple(values: Any) -> tuple[Any, ...]:
    return values if isinstance(values, tuple) else (values,)


def in_torch(
    function: Callable[..., Any], grad: Array | None, *operands: Array
) -> tuple[Array, list[Array]]:
    """Return what PyTorch's autograd gives: the value, and the gradient of each operand."""
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(operand, requires_grad=True) for operand in operands]
    value = function(torch, *tensors)
    value.backward(torch.ones_like(value) if grad is None else torch.tensor(grad))
    return value.detach().numpy(), [tensor.grad.numpy() for tensor in tensors]


# ---- gradients ----


@binary
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
def test_gradients_of_two_operands_agree_with_central_differences_for_all_shapes(
    name: str, shapes: hnp.BroadcastableShapes
) -> None:
    make, domain = BINARY[name]
    a, b = draws(1, *shapes.input_shapes)
    assert nn.gradcheck(make(), a, domain(b)).passed


@pytest.mark.parametrize("node", [nn.Add, nn.Multiply])
@given(
    shapes=st.integers(3, 5).flatmap(
        lambda count: hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=2, max_side=3)
    )
)
def test_gradients_of_many_operands_agree_with_central_differences(
    node: type[nn.Layer], shapes: hnp.BroadcastableShapes
) -> None:
    assert nn.gradcheck(node(), *draws(1, *shapes.input_shapes)).passed


@unary
@given(shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=3))
def test_gradients_of_one_operand_agree_with_central_differences_for_all_shapes(
    name: str, shape: tuple[int, ...]
) -> None:
    make, domain = UNARY[name]
    (x,) = draws(2, shape)
    assert nn.gradcheck(make(), domain(x)).passed


@given(
    shapes=hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, max_side=3)
)
def test_gradients_of_a_matrix_product_agree_with_central_differences_for_all_shapes(
    shapes: hnp.BroadcastableShapes,
) -> None:
    a, b = draws(3, *shapes.input_shapes)
    node = nn.MatMul()
    assert_allclose(node(a, b), np.matmul(a, b), rtol=1e-12)
    assert np.shape(node(a, b)) == shapes.result_shape
    assert nn.gradcheck(node, a, b).passed


@st.composite
def reductions(draw: st.DrawFn) -> tuple[tuple[int, ...], Any, bool]:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3))
    one = st.integers(-len(shape), len(shape) - 1)
    several = hnp.valid_tuple_axes(len(shape), min_size=1)
    return shape, draw(st.none() | one | several), draw(st.booleans())


@pytest.mark.parametrize(("node", "function"), [(nn.Sum, np.sum), (nn.Mean, np.mean)])
@given(case=reductions())
def test_reductions_are_numpys_and_their_gradients_agree_with_central_differences(
    node: Any, function: Any, case: tuple[tuple[int, ...], Any, bool]
) -> None:
    shape, dim, keepdim = case
    (x,) = draws(4, shape)
    reduction = node(dim, keepdim)
    assert_allclose(reduction(x), function(x, axis=dim, keepdims=keepdim), rtol=1e-12)
    assert nn.gradcheck(reduction, x).passed


def test_the_gradient_of_a_product_needs_no_division_by_its_factors() -> None:
    multiply = nn.Multiply()
    assert multiply(np.array([0.0]), np.array([2.0]), np.array([3.0])) == 0
    assert [float(grad[0]) for grad in multiply.backward(np.array([1.0]))] == [6, 0, 0]


def test_the_seed_formulas_gradients() -> None:
    # f = x · y and g = h² at x = 3, y = 2: df = (y, x), and dg/dh = 2 h.
    multiply, square = nn.Multiply(), nn.Square()
    assert square(multiply(3.0, 2.0)) == 36
    assert multiply.backward(square.backward(np.array(1.0))) == (24, 36)


@pytest.mark.parametrize("node", [nn.Maximum, nn.Minimum])
def test_a_tie_gives_each_operand_half_of_the_gradient(node: type[nn.Layer]) -> None:
    layer = node()
    layer(np.array([2.0, 2.0]), 2.0)
    a_grad, b_grad = layer.backward(np.array([1.0, 3.0]))
    assert_array_equal(a_grad, [0.5, 1.5])
    assert b_grad == 2


# ---- live parity with PyTorch ----


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_and_gradients_are_pytorchs(name: str, dtype: Any) -> None:
    make, domain = EVERY[name]
    shapes = [(4, 1, 3), (5, 1)] if name in BINARY else [(4, 3)]
    operands = [domain(x).astype(dtype) for x in draws(5, *shapes)]
    node = make()
    value = node(*operands)
    (grad,) = draws(6, value.shape)
    expected, expected_grads = in_torch(TORCH[name], grad.astype(dtype), *operands)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == np.float32 else {"rtol": 1e-12}
    assert value.dtype == expected.dtype
    assert_allclose(value, expected, **tolerance)
    found = as_tuple(node.backward(grad.astype(dtype)))
    for mine, theirs in zip(found, expected_grads, strict=True):
        assert mine.dtype == theirs.dtype
        assert_allclose(mine, theirs, **tolerance)


@every
def test_zeros_infinities_and_negative_numbers_give_what_pytorch_gives(name: str) -> None:
    make, _ = EVERY[name]
    special = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan])
    if name == "Abs":
        special = special[:-1]  # PyTorch's gradient for NaN is 0; here NaN stays visible
    operands = [special[:, None], special] if name in BINARY else [special]
    node = make()
    with np.errstate(all="ignore"):
        value = node(*operands)
        # Element by element: a sum of the gradients over an axis would be NaN all over.
        operands = list(np.broadcast_arrays(*operands))
        node(*operands)
        grads = as_tuple(node.backward(np.ones(value.shape)))
    expected, expected_grads = in_torch(TORCH[name], None, *(x.copy() for x in operands))
    assert_allclose(value, expected, rtol=1e-14)
    for mine, theirs in zip(grads, expected_grads, strict=True):
        assert_allclose(mine, theirs, rtol=1e-14)


@pytest.mark.parametrize(
    "shapes",
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((3,), (5, 3, 4)),
        ((5, 2, 3), (3,)),
        ((6, 1, 2, 3), (5, 3, 4)),
    ],
    ids=str,
)
def test_matrix_products_are_pytorchs(shapes: tuple[tuple[int, ...], ...]) -> None:
    operands = draws(7, *shapes)
    node = nn.MatMul()
    value = node(*operands)
    (grad,) = draws(8, np.shape(value))
    expected, expected_grads = in_torch(lambda torch, a, b: torch.matmul(a, b), grad, *operands)
    assert_allclose(value, expected, rtol=1e-12)
    for mine, theirs in zip(node.backward(grad), expected_grads, strict=True):
        assert_allclose(mine, theirs, rtol=1e-12)


@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize(("node", "method"), [(nn.Sum, "sum"), (nn.Mean, "mean")])
def test_reductions_are_pytorchs(node: Any, method: str, dim: Any, keepdim: bool) -> None:
    (x,) = draws(9, (2, 3, 4))
    reduction = node(dim, keepdim)
    value = reduction(x)
    (grad,) = draws(10, np.shape(value))
    expected, (x_grad,) = in_torch(
        lambda torch, x: getattr(torch, method)(x, dim=dim, keepdim=keepdim), grad, x
    )
    assert np.shape(value) == expected.shape
    assert_allclose(value, expected, rtol=1e-12)
    assert_allclose(reduction.backward(grad), x_grad, rtol=1e-12)


# ---- outside the domain ----


@pytest.mark.parametrize(
    ("node", "operands", "value"),
    [
        (nn.Log(), (0.0,), -math.inf),
        (nn.Log(), (-1.0,), math.nan),
        (nn.Sqrt(), (-1.0,), math.nan),
        (nn.Divide(), (1.0, 0.0), math.inf),
        (nn.Divide(), (0.0, 0.0), math.nan),
        (nn.Reciprocal(), (0.0,), math.inf),
        (nn.Power(-1), (0.0,), math.inf),
        (nn.Power(0.5), (-1.0,), math.nan),
        (nn.Exp(), (1000.0,), math.inf),
    ],
    ids=str,
)
def test_outside_its_domain_an_operation_warns_or_raises_as_numpy_is_told_to(
    node: nn.Layer, operands: tuple[float, ...], value: float
) -> None:
    with pytest.warns(RuntimeWarning, match=r"encountered in"):
        assert_array_equal(node(*operands), value)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        node(*operands)


# ---- dtypes and scalars ----


@binary
@pytest.mark.parametrize("stray", [np.array(2.0), np.full((2, 3), 2.0), 2.0, np.float64(2)])
@pytest.mark.parametrize("first", [True, False])
def test_a_float64_operand_does_not_promote_a_float32_one(
    name: str, stray: Any, first: bool
) -> None:
    node = BINARY[name][0]()
    own = np.ones((2, 3), np.float32)
    value = node(stray, own) if first else node(own, stray)
    assert value.dtype == np.float32
    assert {grad.dtype.name for grad in node.backward(np.ones((2, 3)))} == {"float32"}


def test_a_matrix_product_of_float32_and_float64_is_float32() -> None:
    node = nn.MatMul()
    assert node(np.ones((2, 3), np.float32), np.ones((3, 4))).dtype == np.float32
    assert {grad.dtype.name for grad in node.backward(np.ones((2, 4)))} == {"float32"}


@every
def test_float64_operands_stay_float64(name: str) -> None:
    node = EVERY[name][0]()
    value = node(*([2.0, 3.0] if name in BINARY else [2.0]))
    assert value.dtype == np.float64
    for grad in as_tuple(node.backward(np.float32(1))):
        assert grad.dtype == np.float64


@binary
def test_a_number_is_an_operand_of_every_element(name: str) -> None:
    make, _ = BINARY[name]
    node, reference = make(), make()
    (x,) = draws(11, (2, 3))
    assert_array_equal(node(x, 2.0), reference(x, np.full((2, 3), 2.0)))
    x_grad, number_grad = node.backward(np.ones((2, 3)))
    expected_x_grad, expected_grads = reference.backward(np.ones((2, 3)))
    assert_array_equal(x_grad, expected_x_grad)
    assert np.shape(number_grad) == ()
    assert_allclose(number_grad, expected_grads.sum(), rtol=1e-12)


# ---- errors ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: nn.Add()(np.ones((2, 3)), np.ones(4)),
            ValueError,
            r"^Add\(\): operands of shapes \(2, 3\) and \(4,\) do not broadcast",
        ),
        (
            lambda: nn.Multiply()(np.ones(2), np.ones(3), 1.0),
            ValueError,
            r"^Multiply\(\): operands of shapes \(2,\) and \(3,\) and \(\) do not broadcast",
        ),
        (
            lambda: nn.Divide()(np.ones(2), np.ones(3)),
            ValueError,
            r"^Divide\(\): operands of shapes \(2,\) and \(3,\) do not broadcast",
        ),
        (lambda: nn.Add()(np.ones(2)), TypeError, r"^Add\(\): expected two operands or more"),
        (lambda: nn.Multiply()(), TypeError, r"^Multiply\(\): expected two operands or more"),
        (
            lambda: nn.Add()(np.ones(2), np.ones(2, int)),
            TypeError,
            r"^Add\(\): expected input of floats, got dtype int64; .*astype",
        ),
        (lambda: nn.Log()(np.array([], float)), ValueError, r"^Log\(\): input is empty"),
        (
            lambda: nn.MatMul()(np.ones((2, 3)), np.ones((2, 3))),
            ValueError,
            r"^MatMul\(\): expected .* got \(2, 3\) and \(2, 3\)",
        ),
        (
            lambda: nn.MatMul()(np.ones((2, 3)), 2.0),
            ValueError,
            r"^MatMul\(\): expected .* got \(2, 3\) and \(\)",
        ),
        (
            lambda: nn.Sum(dim=2)(np.ones((2, 3))),
            ValueError,
            r"^Sum\(dim=2\): an input of shape \(2, 3\) has no axis 2",
        ),
        (
            lambda: nn.Mean(dim=(0, -2))(np.ones((2, 3))),
            ValueError,
            r"^Mean\(dim=\(0, -2\)\): .* different axes",
        ),
        (lambda: nn.Sum(dim=()), ValueError, "^Sum: dim is empty"),
        (lambda: nn.Sum(dim=1.5), TypeError, "^Sum: dim must be an int"),
        (lambda: nn.Mean(dim=(0, "a")), TypeError, "^Mean: dim must be an int"),
        (lambda: nn.Power("2"), TypeError, "^Power: exponent must be a number"),
        (lambda: nn.Power(math.nan), ValueError, "^Power: exponent must be finite"),
        (lambda: nn.Weight([1, "a"]), TypeError, "^Weight: expected an array of floats"),
        (lambda: nn.Weight(np.ones(2, int)), TypeError, "^Weight: expected an array of floats"),
    ],
)
def test_what_does_not_fit_is_an_error_in_one_sentence(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# ---- the contract of all layers ----


@each
def test_backward_before_forward_is_an_error(node: nn.Layer) -> None:
    with pytest.raises(RuntimeError, match="call forward"):
        copy.deepcopy(node).backward(np.ones((3, 3)))


@each
def test_a_gradient_of_another_shape_is_an_error(node: nn.Layer) -> None:
    node = copy.deepcopy(node)
    node(*operands_of(node))
    for input_grad in (True, False):
        with pytest.raises(ValueError, match="gradient of its output"):
            node.backward(np.ones((7, 7)), input_grad)


@each
def test_nothing_given_or_returned_is_written_into(node: nn.Layer) -> None:
    node = copy.deepcopy(node)
    seen: list[tuple[Array, Array]] = []
    for scale in (1.0, 2.0):
        operands = [scale * x for x in operands_of(node)]
        seen += [(x, x.copy()) for x in operands]
        value = node(*operands)
        (grad,) = draws(12, np.shape(value))
        first = as_tuple(node.backward(grad))
        seen += [(np.asarray(x), np.array(x)) for x in (value, grad, *first)]
        for x, y in zip(first, as_tuple(node.backward(grad)), strict=True):
            assert_array_equal(x, y)
        assert node.backward(grad, input_grad=False) is None
    for array, before in seen:
        assert_array_equal(array, before)


@each
def test_the_memory_order_of_the_operands_does_not_matter(node: nn.Layer) -> None:
    node, other = copy.deepcopy(node), copy.deepcopy(node)
    operands = operands_of(node)
    value, same = node(*operands), other(*map(np.asfortranarray, operands))
    assert_allclose(same, value, rtol=1e-12)
    (grad,) = draws(13, np.shape(value))
    for x, y in zip(
        as_tuple(node.backward(grad)),
        as_tuple(other.backward(np.array(grad, order="F"))),
        strict=True,
    ):
        assert_allclose(x, y, rtol=1e-12)


@each
def test_the_repr_is_the_constructor_call(node: nn.Layer) -> None:
    again = eval(repr(node), vars(nn))
    assert type(again) is type(node)
    assert repr(again) == repr(node)
    assert_array_equal(again(*operands_of(node)), copy.deepcopy(node)(*operands_of(node)))


def test_the_gradient_of_a_sum_is_an_array_that_can_be_written_into() -> None:
    node = nn.Sum()
    node(np.ones((2, 3)))
    assert node.backward(np.array(1.0)).flags.writeable


# ---- Weight ----


def test_a_weight_is_a_parameter_without_inputs() -> None:
    weight = nn.Weight([1.0, 2.0])
    assert_array_equal(weight(), [1, 2])
    assert list(weight.state_dict()) == ["weight"]
    for _ in range(2):
        assert weight.backward(np.array([0.5, 1.0])) is None
    assert_array_equal(weight.weight.grad, [1, 2])


def test_the_output_of_a_weight_does_not_change_when_the_weight_does() -> None:
    weight = nn.Weight([1.0])
    before = weight()
    weight.weight.data += 1
    assert before == 1
    assert weight() == 2


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (2, np.float32),
        (2.0, np.float32),
        ([[1, 2.5]], np.float32),
        (np.float64(2), np.float64),
        (np.ones(2), np.float64),
        (np.ones(2, np.float32), np.float32),
    ],
    ids=str,
)
def test_a_weight_keeps_float64_arrays_and_makes_float32_of_numbers(data: Any, dtype: Any) -> None:
    weight = nn.Weight(data)
    assert weight().dtype == dtype
    assert weight.astype(np.float64)().dtype == np.float64


def test_a_weight_without_gradient_is_a_constant() -> None:
    weight = nn.Weight(2.0, requires_grad=False)
    weight()
    weight.backward(np.array(1.0))
    assert weight.weight.grad is None
    assert not weight.trainable()
    assert weight.state_dict() == {"weight": 2.0}


def test_a_tied_weight_adds_to_the_same_gradient() -> None:
    weight = nn.Weight(2.0)
    twin = weight.tied()
    weight(), twin()
    weight.backward(np.array(1.0))
    twin.backward(np.array(2.0))
    assert weight.weight.grad == 3


@pytest.mark.parametrize(
    ("weight", "shown"),
    [
        (nn.Weight(0.1), "Weight(0.1)"),
        (nn.Weight([[0.1, 2], [3, 4]]), "Weight([[0.1, 2.0], [3.0, 4.0]])"),
        (nn.Weight(1.0, requires_grad=False), "Weight(1.0, requires_grad=False)"),
        (nn.Weight(np.ones((20, 10))), "Weight(numpy.zeros((20, 10)))"),
    ],
    ids=str,
)
def test_a_weight_shows_its_value_if_it_is_small_and_its_shape_if_not(
    weight: nn.Layer, shown: str
) -> None:
    assert repr(weight) == shown
    again = eval(shown, {**vars(nn), "numpy": np})
    assert again().shape == weight().shape


def test_an_optimizer_fits_a_weight() -> None:
    # The mean minimises the sum of squares.
    values = np.array([1.0, 2.0, 6.0])
    line = nn.Graph(
        {
            "m": nn.Weight(0.0),
            "d": (nn.Subtract(), "x", "m"),
            "d²": (nn.Square(), "d"),
            "loss": (nn.Mean(), "d²"),
        }
    ).astype(np.float64)
    optimizer = nn.SGD(line.parameters(), lr=0.1)
    for _ in range(200):
        line(values)
        optimizer.zero_grad()
        line.backward(input_grad=False)
        optimizer.step()
    assert_allclose(line["m"].weight.data, 3.0, rtol=1e-12)
