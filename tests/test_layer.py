"""The contract of all layers, `Parameter`, and the services of `Layer` for custom layers."""

from __future__ import annotations

import copy
import pickle
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn
from nnlite.modes import evaluating

from .registry import LAYERS, LOSSES, Array, LayerCase, sine_vjp

every_layer = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
every_float_layer = pytest.mark.parametrize(
    "case", [case for case in LAYERS if case.takes_floats], ids=lambda case: case.name
)

# For what only a layer that does the same again can be held to.
every_layer_that_repeats_itself = pytest.mark.parametrize(
    "case", [case for case in LAYERS if case.repeats_itself], ids=lambda case: case.name
)


def in_float64(case: LayerCase) -> nn.Layer:
    return case.make().astype(np.float64)


def as_tuple(values: Any) -> tuple[Any, ...]:
    return values if isinstance(values, tuple) else (values,)


def gradients(layer: nn.Layer) -> dict[str, Array]:
    """Return copies of the gradients of all parameters."""
    return {
        name: np.array(parameter.grad)
        for name, parameter in layer.named_parameters()
        if parameter.grad is not None
    }


def assert_same(
    actual: dict[str, Array], expected: dict[str, Array], rtol: float = 1e-12, atol: float = 1e-14
) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_allclose(actual[name], value, rtol=rtol, atol=atol, err_msg=name)


def named(layer: nn.Layer) -> str:
    """Return a pattern for the start of a message: the class of the layer or of one inside it."""
    return f"^({'|'.join({type(part).__name__ for _, part in layer.named_layers()})})\\b"


def grad_like(output: Array, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=output.shape)


def test_every_public_layer_is_held_to_the_contract() -> None:
    # `Weight` has no inputs, and is tested with the other nodes of a `Graph`. `Split` and an
    # `LSTMCell` have several outputs.
    public = {value for name in nn.__all__ if isinstance(value := getattr(nn, name), type)}
    expected = {kind for kind in public if issubclass(kind, nn.Layer)}
    expected -= {nn.Layer, nn.Loss, nn.Weight, nn.Split, nn.LSTMCell}
    # These have files of tests of their own.
    expected -= {nn.AveragedModel, nn.CosineEmbedding, nn.GaussianNLL, nn.TripletMargin}
    assert {type(case.make()) for case in (*LAYERS, *LOSSES)} >= expected


# ---- backward ----


@every_layer
@pytest.mark.parametrize("input_grad", [True, False])
def test_backward_before_forward_is_an_error_that_says_so(
    case: LayerCase, input_grad: bool, rng: np.random.Generator
) -> None:
    layer = in_float64(case)
    grad = np.ones_like(in_float64(case)(*case.inputs(rng, 2)))
    with pytest.raises(RuntimeError, match=named(layer) + ".*call forward"):
        layer.backward(grad, input_grad)
    assert not gradients(layer)


# One test for all that may be wrong: a test takes longer to begin and end than to run.
MISSHAPEN: list[Callable[[Array], Array]] = [
    lambda grad: grad[None],
    lambda grad: grad[..., None],
    lambda grad: grad[:1],
    lambda grad: np.concatenate([grad, grad]),
    lambda grad: grad.reshape(-1),
    lambda grad: grad.sum(axis=-1, keepdims=True),
    lambda grad: grad.sum(),
]


@every_layer
@pytest.mark.parametrize("input_grad", [True, False])
def test_a_gradient_of_the_wrong_shape_is_an_error_and_changes_nothing(
    case: LayerCase, input_grad: bool, rng: np.random.Generator
) -> None:
    layer = in_float64(case)
    grad = grad_like(layer(*case.inputs(rng, 3)))
    for before in ({}, None):
        if before is None:
            layer.backward(grad)
            before = gradients(layer)
        for misshapen in MISSHAPEN:
            wrong = misshapen(grad)
            if wrong.shape != grad.shape:
                with pytest.raises(ValueError, match=named(layer) + ".*gradient.*shape"):
                    layer.backward(wrong, input_grad)
                assert_same(gradients(layer), before, rtol=0, atol=0)


@every_layer
def test_a_gradient_that_is_not_of_floats_is_an_error_and_changes_nothing(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer = in_float64(case)
    output = layer(*case.inputs(rng, 2))
    for dtype in (np.int64, np.bool_, object, np.complex128):
        with pytest.raises(TypeError, match=named(layer) + ".*gradient.*floats"):
            layer.backward(np.ones(output.shape, dtype))
        assert not gradients(layer)


@every_layer
def test_a_second_backward_gives_the_same_input_gradient_and_doubles_the_parameters(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer = in_float64(case)
    grad = grad_like(layer(*case.inputs(rng, 3)))
    first, once = layer.backward(grad), gradients(layer)
    second, twice = layer.backward(grad), gradients(layer)
    for a, b in zip(as_tuple(first), as_tuple(second), strict=True):
        assert_array_equal(a, b)
    assert_same(twice, {name: 2 * value for name, value in once.items()})


@every_layer
def test_gradients_add_up_until_zero_grad(case: LayerCase, rng: np.random.Generator) -> None:
    layer = in_float64(case)
    batches = [case.inputs(rng, 3), case.inputs(rng, 2)]
    alone = []
    for inputs in batches:
        fresh = in_float64(case)
        fresh.backward(grad_like(fresh(*inputs)))
        alone.append(gradients(fresh))
        layer.backward(grad_like(layer(*inputs)))
    assert_same(gradients(layer), {name: alone[0][name] + alone[1][name] for name in alone[0]})
    layer.zero_grad()
    assert all(parameter.grad is None for parameter in layer.parameters())


@every_layer
def test_without_input_grad_backward_returns_none_and_the_same_parameter_gradients(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer = in_float64(case)
    grad = grad_like(layer(*case.inputs(rng, 3)))
    layer.backward(grad)
    expected = gradients(layer)
    layer.zero_grad()
    assert layer.backward(grad, input_grad=False) is None
    assert_same(gradients(layer), expected)


@every_layer
def test_frozen_parameters_take_no_gradient_and_change_none(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer, frozen = in_float64(case), in_float64(case)
    for parameter in frozen.parameters():
        parameter.requires_grad = False
    inputs = case.inputs(rng, 3)
    grad = grad_like(layer(*inputs))
    frozen(*inputs)
    for a, b in zip(as_tuple(layer.backward(grad)), as_tuple(frozen.backward(grad)), strict=True):
        assert_array_equal(a, b)
    assert not gradients(frozen)
    assert frozen.backward(grad, input_grad=False) is None


@every_layer
@pytest.mark.parametrize("batch", [1, 3])
def test_every_gradient_agrees_with_central_differences(
    case: LayerCase, batch: int, rng: np.random.Generator
) -> None:
    assert nn.gradcheck(case.make(), *case.inputs(rng, batch)).passed


# ---- inputs ----


@every_float_layer
def test_an_input_that_is_not_of_floats_is_an_error_that_names_the_cure(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer = in_float64(case)
    inputs = case.inputs(rng, 2)
    cure = r".*floats.*\.astype\(numpy\.float32\)"
    for dtype in (np.int64, np.uint8, np.bool_, object, np.complex64, "U3"):
        for index, x in enumerate(inputs):
            wrong = [*inputs[:index], np.ones(x.shape).astype(dtype), *inputs[index + 1 :]]
            with pytest.raises(TypeError, match=named(layer) + cure):
                layer(*wrong)


@every_layer
def test_an_empty_batch_is_an_error(case: LayerCase, rng: np.random.Generator) -> None:
    layer = in_float64(case)
    with pytest.raises(ValueError, match=named(layer) + ".*empty"):
        layer(*(x[:0] for x in case.inputs(rng, 2)))


@every_float_layer
def test_a_forward_that_fails_changes_nothing(case: LayerCase, rng: np.random.Generator) -> None:
    layer = in_float64(case)
    inputs = case.inputs(rng, 3)
    grad = grad_like(layer(*inputs))
    expected, state = layer.backward(grad), layer.state_dict()
    before = gradients(layer)
    with pytest.raises(TypeError):
        layer(*(np.ones(x.shape, np.int64) for x in inputs))
    with pytest.raises(ValueError, match="empty"):
        layer(*(x[:0] for x in inputs))
    assert_same(layer.state_dict(), state, rtol=0, atol=0)
    assert_same(gradients(layer), before, rtol=0, atol=0)
    for a, b in zip(as_tuple(layer.backward(grad)), as_tuple(expected), strict=True):
        assert_array_equal(a, b)


@every_float_layer
def test_nan_and_infinity_pass_through_a_layer_to_their_own_sample_only(
    case: LayerCase, rng: np.random.Generator
) -> None:
    inputs = case.inputs(rng, 3)
    clean = in_float64(case)(*inputs)
    for value in (np.nan, np.inf, -np.inf):
        for x in inputs:
            spoilt = [np.array(other) for other in inputs]
            spoilt[[other is x for other in inputs].index(True)][1] = value
            with np.errstate(all="ignore"):
                output = in_float64(case)(*spoilt)
            if np.isnan(value) and case.spreads_nan:
                assert np.isnan(output[1]).any()
            if case.per_sample:
                assert_allclose(output[[0, 2]], clean[[0, 2]], rtol=1e-12)


# ---- dtype ----


@every_float_layer
def test_float32_stays_float32_whatever_the_gradient(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer = case.make()
    output = layer(*(x.astype(np.float32) for x in case.inputs(rng, 3)))
    assert output.dtype == np.float32
    for x_grad in as_tuple(layer.backward(grad_like(output))):
        assert x_grad.dtype == np.float32
    assert {grad.dtype.name for grad in gradients(layer).values()} <= {"float32"}


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.longdouble, ">f8", ">f4"])
@pytest.mark.parametrize(
    "case",
    [case for case in LAYERS if list(case.make().parameters())],
    ids=lambda case: case.name,
)
def test_a_stray_dtype_never_changes_a_float32_network(
    case: LayerCase, dtype: Any, rng: np.random.Generator
) -> None:
    layer, reference = case.make(), case.make()
    stray = [x.astype(dtype) if case.takes_floats else x for x in case.inputs(rng, 3)]
    native = [x.astype(np.float32) if case.takes_floats else x for x in stray]
    output, expected = layer(*stray), reference(*native)
    assert output.dtype == np.float32
    assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    layer.backward(grad_like(output))
    reference.backward(grad_like(expected))
    assert {grad.dtype.name for grad in gradients(layer).values()} == {"float32"}
    assert_same(gradients(layer), gradients(reference), rtol=1e-4, atol=1e-5)


@every_layer
def test_astype_makes_everything_float64(case: LayerCase, rng: np.random.Generator) -> None:
    layer = case.make()
    assert layer.astype(np.float64) is layer
    assert {value.dtype.kind + str(value.itemsize) for value in layer.state_dict().values()} <= {
        "f8",
        "i8",
    }
    output = layer(*case.inputs(rng, 3))
    assert output.dtype == np.float64
    for x_grad in as_tuple(layer.backward(grad_like(output).astype(np.float32))):
        assert x_grad is None or x_grad.dtype == np.float64
    assert {grad.dtype.name for grad in gradients(layer).values()} <= {"float64"}


@every_layer
def test_astype_keeps_values_and_gradients_and_forgets_the_cache(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer = case.make()
    grad = grad_like(layer(*case.inputs(rng, 3)))
    layer.backward(grad)
    state, before = layer.state_dict(), gradients(layer)
    layer.astype(np.float64)
    assert_same(layer.state_dict(), state, rtol=0, atol=0)
    assert_same(gradients(layer), before, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="call forward"):
        layer.backward(grad)


# ---- memory ----


@every_layer
def test_a_layer_writes_into_nothing_that_it_got_or_gave(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer = in_float64(case)
    seen: list[tuple[str, Array, Array]] = []
    for batch in (3, 3, 2, 3):
        inputs = case.inputs(rng, batch)
        handed: list[tuple[str, Any]] = [("input", x) for x in inputs]
        handed = [(name, array, array.copy()) for name, array in handed]
        seen += handed
        output = layer(*inputs)
        seen.append(("output", output, output.copy()))
        grad = grad_like(output, batch)
        seen.append(("output gradient", grad, grad.copy()))
        for x_grad in as_tuple(layer.backward(grad)):
            if x_grad is not None:
                seen.append(("input gradient", x_grad, x_grad.copy()))
        for name, parameter in layer.named_parameters():
            if parameter.grad is not None:
                seen.append((f"gradient of {name}", parameter.grad, parameter.grad.copy()))
        layer.zero_grad()
        for name, array, before in seen:
            assert_array_equal(array, before, err_msg=name)


@every_layer
def test_writing_into_all_that_a_layer_got_and_gave_changes_nothing_later(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer, untouched = in_float64(case), in_float64(case)
    for batch in (3, 3, 2, 3):
        inputs = case.inputs(rng, batch)
        theirs = tuple(x.copy() for x in inputs)
        output, expected = layer(*theirs), untouched(*inputs)
        grad = grad_like(expected, batch)
        my_grad = grad.copy()
        x_grads = as_tuple(layer.backward(my_grad))
        expected_x_grads = as_tuple(untouched.backward(grad))
        assert_allclose(output, expected, rtol=1e-12)
        for x_grad, expected_x_grad in zip(x_grads, expected_x_grads, strict=True):
            if expected_x_grad is not None:
                assert_allclose(x_grad, expected_x_grad, rtol=1e-12)
        assert_same(gradients(layer), gradients(untouched))
        parameter_grads = [p.grad for p in layer.parameters() if p.grad is not None]
        layer.zero_grad()
        untouched.zero_grad()
        for array in (*theirs, output, my_grad, *x_grads, *parameter_grads):
            if array is not None and array.flags.writeable:
                array[...] = 0 if array.dtype.kind in "iu" else np.nan
        assert_same(layer.state_dict(), untouched.state_dict(), rtol=0, atol=0)


@every_layer
def test_outputs_and_gradients_are_memory_of_their_own(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer = in_float64(case)
    inputs = case.inputs(rng, 3)
    output = layer(*inputs)
    grad = grad_like(output)
    results = [output] * (not case.hands_on_views)
    results += [x_grad for x_grad in as_tuple(layer.backward(grad)) if x_grad is not None]
    given = [] if case.hands_on_views else [*inputs, grad]
    given += [parameter.data for parameter in layer.parameters()]
    given += [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
    for result in results:
        for array in given:
            assert not np.shares_memory(result, array)


def _spread_out(x: Array) -> Array:
    wide = np.zeros([2 * size for size in x.shape], x.dtype)
    every_other = (slice(None, None, 2),) * x.ndim
    wide[every_other] = x
    return wide[every_other]


def _read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


class Subclass(np.ndarray):  # type: ignore[type-arg]
    """An array of another class, with the same values."""


MEMORY_LAYOUTS: dict[str, Callable[[Array], Any]] = {
    "Fortran order": np.asfortranarray,
    "negative strides": lambda x: np.flip(np.flip(x).copy()),
    "every other element": _spread_out,
    "batch innermost": lambda x: np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0),
    "one sample broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "read-only": _read_only,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "unaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), x.dtype, x.size, 1).reshape(x.shape),
    "subclass": lambda x: x.view(Subclass),
    "nested list": lambda x: x.tolist(),
}


@every_layer
def test_results_do_not_depend_on_how_the_arrays_lie_in_memory(
    case: LayerCase, rng: np.random.Generator
) -> None:
    given = case.inputs(rng, 3)
    for kind, layout in MEMORY_LAYOUTS.items():
        layer, reference = in_float64(case), in_float64(case)
        inputs = [layout(x) for x in given]
        output, expected = layer(*inputs), reference(*(np.array(x).tolist() for x in inputs))
        assert type(output) is np.ndarray
        assert output.dtype == np.dtype(np.float64)
        assert_allclose(output, expected, rtol=1e-12, err_msg=kind)
        grad = layout(grad_like(expected))
        x_grads = as_tuple(layer.backward(grad))
        expected_grads = as_tuple(reference.backward(np.array(grad).tolist()))
        for x_grad, expected_grad in zip(x_grads, expected_grads, strict=True):
            if expected_grad is not None:
                assert type(x_grad) is np.ndarray
                # Sums of another order differ more where they cancel.
                assert_allclose(x_grad, expected_grad, rtol=1e-12, atol=1e-15, err_msg=kind)
        assert_same(gradients(layer), gradients(reference))


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize(
    "case",
    [case for case in LAYERS if {x.ndim for x in case.inputs(np.random.default_rng(), 1)} == {2}],
    ids=lambda case: case.name,
)
def test_a_matrix_is_taken_as_the_array_it_is(case: LayerCase, rng: np.random.Generator) -> None:
    inputs = case.inputs(rng, 3)
    output = in_float64(case)(*(np.asmatrix(x) for x in inputs))
    assert type(output) is np.ndarray
    assert_allclose(output, in_float64(case)(*inputs), rtol=1e-12)


@pytest.mark.parametrize(
    "case", [case for case in LAYERS if case.per_sample], ids=lambda case: case.name
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_do_not_depend_on_how_samples_are_split_into_batches(
    case: LayerCase, dtype: Any, rng: np.random.Generator
) -> None:
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12}
    whole, parts = case.make().astype(dtype), case.make().astype(dtype)
    inputs = case.inputs(rng, 7)
    if case.takes_floats:
        inputs = tuple(x.astype(dtype) for x in inputs)
    output = whole(*inputs)
    grad = grad_like(output).astype(dtype)
    x_grads = as_tuple(whole.backward(grad))
    for part in (slice(0, 4), slice(4, 5), slice(5, 7)):
        assert_allclose(parts(*(x[part] for x in inputs)), output[part], **tolerance)
        for part_grad, x_grad in zip(as_tuple(parts.backward(grad[part])), x_grads, strict=True):
            if x_grad is not None:
                assert_allclose(part_grad, x_grad[part], **tolerance)
    assert_same(gradients(parts), gradients(whole), **tolerance)


@every_layer
def test_no_grad_gives_the_same_output_and_keeps_no_cache(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer = in_float64(case)
    inputs = case.inputs(rng, 3)
    expected = in_float64(case)(*inputs)
    with nn.no_grad():
        output = layer(*inputs)
    assert_array_equal(output, expected)
    with pytest.raises(RuntimeError, match="no_grad"):
        layer.backward(grad_like(output))
    layer.backward(grad_like(layer(*inputs)))


# ---- copies ----


@every_layer
def test_repr_can_be_typed_back_in(case: LayerCase, rng: np.random.Generator) -> None:
    layer = case.make()
    functions = {"sin": np.sin, "cos": np.cos, "sine_vjp": sine_vjp}
    typed = eval(repr(layer), {**vars(nn), **functions})
    assert type(typed) is type(layer)
    assert repr(typed) == repr(layer)
    typed.load_state_dict(layer.state_dict())
    inputs = case.inputs(rng, 3)
    assert_array_equal(typed.eval()(*inputs), layer.eval()(*inputs))


@every_layer_that_repeats_itself
def test_tied_shares_the_parameters_and_nothing_else(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer, first, second = in_float64(case), in_float64(case), in_float64(case)
    a, b = case.inputs(rng, 3), case.inputs(rng, 2)
    twin = layer.tied()
    assert all(p is q for p, q in zip(layer.parameters(), twin.parameters(), strict=True))
    # Two layers with values of their own have the gradients that add up in the shared ones.
    output_a, output_b = layer(*a), twin(*b)
    assert_allclose(output_a, first(*a), rtol=1e-12)
    assert_allclose(output_b, second(*b), rtol=1e-12)
    for mine, alone, output in ((twin, second, output_b), (layer, first, output_a)):
        grad = grad_like(output)
        for x_grad, expected in zip(
            as_tuple(mine.backward(grad)), as_tuple(alone.backward(grad)), strict=True
        ):
            if expected is not None:
                assert_allclose(x_grad, expected, rtol=1e-12)
    from_first, from_second = gradients(first), gradients(second)
    assert_same(
        gradients(layer), {name: from_first[name] + from_second[name] for name in from_first}
    )


@every_layer
def test_tied_begins_without_a_cache(case: LayerCase, rng: np.random.Generator) -> None:
    layer = in_float64(case)
    output = layer(*case.inputs(rng, 2))
    twin = layer.tied()
    with pytest.raises(RuntimeError, match="call forward"):
        twin.backward(grad_like(output))
    layer.backward(grad_like(output))


@every_layer_that_repeats_itself
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_is_equal_and_shares_nothing(
    case: LayerCase, duplicate: Callable[[nn.Layer], nn.Layer], rng: np.random.Generator
) -> None:
    layer = in_float64(case)
    inputs = case.inputs(rng, 3)
    grad = grad_like(layer(*inputs))
    x_grads = as_tuple(layer.backward(grad))
    before, state = gradients(layer), layer.state_dict()
    twin = duplicate(layer)
    assert repr(twin) == repr(layer)
    assert_same(twin.state_dict(), state, rtol=0, atol=0)
    assert_same(gradients(twin), before, rtol=0, atol=0)
    for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
        assert p is not q
        assert not np.shares_memory(p.data, q.data)
        assert not np.shares_memory(p.grad, q.grad)
    for _ in range(2):
        twin(*inputs)
        for a, b in zip(as_tuple(twin.backward(grad)), x_grads, strict=True):
            if b is not None:
                assert_allclose(a, b, rtol=1e-12)
    for parameter in twin.parameters():
        parameter.data += 1.0
    assert_same(layer.state_dict(), state, rtol=0, atol=0)
    assert_same(gradients(layer), before, rtol=0, atol=0)


@every_layer
def test_train_and_eval_reach_every_layer_and_return_the_layer(case: LayerCase) -> None:
    layer = case.make()
    assert layer.training
    assert layer.eval() is layer
    assert not any(part.training for _, part in layer.named_layers())
    assert layer.train() is layer
    assert all(part.training for _, part in layer.named_layers())


def test_a_mode_that_is_set_within_predict_holds_until_its_end() -> None:
    class Restoring(nn.Layer):
        def __init__(self) -> None:
            self.body = nn.Dropout(0.5)

        def forward(self, x: Array) -> Array:
            before = self.body.training
            seen.append(before)
            self.body.train()
            seen.append(self.body.training)
            self.body.train(before)
            return x

    seen: list[bool] = []
    layer = Restoring()
    nn.predict(layer, np.ones((2, 3)))
    assert seen == [False, True]
    assert layer.body.training
    layer.body.eval()
    nn.predict(layer, np.ones((2, 3)))
    assert not layer.body.training


def test_a_class_may_begin_in_another_mode() -> None:
    class Frozen(nn.Layer):
        training = False

    class Thawed(Frozen):
        training = True

    class Ordinary(nn.Layer): ...

    layers = (Frozen(), Thawed(), Ordinary())
    assert [layer.training for layer in layers] == [False, True, True]
    with evaluating():
        assert not any(layer.training for layer in layers)
    assert layers[0].train().training


def test_contexts_of_several_threads_do_not_mix() -> None:
    inside, go_on = threading.Event(), threading.Event()
    context = nn.no_grad()

    def enter_and_wait() -> bool:
        with context:
            inside.set()
            go_on.wait(10)
        return nn.is_grad_enabled()

    with ThreadPoolExecutor(1) as pool, nn.no_grad():
        future = pool.submit(enter_and_wait)
        inside.wait(10)
        with context:
            go_on.set()
            assert future.result()
    assert nn.is_grad_enabled()


@every_layer
def test_state_dict_is_copies_that_load_into_another_layer(
    case: LayerCase, rng: np.random.Generator
) -> None:
    layer, other = case.make(), case.make()
    for parameter in other.parameters():
        parameter.data += 1.0
    state = layer.state_dict()
    assert other.load_state_dict(state) == ([], [])
    inputs = case.inputs(rng, 3)
    assert_array_equal(other(*inputs), layer(*inputs))
    for value in state.values():
        value[...] = 7
    assert_array_equal(other(*inputs), layer(*inputs))
    assert all((value != 7).any() for value in layer.state_dict().values())


# ---- Parameter ----


def test_flags_of_gradients_and_state_dicts_are_booleans() -> None:
    layer, parameter = nn.Linear(2, 2, rng=0), nn.Parameter([1.0])
    with pytest.raises(TypeError, match=r"Linear: .*layer\.requires_grad_\(False\)"):
        layer.requires_grad = False
    with pytest.raises(TypeError, match="requires_grad must be True or False, got 'no'"):
        parameter.requires_grad = "no"
    with pytest.raises(TypeError, match="requires_grad must be True or False, got 'no'"):
        nn.Parameter([1.0], "no")
    with pytest.raises(TypeError, match="strict must be True or False, got 'no'"):
        layer.load_state_dict({}, strict="no")
    assert parameter.requires_grad
    parameter.requires_grad = np.False_
    assert not pickle.loads(pickle.dumps(parameter)).requires_grad


def test_a_parameter_copies_its_data() -> None:
    data = np.ones(3, np.float32)
    parameter = nn.Parameter(data)
    data[...] = 5
    assert_array_equal(parameter.data, [1, 1, 1])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float32, "float32"),
        (np.float64, "float64"),
        (np.float16, "float32"),
        (">f4", "float32"),
        (">f8", "float64"),
    ],
)
def test_a_parameter_is_float32_unless_it_is_given_as_float64(given: Any, kept: str) -> None:
    parameter = nn.Parameter(np.ones(2, given))
    assert parameter.dtype.name == kept
    assert parameter.data.dtype.isnative


def test_a_list_of_floats_is_a_float32_parameter() -> None:
    # As the docstring's example has it: Python floats are a way to write numbers, not a dtype.
    assert nn.Parameter([1.0, 2.0]).dtype == np.float32


@pytest.mark.parametrize("data", [[1, 2], [True], ["a"], [None], [1j]])
def test_a_parameter_of_anything_but_floats_is_an_error(data: Any) -> None:
    with pytest.raises(TypeError, match=r"Parameter: expected .* floats"):
        nn.Parameter(data)


def test_parameter_gradients_add_up() -> None:
    parameter = nn.Parameter(np.zeros((1, 2), np.float32))
    assert parameter.grad is None
    parameter.accumulate(np.array([[1.0, 2.0]]))
    parameter.accumulate(np.array([[0.5, 0.25]], np.float32))
    assert_array_equal(parameter.grad, [[1.5, 2.25]])
    assert parameter.grad.dtype == np.float32
    parameter.zero_grad()
    assert parameter.grad is None


def test_a_gradient_product_adds_the_matrix_product(rng: np.random.Generator) -> None:
    left, right = rng.normal(size=(2, 5)), rng.normal(size=(5, 6))
    parameter = nn.Parameter(np.zeros((2, 3, 2)))
    for times in (1, 2, 3):
        parameter.accumulate_product(left, right)
        expected = times * np.einsum("ij,jk->ik", left, right).reshape(2, 3, 2)
        assert_allclose(parameter.grad, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (2,), (), (4, 2), (2, 2, 1)])
@pytest.mark.parametrize("again", [False, True])
def test_a_gradient_of_another_shape_than_the_parameter_is_an_error(
    shape: tuple[int, ...], again: bool
) -> None:
    parameter = nn.Parameter(np.zeros((2, 2)))
    if again:
        parameter.accumulate(np.ones((2, 2)))
    with pytest.raises(ValueError, match="shape"):
        parameter.accumulate(np.ones(shape))
    assert (parameter.grad is None) if not again else (parameter.grad == 1).all()


def test_a_gradient_is_not_the_array_that_was_added() -> None:
    parameter, grad = nn.Parameter(np.zeros(2)), np.ones(2)
    parameter.accumulate(grad)
    parameter.accumulate(grad)
    assert_array_equal(grad, [1, 1])
    grad[...] = 9
    assert_array_equal(parameter.grad, [2, 2])


@pytest.mark.parametrize("what", ["data", "grad"])
@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (2,), (), (4,), (2, 2, 1), (0, 2)])
def test_a_value_or_gradient_of_another_shape_cannot_be_assigned(
    what: str, shape: tuple[int, ...]
) -> None:
    parameter = nn.Parameter(np.zeros((2, 2)))
    parameter.accumulate(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"shape=\(2, 2\).* of shape \("):
        setattr(parameter, what, np.ones(shape))
    assert_array_equal(parameter.data, np.zeros((2, 2)))
    assert_array_equal(parameter.grad, np.ones((2, 2)))


@pytest.mark.parametrize("what", ["data", "grad"])
@pytest.mark.parametrize("value", [["a", "b"], [None, None], [1j, 1j], [True, False]])
def test_what_is_assigned_to_a_parameter_must_be_numbers(what: str, value: Any) -> None:
    parameter = nn.Parameter(np.zeros(2))
    with pytest.raises(TypeError, match=r"^Parameter\(.*\): expected numbers"):
        setattr(parameter, what, value)
    assert_array_equal(parameter.data, [0, 0])
    assert parameter.grad is None


@pytest.mark.parametrize("what", ["data", "grad"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_assigned_to_a_parameter_is_copied_in_its_dtype(what: str, dtype: Any) -> None:
    parameter = nn.Parameter(np.zeros(2, dtype))
    for value in (
        np.ones(2, np.float32),
        np.ones(2),
        np.ones(2, ">f8"),
        np.ones(2, int),
        [1.0, 1.0],
        np.ones(4)[::-2],
    ):
        setattr(parameter, what, value)
        kept = getattr(parameter, what)
        assert kept.dtype == np.dtype(dtype)
        assert kept.dtype.isnative
        if isinstance(value, np.ndarray):
            assert not np.shares_memory(kept, value)
        assert_array_equal(kept, [1, 1])
        parameter.zero_grad()


def test_parameters_change_in_place_where_python_says_so() -> None:
    parameter = nn.Parameter(np.ones(2))
    parameter.accumulate(np.ones(2))
    data, grad = parameter.data, parameter.grad
    parameter.data *= 3
    parameter.grad *= 5
    assert parameter.data is data
    assert parameter.grad is grad
    assert_array_equal(data, [3, 3])
    assert_array_equal(grad, [5, 5])


def test_a_frozen_parameter_takes_no_gradient() -> None:
    parameter = nn.Parameter(np.zeros((2, 2)), requires_grad=False)
    parameter.accumulate(np.ones((2, 2)))
    parameter.accumulate_product(np.ones((2, 3)), np.ones((3, 2)))
    assert parameter.grad is None


HOLDERS: dict[str, Callable[[Array], Any]] = {
    "itself": lambda grad: grad,
    "a view": lambda grad: grad[1:],
    "a view of a view": lambda grad: grad[1:].T[:1],
    "its transpose": lambda grad: grad.T,
    "other bytes": lambda grad: grad.view(np.int32),
    "a memoryview": memoryview,
    "a buffer": lambda grad: np.frombuffer(grad.data, grad.dtype),
    "a subclass": lambda grad: grad.view(Subclass),
    "strides": lambda grad: np.lib.stride_tricks.as_strided(grad, (2,), (grad.itemsize,)),
}


@pytest.mark.parametrize("with_optimizer", [False, True])
@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS.keys())
def test_an_old_gradient_that_is_still_held_never_changes(
    hold: Callable[[Array], Any], with_optimizer: bool
) -> None:
    params = [nn.Parameter(np.zeros(shape, np.float32)) for shape in ((3, 2), (2,))]
    optimizer = nn.SGD(params, lr=0.1, momentum=0.9) if with_optimizer else None
    kept: list[tuple[Any, Array]] = []
    for step in range(1, 5):
        for parameter in params:
            parameter.accumulate(np.full(parameter.shape, float(step)))
        kept.append((hold(params[0].grad), np.array(hold(params[0].grad))))
        if optimizer is not None:
            optimizer.step()
        for parameter in params:
            parameter.zero_grad()
        for held, value in kept:
            assert_array_equal(np.asarray(held), value)


def test_the_gradient_memory_is_used_again_when_nobody_holds_it() -> None:
    parameter = nn.Parameter(np.zeros((300, 300), np.float32))
    addresses = set()
    for _ in range(5):
        parameter.accumulate(np.ones((300, 300)))
        addresses.add(parameter.grad.ctypes.data)
        parameter.zero_grad()
    assert len(addresses) == 1


def test_a_parameter_survives_copies() -> None:
    parameter = nn.Parameter(np.ones((2, 2)))
    parameter.accumulate(np.ones((2, 2)))
    for twin in (copy.deepcopy(parameter), pickle.loads(pickle.dumps(parameter))):
        twin.accumulate(np.ones((2, 2)))
        twin.data += 1
        assert_array_equal(twin.grad, np.full((2, 2), 2.0))
        assert_array_equal(parameter.grad, np.ones((2, 2)))
        assert_array_equal(parameter.data, np.ones((2, 2)))


# ---- a layer of one's own ----


class Scale(nn.Layer):
    """Multiply by one learned factor."""

    def __init__(self, factor: float = 2.0, note: str = "") -> None:
        self.factor = nn.Parameter(np.array([factor]))
        self.note = note

    def forward(self, x: Array) -> Array:
        self.cache(x)
        return self.factor.data * x

    def backward(self, grad: Array, input_grad: bool = True) -> Array | None:
        (x,) = self.cached()
        self.factor.accumulate(np.sum(grad * x).reshape(1))
        return self.factor.data * grad if input_grad else None


class Branches(nn.Layer):
    """A layer that keeps sub-layers in every way that is allowed, and a buffer."""

    _buffer_names = ("running_mean", "count", "absent")

    def __init__(self) -> None:
        self.alone = nn.Linear(2, 2, rng=0)
        self.offset = nn.Parameter(np.zeros(2))
        self.rows = [Scale(1.0), Scale(2.0)]
        self.pair = (Scale(3.0), "a string")
        self.named = {"up": Scale(4.0), "down": nn.ReLU()}
        self.running_mean = np.zeros(2, np.float32)
        self.count = np.array(3)
        self.absent = None


def test_sub_layers_are_found_in_attributes_lists_tuples_and_dicts() -> None:
    layer = Branches()
    assert [name for name, _ in layer.named_children()] == [
        "alone",
        "rows.0",
        "rows.1",
        "pair.0",
        "named.up",
        "named.down",
    ]
    assert [name for name, _ in layer.named_parameters()] == [
        "offset",
        "alone.weight",
        "alone.bias",
        "rows.0.factor",
        "rows.1.factor",
        "pair.0.factor",
        "named.up.factor",
    ]


def test_what_a_layer_caches_is_not_a_part_of_it() -> None:
    class Caching(nn.Layer):
        def __init__(self) -> None:
            self.inner = nn.Linear(2, 2, rng=0)

        def forward(self, x: Array) -> Array:
            self.cache(self.inner, x)
            return self.inner(x)

    layer = Caching()
    keys = list(layer.state_dict())
    layer(np.ones((1, 2)))
    assert list(layer.state_dict()) == keys == ["inner.weight", "inner.bias"]


def test_a_shared_parameter_is_listed_once() -> None:
    first, second = Scale(), Scale()
    second.factor = first.factor
    assert [name for name, _ in nn.Sequential(first, second).named_parameters()] == ["0.factor"]


def test_the_state_dict_holds_the_buffers_that_there_are() -> None:
    state = Branches().state_dict()
    assert state["count"] == 3
    assert_array_equal(state["running_mean"], [0, 0])
    assert "absent" not in state


def test_load_state_dict_fills_buffers_and_keeps_their_dtype() -> None:
    layer = Branches()
    state = layer.state_dict()
    state["running_mean"], state["count"] = np.array([1.0, 2.0]), np.array(9)
    layer.load_state_dict(state)
    assert_array_equal(layer.running_mean, [1, 2])
    assert layer.running_mean.dtype == np.float32
    assert layer.count == 9


def test_astype_converts_float_buffers_only() -> None:
    layer = Branches().astype(np.float64)
    assert layer.running_mean.dtype == np.float64
    assert layer.count.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.int32, np.float16, np.complex64, bool, ">f4"])
def test_astype_takes_float32_and_float64_only(dtype: Any) -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"^Linear\(2, 2\): dtype must be float32 or float64"):
        layer.astype(dtype)
    assert layer.weight.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("1.bias"), ValueError, r"lacks '1\.bias'.*strict=False"),
        (lambda s: s.update(extra=s["1.bias"]), ValueError, r"unknown 'extra'.*strict=False"),
        (
            lambda s: s.update({"1.weight": np.zeros((2, 5), np.float32)}),
            ValueError,
            r"'1\.weight'.*\(3, 4\).*\(2, 5\)",
        ),
        (
            # It would broadcast.
            lambda s: s.update({"1.weight": np.zeros((1, 4), np.float32)}),
            ValueError,
            r"'1\.weight'.*\(3, 4\).*\(1, 4\)",
        ),
        (
            lambda s: s.update({"1.bias": np.zeros(3, np.int64)}),
            TypeError,
            r"'1\.bias'.*float32.*int64",
        ),
        (
            lambda s: s.update({"1.bias": np.array([None] * 3)}),
            TypeError,
            r"'1\.bias'.*float32.*object",
        ),
        (
            lambda s: s.update({"1.bias": np.array(["a"] * 3)}),
            TypeError,
            r"'1\.bias'.*float32.*<U1",
        ),
    ],
    ids=["missing", "surplus", "misshapen", "broadcastable", "integers", "objects", "strings"],
)
def test_a_state_dict_that_does_not_fit_is_an_error_and_loads_nothing(
    change: Callable[[dict[str, Any]], Any], error: type[Exception], message: str
) -> None:
    model = nn.Sequential(nn.Linear(4, 4, rng=0), nn.Linear(4, 3, rng=1))
    before = model.state_dict()
    state: dict[str, Any] = {name: value + 1 for name, value in before.items()}
    change(state)
    with pytest.raises(error, match=message) as caught:
        model.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert re.match(r"Sequential", str(caught.value))
    assert_same(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("state", [None, [1], "weights.npz", 3])
def test_a_state_dict_must_be_a_mapping(state: Any) -> None:
    with pytest.raises(TypeError, match=r"^Linear\(2, 2\): expected a state dict"):
        nn.Linear(2, 2).load_state_dict(state)


def test_without_strict_what_fits_is_loaded_and_the_rest_is_told() -> None:
    model = nn.Sequential(nn.Linear(2, 2, rng=0), nn.Linear(2, 1, rng=1))
    untouched = model[1].state_dict()
    ones = {"0.weight": np.ones((2, 2)), "0.bias": np.ones(2), "9.weight": np.ones(3)}
    keys = model.load_state_dict(ones, strict=False)
    assert keys.missing_keys == ["1.weight", "1.bias"]
    assert keys.unexpected_keys == ["9.weight"]
    assert_array_equal(model[0].weight.data, np.ones((2, 2)))
    assert_same(model[1].state_dict(), untouched, rtol=0, atol=0)


def test_loading_copies_and_keeps_the_dtype() -> None:
    layer = nn.Linear(2, 1)
    values = {"weight": np.array([[0.1, 0.2]]), "bias": np.array([0.3])}
    layer.load_state_dict(values)
    values["weight"][...] = 9
    assert layer.weight.dtype == np.float32
    assert_array_equal(layer.weight.data, np.array([[0.1, 0.2]], np.float32))


def test_the_repr_of_a_layer_of_ones_own_shows_what_differs_from_the_defaults() -> None:
    class Sized(nn.Layer):
        def __init__(self, size: int, name: str = "a", flag: bool = False) -> None:
            self.size, self.name, self.flag = size, name, flag

    assert repr(Sized(3)) == "Sized(3)"
    assert repr(Sized(3, flag=True)) == "Sized(3, flag=True)"
    assert repr(Sized(3, "b")) == "Sized(3, name='b')"


def test_a_layer_without_forward_or_backward_says_which_is_missing() -> None:
    class Empty(nn.Layer):
        pass

    with pytest.raises(NotImplementedError, match="Empty does not define forward"):
        Empty()(1)
    with pytest.raises(NotImplementedError, match="Empty does not define backward"):
        Empty().backward(np.ones(1))


def test_a_layer_with_a_long_repr_is_named_by_its_class_in_errors() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(10)))
    assert model.label == "Sequential"
    assert nn.Linear(4, 4).label == "Linear(4, 4)"


def test_trainable_says_whether_anything_takes_a_gradient() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
    assert model.trainable()
    assert not nn.ReLU().trainable()
    for parameter in model.parameters():
        parameter.requires_grad = False
    assert not model.trainable()


class Ensemble(nn.Layer):
    """Members in lists, nested lists and dicts; `size` is kept under another name."""

    def __init__(self, size: int) -> None:
        self.width = size
        self.scales = [nn.Parameter(np.ones(size)), nn.Parameter(np.zeros(size))]
        self.members = [[nn.Linear(size, 1, rng=0)], {"second": nn.Linear(size, 1, rng=1)}]


def test_parameters_and_layers_are_found_in_lists_and_dicts_however_nested() -> None:
    ensemble = Ensemble(2)
    expected = ["scales.0", "scales.1"]
    expected += ["members.0.0.weight", "members.0.0.bias"]
    expected += ["members.1.second.weight", "members.1.second.bias"]
    assert [name for name, _ in ensemble.named_parameters()] == expected
    assert list(ensemble.state_dict()) == expected


def test_tied_ties_layers_in_nested_lists_and_dicts() -> None:
    ensemble = Ensemble(2)
    twin = ensemble.tied()
    assert twin.members[0][0] is not ensemble.members[0][0]
    assert twin.members[0][0].weight is ensemble.members[0][0].weight
    assert twin.members[1]["second"].bias is ensemble.members[1]["second"].bias


class Pair(NamedTuple):
    first: nn.Layer
    second: nn.Layer


@pytest.mark.parametrize(
    "members",
    [
        OrderedDict(first=nn.Linear(2, 1), second=nn.Linear(2, 1)),
        Pair(nn.Linear(2, 1), nn.Linear(2, 1)),
    ],
    ids=["OrderedDict", "NamedTuple"],
)
def test_tied_ties_layers_in_other_classes_of_dicts_and_tuples(members: Any) -> None:
    ensemble: Any = Ensemble(2)
    ensemble.members = members
    twin = ensemble.tied()
    assert type(twin.members) is type(members)
    for layer, other in zip(ensemble.children(), twin.children(), strict=True):
        assert layer is not other
        assert layer.weight is other.weight


def test_an_argument_that_a_layer_does_not_keep_shows_as_dots() -> None:
    assert repr(Ensemble(2)) == "Ensemble(size=...)"


def test_buffers_of_tied_layers_stay_shared_when_converted() -> None:
    norm = nn.BatchNorm1d(2)
    model = nn.Sequential(norm, norm.tied()).astype(np.float64)
    assert model[0].running_mean is model[1].running_mean
    assert model[0].running_mean.dtype == np.float64
    model(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert_array_equal(model[0].num_batches_tracked, 2)


def test_private_attributes_that_are_parameters_or_layers_are_found() -> None:
    class Own(nn.Layer):
        def __init__(self) -> None:
            self._scale = nn.Parameter(np.ones(2))
            self._inner = nn.Linear(2, 3)
            self._kept = [nn.Linear(2, 3)]  # a list of ones own, which is not looked into

    layer = Own()
    assert [name for name, _ in layer.named_parameters()] == [
        "_scale",
        "_inner.weight",
        "_inner.bias",
    ]
    assert [name for name, _ in layer.named_layers()] == ["", "_inner"]


# ---- threads, contexts and copies ----


def test_a_forward_without_caches_in_another_thread_leaves_this_ones_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 2, rng=1))
    x, other, grad = np.ones((2, 3)), np.zeros((5, 3)), np.ones((2, 2))
    model(x)
    expected = model.backward(grad)
    model(x)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(nn.predict, model, other).result()
        pool.submit(model.summary, 3).result()
    assert_array_equal(model.backward(grad), expected)
    nn.predict(model, other)
    with pytest.raises(RuntimeError, match="call forward"):
        model.backward(grad)


@pytest.mark.parametrize("wrap", [lambda layer: layer, nn.Sequential, nn.RNN])
def test_a_forward_in_another_thread_is_not_taken_for_this_ones(wrap: Any) -> None:
    model = nn.RNN(3, 4, rng=0) if wrap is nn.RNN else wrap(nn.Linear(3, 4, rng=0))
    x = np.ones((2, 5, 3), np.float32)
    grad = np.ones_like(model(x))
    expected = model.backward(grad)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            pool.submit(model, x).result()
            with pytest.raises(RuntimeError, match=r"another thread called .*layer\.tied\(\)"):
                model.backward(grad)
        assert_array_equal(pool.submit(model.backward, grad).result(), expected)
        model(x)
        assert_array_equal(model.backward(grad), expected)


def test_backward_may_run_in_another_thread_than_forward() -> None:
    model = nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh())
    x, grad = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    model(x)
    expected = model.backward(grad)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            model(x)
            assert_array_equal(pool.submit(model.backward, grad).result(), expected)


def test_contexts_that_end_in_another_order_leave_the_thread_as_it_was() -> None:
    first, second = nn.no_grad(), nn.no_grad()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not nn.is_grad_enabled()
    second.__exit__(None, None, None)
    assert nn.is_grad_enabled()


def test_a_generator_that_evaluate_abandons_does_not_hold_its_context() -> None:
    def batches() -> Any:
        with nn.no_grad():
            yield np.ones((2, 3)), np.zeros(2, int)
            yield np.ones((2, 4)), np.zeros(2, int)

    model = nn.Sequential(nn.Dropout(0.5, rng=0), nn.Linear(3, 2, rng=0))
    abandoned = batches()
    with pytest.raises(ValueError, match="expected input"):
        nn.evaluate(model, nn.CrossEntropy(), abandoned)
    for _ in range(2):
        assert nn.is_grad_enabled()
        assert model.training
        assert (model[0](np.ones(100)) == 0).any()
        abandoned.close()


@pytest.mark.parametrize("kind", [nn.no_grad, evaluating])
def test_a_generator_closed_in_another_thread_ends_its_context_in_its_own(kind: Any) -> None:
    def context() -> Any:
        with kind():
            yield

    opened = context()
    next(opened)
    assert not nn.is_grad_enabled()

    def close() -> bool:
        with nn.no_grad():
            opened.close()
            return nn.is_grad_enabled()

    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(close).result()
    assert nn.is_grad_enabled()
    assert nn.Dropout(0.5).training


def test_a_context_in_a_generator_that_ends_within_predict_leaves_evaluation_on() -> None:
    def context() -> Any:
        with nn.no_grad():
            yield

    outer = context()
    next(outer)
    with evaluating():
        outer.close()
        assert not nn.Dropout(0.5).training
        assert not nn.is_grad_enabled()
    assert nn.is_grad_enabled()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_copy_has_no_caches(copied: Callable[[Any], Any]) -> None:
    model = nn.Sequential(nn.Linear(3, 2, rng=0), nn.Tanh())
    size = len(pickle.dumps(model))
    model(np.full((500, 3), 0.123))
    assert len(pickle.dumps(model)) == size
    with pytest.raises(RuntimeError, match="call forward"):
        copied(model).backward(np.ones((500, 2)))
    model.backward(np.ones((500, 2)))


def test_a_copy_of_a_parameter_has_no_memory_for_the_next_gradient() -> None:
    parameter = nn.Parameter(np.ones(1000))
    size = len(pickle.dumps(parameter))
    parameter.accumulate(np.ones(1000))
    parameter.zero_grad()
    assert len(pickle.dumps(parameter)) == size


# ---- names that people know ----


def test_modules_children_apply_and_buffers_are_pytorchs(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")

    def build(nn: Any) -> Any:
        return nn.Sequential(
            nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()), nn.Linear(3, 1)
        )

    mine, theirs = build(nn), build(torch.nn)
    for listed in ("named_modules", "named_children"):
        names = [(name, type(m).__name__) for name, m in getattr(mine, listed)()]
        assert names == [(name, type(m).__name__) for name, m in getattr(theirs, listed)()]
    for listed in ("named_parameters", "named_buffers"):
        for options in ({}, {"prefix": "net"}, {"recurse": False}):
            names = [name for name, _ in getattr(mine, listed)(**options)]
            assert names == [name for name, _ in getattr(theirs, listed)(**options)]
    for listed in ("modules", "children", "parameters", "buffers"):
        assert len([*getattr(mine, listed)()]) == len([*getattr(theirs, listed)()])
    visited: dict[str, list[str]] = {"mine": [], "theirs": []}
    assert mine.apply(lambda m: visited["mine"].append(type(m).__name__)) is mine
    theirs.apply(lambda m: visited["theirs"].append(type(m).__name__))
    assert visited["mine"] == visited["theirs"]
    assert mine.requires_grad_(False) is mine
    assert not mine.trainable()
    assert mine.requires_grad_().trainable()
    assert {value.dtype.name for value in mine.double().parameters()} == {"float64"}
    assert {value.dtype.name for value in mine.float().parameters()} == {"float32"}


def test_a_registered_buffer_is_part_of_the_state() -> None:
    class Counting(nn.Layer):
        def __init__(self) -> None:
            self.register_buffer("mean", [0.5])
            self.register_buffer("count", np.zeros((), np.int64))
            self.register_buffer("absent", None)

    layer = Counting()
    assert {name: value.dtype.name for name, value in layer.state_dict().items()} == {
        "mean": "float32",
        "count": "int64",
    }
    layer.load_state_dict({"mean": np.array([2.0]), "count": np.array(7)})
    assert (layer.mean, layer.count) == (2, 7)
    assert layer.astype(np.float64).mean.dtype == np.float64
    twin = layer.tied()
    twin.count += 1
    assert layer.count == 8
    assert copy.deepcopy(layer).state_dict()["count"] == 8
    assert not Counting._buffer_names
    for wrong, error in (("a.b", TypeError), (1, TypeError), ("train", ValueError)):
        with pytest.raises(error, match="^Counting"):
            layer.register_buffer(wrong, np.zeros(1))  # type: ignore[arg-type]


def test_train_and_eval_of_a_layer_are_called_where_it_overrides_train() -> None:
    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Any:
            return super().train(False)

    model = nn.Sequential(nn.Sequential(Frozen(2)), nn.Dropout())
    model.train()
    assert not model[0][0].training
    assert model[1].training


# ---- faults of a layer of one's own ----


@pytest.mark.parametrize(
    "name", ["layers", "cache", "parameters", "backward", "label", "train", "summary"]
)
@pytest.mark.parametrize("value", [[], {}, None, nn.Tanh()], ids=["list", "dict", "None", "layer"])
def test_an_attribute_cannot_hide_a_method(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^Tanh: '{name}' is a method of every layer; choose"):
        setattr(nn.Tanh(), name, value)
    with pytest.raises(TypeError, match=f"^Net: '{name}' is a method of every layer; choose"):
        type("Net", (nn.Layer,), {name: value})


def test_trainable_cannot_be_set_and_the_message_says_how_to_freeze() -> None:
    with pytest.raises(TypeError, match=r"^Linear: 'trainable' .* layer\.requires_grad_\(False\)"):
        nn.Linear(2, 2).trainable = False  # type: ignore[assignment,method-assign]


def test_a_function_may_replace_a_method() -> None:
    layer = nn.Tanh()
    layer.forward = lambda x: x + 1  # type: ignore[method-assign,assignment]
    assert layer(1) == 2


@pytest.mark.parametrize("value", [np.ones((2, 2)), 1.0, [[1.0]]])
def test_a_parameter_is_not_replaced_by_an_array(value: Any) -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"^Linear\(2, 2\): weight is a Parameter.*\.weight\.data"):
        layer.weight = value
    assert list(layer.state_dict()) == ["weight", "bias"]
    layer.bias = None
    layer.weight = nn.Parameter(np.eye(2))


class NoOutput(nn.Layer):
    def forward(self, x: Array) -> Any:
        self.cache(x)

    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        self.cached()


class NoGradient(nn.Tanh):
    def backward(self, grad: Array, input_grad: bool = True) -> Any:
        super().backward(grad)


class NoCache(nn.Layer):
    def forward(self, x: Array) -> Array:
        return x

    def backward(self, grad: Array, input_grad: bool = True) -> Array:
        self.cached()
        return grad


@pytest.mark.parametrize(
    "around",
    [
        lambda layer: nn.Sequential(nn.Tanh(), layer, nn.Tanh()),
        lambda layer: nn.Residual(layer),
        lambda layer: nn.Graph({"a": (nn.Tanh(), "x"), "b": (layer, "a"), "c": (nn.Tanh(), "b")}),
    ],
    ids=["Sequential", "Residual", "Graph"],
)
def test_a_layer_that_returns_nothing_or_does_not_cache_is_named(around: Any) -> None:
    x = np.ones((2, 2))
    with pytest.raises(TypeError, match=r"NoOutput\(\): forward returned None"):
        around(NoOutput())(x)
    model = around(NoGradient())
    with pytest.raises(TypeError, match=r"NoGradient\(\): backward returned None"):
        model.backward(model(x))
    model = around(NoCache())
    with pytest.raises(RuntimeError, match=r"NoCache\(\): .*self\.cache\(\.\.\.\)"):
        model.backward(model(x))


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda layer: nn.Sequential(nn.Tanh(), layer), "1"),
        (lambda layer: nn.Sequential(nn.Tanh(), nn.Sequential(layer, nn.Tanh())), "1.0"),
        (lambda layer: nn.Sequential(nn.Tanh(), nn.Residual(layer)), "1.body.0"),
        (lambda layer: nn.Residual(nn.Sequential(layer)), "body.0.0"),
    ],
)
def test_a_layer_that_returns_no_gradient_is_named_with_its_path(make: Any, path: str) -> None:
    model = make(NoGradient())
    with pytest.raises(TypeError, match=rf"NoGradient\(\): .*\(layer '{re.escape(path)}'\)$"):
        model.backward(model(np.ones((2, 2))))


def test_an_error_in_a_nested_model_ends_with_the_path_and_the_shape() -> None:
    class Net(nn.Layer):
        def __init__(self) -> None:
            self.encoder = nn.Sequential(nn.Tanh(), nn.Tanh(), nn.Linear(3, 2, rng=0))
            self.head = nn.Graph({"y": (nn.Linear(2, 1, rng=0), "x")})

        def forward(self, x: Array) -> Any:
            return self.head(self.encoder(x))

        def backward(self, grad: Array, input_grad: bool = True) -> Any:
            return self.encoder.backward(self.head.backward(grad), input_grad)

    net = Net()
    with pytest.raises(
        ValueError, match=r"^Linear\(3, 2\): .* \(layer 'encoder\.2', input of shape \(4, 5\)\)$"
    ):
        net(np.ones((4, 5)))
    with pytest.raises(
        ValueError, match=r"\(layer '0\.encoder\.2', input of shape \(4, 5\)\)$"
    ) as e:
        nn.Sequential(net)(np.ones((4, 5)))
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)
    net.encoder[2] = nn.Linear(3, 3, rng=0)
    with pytest.raises(ValueError, match=r"^Graph node 'y': Linear\(2, 1\): .*'head\.y', input of"):
        net(np.ones((4, 3)))
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 2, rng=0)), nn.Tanh())
    model(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"\(layer '1', gradient of shape \(2, 5\)\)$"):
        model.backward(np.ones((2, 5)))
    with pytest.raises(ValueError, match=r"^Linear\(3, 2\): expected .* got \(2, 9\)$"):
        model[0][0](np.ones((2, 9)))


# ---- the inputs of a layer's result ----


def test_what_a_layer_computes_does_not_depend_on_where_it_stood(rng: np.random.Generator) -> None:
    alone, once_beside = nn.Linear(784, 128, rng=0), nn.Linear(784, 128, rng=0)
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten(), once_beside)
    del model[:2]
    x, grad = rng.normal(size=(512, 784)).astype("f"), rng.normal(size=(512, 128)).astype("f")
    assert_array_equal(once_beside(x), alone(x))
    assert_array_equal(once_beside.backward(grad), alone.backward(grad))
    assert_array_equal(once_beside.weight.grad, alone.weight.grad)
