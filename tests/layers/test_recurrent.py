"""`RNN`, `LSTM` and `GRU`: compared with their formulas, central differences and PyTorch."""

from __future__ import annotations

import copy
import functools
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import nnlite as nn
from nnlite.engine import memory, scan

Array = NDArray[Any]
Recurrent = nn.RNN | nn.LSTM | nn.GRU

KINDS: dict[str, Callable[..., Recurrent]] = {
    "RNN": nn.RNN,
    "RNN of relu": functools.partial(nn.RNN, nonlinearity="relu"),
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
}
every_kind = pytest.mark.parametrize("kind", KINDS)
kinds = st.sampled_from(sorted(KINDS))


def in_float64(kind: str, *sizes: int, **options: Any) -> Recurrent:
    return KINDS[kind](*sizes, **{"rng": 0, **options}).astype(np.float64)


def random_state(layer: Recurrent, batch: int, rng: np.random.Generator) -> tuple[Array, ...]:
    """Return h0, and for an LSTM c0."""
    shape = (layer.num_layers * (1 + layer.bidirectional), batch, layer.hidden_size)
    return tuple(rng.normal(size=shape) for _ in range(1 + isinstance(layer, nn.LSTM)))


def as_tuple(values: Any) -> tuple[Any, ...]:
    return values if isinstance(values, tuple) else (values,)


def gradients(layer: nn.Layer) -> dict[str, Array]:
    return {name: np.array(parameter.grad) for name, parameter in layer.named_parameters()}


def assert_same(actual: dict[str, Array], expected: dict[str, Array], rtol: float = 1e-10) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_allclose(actual[name], value, rtol=rtol, atol=1e-12, err_msg=name)


# ---- the formulas, one sample and one step at a time ----


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def cell(layer: Recurrent, suffix: str, x: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return the state after one step of one sample, by the formulas of the papers."""
    weights = layer.state_dict()
    zero = np.zeros(len(weights[f"weight_ih_{suffix}"]))
    u = weights[f"weight_ih_{suffix}"] @ x + weights.get(f"bias_ih_{suffix}", zero)
    v = weights[f"weight_hh_{suffix}"] @ state[0] + weights.get(f"bias_hh_{suffix}", zero)
    if isinstance(layer, nn.RNN):
        return (np.tanh(u + v) if layer.nonlinearity == "tanh" else np.maximum(u + v, 0),)
    if isinstance(layer, nn.LSTM):
        i, f, g, o = np.split(u + v, 4)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    (u_r, u_z, u_n), (v_r, v_z, v_n) = np.split(u, 3), np.split(v, 3)
    z = sigmoid(u_z + v_z)
    n = np.tanh(u_n + sigmoid(u_r + v_r) * v_n)
    return ((1 - z) * n + z * state[0],)


def by_hand(layer: Recurrent, x: Array, initial: tuple[Array, ...]) -> tuple[Array, list[Array]]:
    """Return the outputs for all steps and the final states of one sample, (L, input_size)."""
    final: list[tuple[Array, ...]] = []
    for k in range(layer.num_layers):
        outputs = []
        for direction in range(1 + layer.bidirectional):
            state = tuple(array[len(final)] for array in initial)
            hidden = []
            for x_t in x[::-1] if direction else x:
                state = cell(layer, f"l{k}{'_reverse' * direction}", x_t, state)
                hidden.append(state[0])
            outputs.append(hidden[::-1] if direction else hidden)
            final.append(state)
        x = np.concatenate(outputs, axis=1)
    return x, [np.array(arrays) for arrays in zip(*final, strict=True)]


options = {
    "kind": kinds,
    "num_layers": st.integers(1, 3),
    "bias": st.booleans(),
    "bidirectional": st.booleans(),
    "batch": st.integers(1, 3),
    "length": st.integers(1, 5),
}


@given(**options, started=st.booleans())
def test_outputs_and_final_state_are_those_of_the_formulas(
    kind: str,
    num_layers: int,
    bias: bool,
    bidirectional: bool,
    batch: int,
    length: int,
    started: bool,
) -> None:
    rng = np.random.default_rng(1)
    layer = in_float64(kind, 2, 3, num_layers, bias=bias, bidirectional=bidirectional)
    x, state = rng.normal(size=(batch, length, 2)), random_state(layer, batch, rng)
    if not started:
        state = tuple(0 * array for array in state)
    output = layer(x, *state) if started else layer(x)
    for sample in range(batch):
        outputs, final = by_hand(layer, x[sample], tuple(array[:, sample] for array in state))
        assert_allclose(output[sample], outputs, rtol=1e-12, atol=1e-14)
        for array, expected in zip(as_tuple(layer.last_state), final, strict=True):
            assert_allclose(array[:, sample], expected, rtol=1e-12, atol=1e-14)


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_output_is_the_last_layers_final_state_of_each_direction(
    kind: str, bidirectional: bool, rng: np.random.Generator
) -> None:
    sizes: Any = {"bidirectional": bidirectional}
    everything = in_float64(kind, 2, 3, 2, outputs="all", **sizes)
    last = in_float64(kind, 2, 3, 2, outputs="last", **sizes)
    x = rng.normal(size=(4, 5, 2))
    outputs, output = everything(x), last(x)
    assert_array_equal(output[:, :3], outputs[:, -1, :3])
    if bidirectional:  # its last step is the first of the sequence
        assert_array_equal(output[:, 3:], outputs[:, 0, 3:])


# ---- gradients ----


@given(
    **options,
    outputs=st.sampled_from(["all", "last"]),
    started=st.booleans(),
    masked=st.booleans(),
)
def test_every_gradient_agrees_with_central_differences(
    kind: str,
    num_layers: int,
    bias: bool,
    bidirectional: bool,
    batch: int,
    length: int,
    outputs: str,
    started: bool,
    masked: bool,
) -> None:
    rng = np.random.default_rng(1)
    layer = in_float64(
        kind, 2, 2, num_layers, bias=bias, bidirectional=bidirectional, outputs=outputs
    )
    x = rng.normal(size=(batch, length, 2))
    state = random_state(layer, batch, rng) if started else ()
    mask = {"mask": rng.random((batch, length)) < 0.7} if masked else {}
    nn.gradcheck(layer, x, *state, options=mask).raise_if_failed()


@every_kind
def test_both_biases_get_their_gradient(kind: str, rng: np.random.Generator) -> None:
    layer = in_float64(kind, 2, 3)
    layer(rng.normal(size=(20, 5, 2)))
    layer.backward(rng.normal(size=(20, 5, 3)))
    grads = gradients(layer)
    assert np.abs(grads["bias_ih_l0"]).min() > 0
    # They stand in one sum, but for n of a GRU, where r scales b_hh.
    same = slice(6) if kind == "GRU" else slice(None)
    assert_allclose(grads["bias_ih_l0"][same], grads["bias_hh_l0"][same], rtol=1e-12)
    if kind == "GRU":
        assert (grads["bias_ih_l0"][6:] != grads["bias_hh_l0"][6:]).all()


@every_kind
def test_the_gradient_of_the_final_state_joins_that_of_the_outputs(
    kind: str, rng: np.random.Generator
) -> None:
    # A sequence in two halves, the second started from the first's final state, is one sequence.
    whole, first, second = (in_float64(kind, 2, 3, 2) for _ in range(3))
    x, grad = rng.normal(size=(4, 7, 2)), rng.normal(size=(4, 7, 3))
    state = random_state(whole, 4, rng)
    whole(x, *state)
    expected = as_tuple(whole.backward(grad))
    first(x[:, :3], *state)
    second(x[:, 3:], *as_tuple(first.last_state))
    dx_second, *d_middle = second.backward(grad[:, 3:])
    state_grad = d_middle[0] if len(d_middle) == 1 else tuple(d_middle)
    dx_first, *d_state = first.backward(grad[:, :3], state_grad=state_grad)
    assert_allclose(np.concatenate([dx_first, dx_second], axis=1), expected[0], rtol=1e-10)
    for actual, wanted in zip(d_state, expected[1:], strict=True):
        assert_allclose(actual, wanted, rtol=1e-10)
    total = {name: grad + gradients(second)[name] for name, grad in gradients(first).items()}
    assert_same(total, gradients(whole))


@every_kind
def test_a_second_backward_gives_the_same_and_adds_the_same_once_more(
    kind: str, rng: np.random.Generator
) -> None:
    layer = in_float64(kind, 2, 3, 2, bidirectional=True, dropout=0.4, truncate=2)
    x, grad = rng.normal(size=(4, 5, 2)), rng.normal(size=(4, 5, 6))
    state = random_state(layer, 4, rng)
    layer(x, *state)
    first, once = layer.backward(grad), gradients(layer)
    kept = [array.copy() for array in first]
    second, twice = layer.backward(grad), gradients(layer)
    for a, b, c in zip(first, second, kept, strict=True):
        assert_array_equal(a, b)
        assert_array_equal(a, c)
    assert_same(twice, {name: 2 * value for name, value in once.items()})


@every_kind
def test_without_input_grad_the_parameters_gradients_are_the_same(
    kind: str, rng: np.random.Generator
) -> None:
    layer = in_float64(kind, 2, 3, 2, bidirectional=True)
    x, grad = rng.normal(size=(4, 5, 2)), rng.normal(size=(4, 5, 6))
    layer(x, *random_state(layer, 4, rng))
    layer.backward(grad)
    expected = gradients(layer)
    layer.zero_grad()
    assert layer.backward(grad, input_grad=False) is None
    assert_same(gradients(layer), expected)


def test_gradients_come_in_the_form_in_which_the_inputs_were_given(
    rng: np.random.Generator,
) -> None:
    layer = in_float64("LSTM", 2, 3)
    x, grad = rng.normal(size=(4, 5, 2)), rng.normal(size=(4, 5, 3))
    h0, c0 = random_state(layer, 4, rng)
    layer(x)
    assert layer.backward(grad).shape == (4, 5, 2)
    layer(x, None)
    assert layer.backward(grad)[1] is None
    flat_output = layer(x, h0, c0)
    dx, dh0, dc0 = layer.backward(grad)
    packed_output = layer(x, (h0, c0))
    packed_dx, (packed_dh0, packed_dc0) = layer.backward(grad)
    for a, b in [
        (flat_output, packed_output),
        (dx, packed_dx),
        (dh0, packed_dh0),
        (dc0, packed_dc0),
    ]:
        assert_array_equal(a, b)


# ---- chunks and truncation ----


@every_kind
def test_chunk_by_chunk_from_the_last_state_is_the_whole_sequence(
    kind: str, rng: np.random.Generator
) -> None:
    whole, layer = (in_float64(kind, 2, 3, 2) for _ in range(2))
    x = rng.normal(size=(4, 9, 2))
    state, outputs = None, []
    for chunk in (x[:, :2], x[:, 2:3], x[:, 3:]):
        outputs.append(layer(chunk, state))
        state = layer.last_state
    assert_allclose(np.concatenate(outputs, axis=1), whole(x), rtol=1e-12)


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("truncate", [1, 2, 4])
def test_with_the_last_output_alone_the_gradient_reaches_back_exactly_so_many_steps(
    kind: str, bidirectional: bool, truncate: int, rng: np.random.Generator
) -> None:
    layer = in_float64(kind, 2, 3, bidirectional=bidirectional, outputs="last", truncate=truncate)
    x, state = rng.normal(size=(4, 7, 2)), random_state(layer, 4, rng)
    output = layer(x, *state)
    # The features of the forward direction alone.
    grad = np.zeros_like(output)
    grad[:, :3] = 1
    dx, *d_state = layer.backward(grad)
    assert not dx[:, :-truncate].any()
    assert (np.abs(dx[:, -truncate:]).sum(axis=(0, 2)) > 0).all()
    assert not any(array.any() for array in d_state)


@every_kind
def test_truncation_at_the_length_or_beyond_changes_nothing(
    kind: str, rng: np.random.Generator
) -> None:
    x, grad = rng.normal(size=(4, 5, 2)), rng.normal(size=(4, 5, 3))
    results = []
    for truncate in (None, 5, 6):
        layer = in_float64(kind, 2, 3, 2, truncate=truncate)
        layer(x, *random_state(layer, 4, np.random.default_rng(3)))
        results.append((layer.backward(grad), gradients(layer)))
    for inputs_grad, parameters_grad in results[1:]:
        assert_same(parameters_grad, results[0][1], rtol=0)
        for a, b in zip(inputs_grad, results[0][0], strict=True):
            assert_array_equal(a, b)


# ---- masks ----


@every_kind
@pytest.mark.parametrize("outputs", ["all", "last"])
def test_a_padded_batch_is_each_sequence_on_its_own(
    kind: str, outputs: str, rng: np.random.Generator
) -> None:
    lengths = np.array([5, 1, 3])
    sizes: Any = {"num_layers": 2, "bidirectional": True, "outputs": outputs}
    layer, alone = (in_float64(kind, 2, 3, **sizes) for _ in range(2))
    x, state = rng.normal(size=(3, 5, 2)), random_state(layer, 3, rng)
    mask = np.arange(5) < lengths[:, None]
    x[~mask] = np.nan
    output = layer(x, *state, mask=mask)
    final = as_tuple(layer.last_state)
    grad = rng.normal(size=output.shape)
    dx, *d_state = layer.backward(grad)
    for n, length in enumerate(lengths):
        steps = (slice(n, n + 1), slice(length))[: 2 if outputs == "all" else 1]
        expected = alone(x[n : n + 1, :length], *(array[:, n : n + 1] for array in state))
        assert_allclose(output[steps], expected, rtol=1e-12)
        for a, b in zip(final, as_tuple(alone.last_state), strict=True):
            assert_allclose(a[:, n : n + 1], b, rtol=1e-12)
        dx_alone, *d_state_alone = alone.backward(grad[steps])
        assert_allclose(dx[n : n + 1, :length], dx_alone, rtol=1e-10, atol=1e-12)
        for a, b in zip(d_state, d_state_alone, strict=True):
            assert_allclose(a[:, n : n + 1], b, rtol=1e-10, atol=1e-12)
    assert_same(gradients(layer), gradients(alone))
    assert not dx[~mask].any()
    if outputs == "all":
        assert not output[~mask].any()


@every_kind
def test_steps_that_the_mask_takes_from_the_middle_might_as_well_not_be_there(
    kind: str, rng: np.random.Generator
) -> None:
    layer = in_float64(kind, 2, 3, 2, bidirectional=True)
    x = rng.normal(size=(1, 6, 2))
    present = np.array([False, True, True, False, True, False])
    output = layer(x, mask=present[None])
    assert_allclose(output[:, present], layer(x[:, present]), rtol=1e-12)


@every_kind
def test_a_sequence_of_padding_alone_leaves_the_state_as_it_was(
    kind: str, rng: np.random.Generator
) -> None:
    layer = in_float64(kind, 2, 3)
    state = random_state(layer, 2, rng)
    layer(rng.normal(size=(2, 4, 2)), *state, mask=np.zeros((2, 4), bool))
    for actual, expected in zip(as_tuple(layer.last_state), state, strict=True):
        assert_array_equal(actual, expected)
    _, *d_state = layer.backward(
        np.zeros((2, 4, 3)), state_grad=state if len(state) > 1 else state[0]
    )
    for actual, expected in zip(d_state, state, strict=True):
        assert_array_equal(actual, expected)
    assert not any(grad.any() for grad in gradients(layer).values())


def test_a_mask_of_trues_changes_nothing(rng: np.random.Generator) -> None:
    layer = in_float64("LSTM", 2, 3)
    x = rng.normal(size=(2, 4, 2))
    assert_array_equal(layer(x, mask=np.ones((2, 4), bool)), layer(x))


# ---- dropout ----


def test_dropout_acts_between_the_layers_and_in_training_alone(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4, 2))
    dropping = in_float64("RNN", 2, 3, 2, dropout=0.5)
    without = in_float64("RNN", 2, 3, 2)
    assert_array_equal(dropping.eval()(x), without(x))
    dropping.train()
    first = dropping(x)
    assert (first != without(x)).any()
    assert (first != dropping(x)).any()
    # With all of it dropped, the second layer reads zeros.
    nothing = in_float64("RNN", 2, 3, 2, dropout=1.0)
    second = nn.RNN(3, 3).astype(np.float64)
    second.load_state_dict(
        {
            name.replace("l1", "l0"): value
            for name, value in without.state_dict().items()
            if "l1" in name
        }
    )
    assert_allclose(nothing(x), second(np.zeros((3, 4, 3))), rtol=1e-12)


def test_dropout_keeps_the_expectation_and_the_share(rng: np.random.Generator) -> None:
    # A second layer of relu with the identity for weights hands on what the dropout leaves.
    layer = in_float64("RNN of relu", 1, 100, 2, dropout=0.2, bias=False)
    layer.load_state_dict(
        {
            "weight_ih_l0": np.ones((100, 1)),
            "weight_hh_l0": np.zeros((100, 100)),
            "weight_ih_l1": np.eye(100),
            "weight_hh_l1": np.zeros((100, 100)),
        }
    )
    output = layer(np.ones((20, 10, 1)))
    assert set(np.unique(output)) == {0, np.float32(1.25)}
    # 20,000 draws: the deviation of the fraction of zeros is √(0.2 · 0.8 / 20,000) = 0.0028.
    assert abs((output == 0).mean() - 0.2) < 5 * 0.0028


@every_kind
def test_the_gradient_goes_through_what_the_dropout_has_left(
    kind: str, rng: np.random.Generator
) -> None:
    layer = in_float64(kind, 1, 2, 2, dropout=0.4)
    nn.gradcheck(layer, rng.normal(size=(2, 3, 1))).raise_if_failed()


def test_dropout_with_one_layer_warns_that_it_drops_nothing() -> None:
    with pytest.warns(UserWarning, match=r"GRU: dropout acts between layers.*nn\.Dropout\(0\.5\)"):
        nn.GRU(2, 3, dropout=0.5)


# ---- memory and dtype ----


@every_kind
def test_what_was_handed_out_stays_as_it_is(kind: str, rng: np.random.Generator) -> None:
    # Large enough for memory that is used again.
    layer = KINDS[kind](20, 64, 2, bidirectional=True, rng=0)
    seen: list[tuple[Array, Array]] = []
    for batch in (32, 32, 8, 32):
        x = rng.normal(size=(batch, 20, 20)).astype(np.float32)
        state = tuple(array.astype(np.float32) for array in random_state(layer, batch, rng))
        output = layer(x, *state)
        grad = rng.normal(size=output.shape).astype(np.float32)
        input_grads = layer.backward(grad)
        handed = [x, *state, output, grad, *input_grads, *as_tuple(layer.last_state)]
        seen += [(array, array.copy()) for array in handed]
        for array, before in seen:
            assert_array_equal(array, before)


@every_kind
def test_writing_into_what_was_handed_out_changes_nothing_later(
    kind: str, rng: np.random.Generator
) -> None:
    layer, untouched = (in_float64(kind, 2, 3, 2, bidirectional=True) for _ in range(2))
    for _ in range(3):
        x, state = rng.normal(size=(4, 5, 2)), random_state(layer, 4, rng)
        theirs = [x.copy(), *(array.copy() for array in state)]
        output, expected = layer(*theirs), untouched(x, *state)
        grad = rng.normal(size=output.shape)
        input_grads, expected_grads = layer.backward(grad), untouched.backward(grad)
        for a, b in zip([output, *input_grads], [expected, *expected_grads], strict=True):
            assert_allclose(a, b, rtol=1e-12)
        assert_same(gradients(layer), gradients(untouched))
        for array in (*theirs, output, *input_grads, *as_tuple(layer.last_state)):
            array[...] = np.nan
    assert layer.state_dict().keys() == untouched.state_dict().keys()


@every_kind
@pytest.mark.parametrize("order", ["Fortran", "every other", "time first", "turned round"])
def test_the_memory_order_of_inputs_and_gradients_does_not_matter(
    kind: str, order: str, rng: np.random.Generator
) -> None:
    arrange: dict[str, Callable[[Array], Array]] = {
        "Fortran": np.asfortranarray,
        "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        "time first": lambda a: np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1),
        "turned round": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    }
    layer, plain = (in_float64(kind, 2, 3, 2, bidirectional=True) for _ in range(2))
    x, state = rng.normal(size=(4, 5, 2)), random_state(layer, 4, rng)
    grad = rng.normal(size=(4, 5, 6))
    expected = plain(x, *state)
    output = layer(*(arrange[order](array) for array in (x, *state)))
    assert_allclose(output, expected, rtol=1e-12)
    for a, b in zip(layer.backward(arrange[order](grad)), plain.backward(grad), strict=True):
        assert_allclose(a, b, rtol=1e-10, atol=1e-14)
    assert_same(gradients(layer), gradients(plain))


@every_kind
def test_a_float64_stray_does_not_change_a_float32_layer(
    kind: str, rng: np.random.Generator
) -> None:
    layer, native = (KINDS[kind](2, 3, 2, bidirectional=True, rng=0) for _ in range(2))
    inputs = [rng.normal(size=(4, 5, 2)), *random_state(layer, 4, rng)]
    inputs32 = [array.astype(np.float32) for array in inputs]
    grad = rng.normal(size=(4, 5, 6))
    state_grad: Any = tuple(inputs[1:]) if kind == "LSTM" else inputs[1]
    results = [layer(*inputs), *layer.backward(grad, state_grad=state_grad)]
    state_grad = tuple(inputs32[1:]) if kind == "LSTM" else inputs32[1]
    expected = [native(*inputs32), *native.backward(grad.astype(np.float32), state_grad=state_grad)]
    for a, b in zip(results, expected, strict=True):
        assert a.dtype == np.float32
        assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for array in [*as_tuple(layer.last_state), *gradients(layer).values()]:
        assert array.dtype == np.float32


@every_kind
def test_without_gradients_no_cache_is_kept(kind: str, rng: np.random.Generator) -> None:
    layer = in_float64(kind, 2, 3)
    x = rng.normal(size=(4, 5, 2))
    expected = layer(x)
    with nn.no_grad():
        assert_array_equal(layer(x), expected)
    with pytest.raises(RuntimeError, match="call forward"):
        layer.backward(expected)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_without_gradients_a_long_sequence_takes_the_memory_of_its_states(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = getattr(nn, kind)(2, 32, rng=0), np.ones((8, 2000, 2), np.float32)
    monkeypatch.setattr(memory, "_pool", memory._Pool())
    with nn.no_grad():
        tracemalloc.start()
        y = layer(x)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # The outputs, of 32 features, with the inputs of 2 and a row of ones; and the work of one step.
    assert peak < 35 / 32 * y.nbytes + 2**17


@every_kind
def test_who_holds_the_outputs_does_not_hold_much_more(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = KINDS[kind](500, 8, rng=0), np.ones((8, 50, 500), np.float32)
    monkeypatch.setattr(memory, "_pool", memory._Pool())
    with nn.no_grad():
        tracemalloc.start()
        outputs = [layer(x) for _ in range(10)]
        memory._pool.buffers.clear()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert held < 3 * sum(y.nbytes for y in outputs) + 2**17


@every_kind
@given(
    chunk=st.sampled_from([1, 100, 1 << 20]),
    block=st.sampled_from([1, 50, 1 << 16]),
    bidirectional=st.booleans(),
    with_mask=st.booleans(),
    truncate=st.sampled_from([None, 2]),
)
def test_chunk_by_chunk_the_gradients_are_the_same(
    kind: str, chunk: int, block: int, bidirectional: bool, with_mask: bool, truncate: int | None
) -> None:
    rng = np.random.default_rng(0)
    whole, in_chunks = (
        in_float64(kind, 3, 4, 2, bidirectional=bidirectional, truncate=truncate) for _ in range(2)
    )
    x, mask = rng.normal(size=(2, 7, 3)), rng.random((2, 7)) < 0.7
    state = random_state(whole, 2, rng)
    results = []
    for layer in (whole, in_chunks):
        y = layer(x, *state, mask=mask if with_mask else None)
        with pytest.MonkeyPatch.context() as patch:
            if layer is in_chunks:
                patch.setattr(scan, "_CHUNK", chunk)
                patch.setattr(scan, "_BLOCK", block)
            results.append(layer.backward(np.cos(np.arange(y.size)).reshape(y.shape)))
    for a, b in zip(*results, strict=True):
        assert_allclose(a, b, rtol=1e-10, atol=1e-13)
    assert_same(gradients(whole), gradients(in_chunks))


@given(
    kind=kinds,
    bidirectional=st.booleans(),
    with_state=st.booleans(),
    with_mask=st.booleans(),
    outputs=st.sampled_from(["all", "last"]),
)
def test_without_gradients_the_results_are_the_same(
    kind: str, bidirectional: bool, with_state: bool, with_mask: bool, outputs: str
) -> None:
    rng = np.random.default_rng(0)
    layer = in_float64(kind, 3, 4, 2, bidirectional=bidirectional, outputs=outputs)
    x, mask = rng.normal(size=(2, 7, 3)), rng.random((2, 7)) < 0.7
    arguments = (x, *(random_state(layer, 2, rng) if with_state else ()))
    options = {"mask": mask} if with_mask else {}
    expected, states = layer(*arguments, **options), as_tuple(layer.last_state)
    with nn.no_grad():
        assert_array_equal(layer(*arguments, **options), expected)
    for state, before in zip(as_tuple(layer.last_state), states, strict=True):
        assert_array_equal(state, before)


@every_kind
def test_samples_do_not_depend_on_their_batch(kind: str, rng: np.random.Generator) -> None:
    layer = in_float64(kind, 2, 3, 2)
    x = rng.normal(size=(30, 5, 2))
    output = layer(x)
    for start, stop in ((0, 1), (1, 4), (4, 30)):
        assert_allclose(layer(x[start:stop]), output[start:stop], rtol=1e-12)


@every_kind
def test_a_tied_layer_shares_the_weights_and_keeps_a_cache_of_its_own(
    kind: str, rng: np.random.Generator
) -> None:
    layer, alone = (in_float64(kind, 3, 3) for _ in range(2))
    x, grad = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 3))
    twice = nn.Sequential(layer, layer.tied())
    twice(x)
    twice.backward(grad)
    middle = alone(x).copy()
    alone(middle)
    d_middle = alone.backward(grad)
    alone(x)
    alone.backward(d_middle)
    assert_same(gradients(layer), gradients(alone))


@every_kind
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
def test_a_copy_computes_what_the_original_does(
    kind: str, duplicate: Callable[[Any], Any], rng: np.random.Generator
) -> None:
    layer = in_float64(kind, 2, 3, 2, bidirectional=True)
    x, grad = rng.normal(size=(4, 5, 2)), rng.normal(size=(4, 5, 6))
    layer(x)
    twin = duplicate(layer)
    assert_array_equal(twin(x), layer(x))
    assert_array_equal(twin.backward(grad), layer.backward(grad))
    assert_same(gradients(twin), gradients(layer), rtol=0)


# ---- construction ----


def test_parameters_have_pytorchs_names_and_shapes() -> None:
    layer = nn.LSTM(2, 3, 2, bidirectional=True)
    assert {name: value.shape for name, value in layer.state_dict().items()} == {
        "weight_ih_l0": (12, 2),
        "weight_hh_l0": (12, 3),
        "bias_ih_l0": (12,),
        "bias_hh_l0": (12,),
        "weight_ih_l0_reverse": (12, 2),
        "weight_hh_l0_reverse": (12, 3),
        "bias_ih_l0_reverse": (12,),
        "bias_hh_l0_reverse": (12,),
        "weight_ih_l1": (12, 6),
        "weight_hh_l1": (12, 3),
        "bias_ih_l1": (12,),
        "bias_hh_l1": (12,),
        "weight_ih_l1_reverse": (12, 6),
        "weight_hh_l1_reverse": (12, 3),
        "bias_ih_l1_reverse": (12,),
        "bias_hh_l1_reverse": (12,),
    }
    assert list(nn.GRU(2, 3, bias=False).state_dict()) == ["weight_ih_l0", "weight_hh_l0"]


@every_kind
def test_initial_values_are_uniform_within_one_over_the_root_of_hidden_size(kind: str) -> None:
    # Also the weights of the input, whatever its size. The variance of a uniform on ±b is b²/3.
    layer = KINDS[kind](400, 100, rng=0)
    for values in layer.state_dict().values():
        assert np.abs(values).max() <= 0.1
        # The relative deviation of a sample variance of n values is √(0.8 / n).
        spread = 5 * np.sqrt(0.8 / values.size)
        assert_allclose(values.astype(float).var(), 0.01 / 3, rtol=spread)


@every_kind
def test_the_same_seed_gives_the_same_values(kind: str) -> None:
    first, second = (KINDS[kind](2, 3, 2, rng=7).state_dict() for _ in range(2))
    assert_same(first, second, rtol=0)
    nn.seed(3)
    first = KINDS[kind](2, 3).state_dict()
    nn.seed(3)
    assert_same(first, KINDS[kind](2, 3).state_dict(), rtol=0)


def test_repr_is_the_call_that_makes_the_layer() -> None:
    assert repr(nn.RNN(2, 3)) == "RNN(2, 3)"
    layer = nn.RNN(2, 3, 2, "relu", bias=False, bidirectional=True, outputs="last", truncate=5)
    assert repr(eval(repr(layer), {"RNN": nn.RNN})) == repr(layer)
    assert "truncate=5" in repr(layer)
    assert repr(nn.LSTM(2, 3, 2, dropout=0.1)) == "LSTM(2, 3, num_layers=2, dropout=0.1)"


# ---- learning ----


@every_kind
def test_it_learns_what_only_the_first_step_tells(kind: str, rng: np.random.Generator) -> None:
    # The sign of the first of six numbers, from the state after the last.
    x = rng.normal(size=(128, 6, 1)).astype(np.float32)
    labels = (x[:, 0, 0] > 0).astype(np.int64)
    model = nn.Sequential(KINDS[kind](1, 16, outputs="last", rng=0), nn.Linear(16, 2, rng=0))
    loss, optimizer = nn.CrossEntropy(), nn.Adam(model.parameters(), lr=0.02)
    value = np.inf
    for _ in range(100):
        value = loss(model(x), labels)
        optimizer.zero_grad()
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
    assert value < 0.1  # chance is log 2 = 0.69


# ---- errors ----


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 2), r"\(N, L, 2\), got \(4, 2\); add a batch axis: x\[None\]"),
        ((4, 5, 3), r"\(N, L, 2\), got \(4, 5, 3\)$"),
        ((4, 2, 5), r"got \(4, 2, 5\); put the features last: x\.swapaxes\(1, 2\)"),
        ((4, 1, 5, 2), r"got \(4, 1, 5, 2\); take the rows of the images as steps: x\[:, 0\]"),
        ((4, 3, 5, 2), r"got \(4, 3, 5, 2\)$"),
        ((2,), r"got \(2,\)$"),
        ((4, 0, 2), r"one step at least, got input of shape \(4, 0, 2\)"),
        ((0, 5, 2), r"empty.*\(0, 5, 2\)"),
    ],
)
@every_kind
def test_an_input_of_the_wrong_shape_is_an_error(
    kind: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{kind[:3]}.*{message}"):
        KINDS[kind](2, 3)(np.zeros(shape, np.float32))


def test_an_input_of_integers_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"GRU\(2, 3\).*floats"):
        nn.GRU(2, 3)(np.zeros((4, 5, 2), np.int64))


def test_a_state_that_does_not_fit_is_an_error() -> None:
    x, fitting = np.zeros((4, 5, 2), np.float32), np.zeros((2, 4, 3), np.float32)
    rnn, lstm = nn.RNN(2, 3, 2), nn.LSTM(2, 3, 2)
    expected = r"initial state h0 of shape \(2, 4, 3\) \(layers \* directions, N, hidden_size\)"
    with pytest.raises(ValueError, match=expected + r", got \(4, 2, 3\)"):
        rnn(x, fitting.swapaxes(0, 1))
    with pytest.raises(ValueError, match=expected + r", got \(2, 3, 3\)"):
        rnn(x, fitting[:, :3])
    with pytest.raises(ValueError, match="initial state c0 of shape"):
        lstm(x, fitting, fitting[:1])
    with pytest.raises(ValueError, match="the initial state as h0 and c0, got 1 array"):
        lstm(x, fitting)
    with pytest.raises(ValueError, match="the initial state as h0, got 2 arrays"):
        rnn(x, fitting, fitting)
    with pytest.raises(TypeError, match="initial state h0 of floats"):
        rnn(x, fitting.astype(int))


def test_a_mask_that_does_not_fit_is_an_error() -> None:
    layer, x = nn.RNN(2, 3), np.zeros((4, 5, 2), np.float32)
    with pytest.raises(ValueError, match=r"needs a mask of shape \(4, 5\), got \(5, 4\)"):
        layer(x, mask=np.ones((5, 4), bool))
    with pytest.raises(TypeError, match=r"mask of booleans, got dtype int64; from lengths, it is"):
        layer(x, mask=np.array([1, 2, 3, 4]))


def test_a_gradient_that_does_not_fit_is_an_error_and_changes_nothing() -> None:
    layer, x = nn.LSTM(2, 3), np.zeros((4, 5, 2), np.float32)
    layer(x)
    with pytest.raises(ValueError, match=r"shape \(4, 5, 3\), got shape \(4, 3\)"):
        layer.backward(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"state_grad.* h0 of shape \(1, 4, 3\).*got \(4, 3\)"):
        layer.backward(np.zeros((4, 5, 3)), state_grad=(np.zeros((4, 3)), np.zeros((4, 3))))
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_a_forward_that_fails_leaves_the_one_before_it() -> None:
    layer, x = in_float64("LSTM", 2, 3), np.ones((4, 5, 2))
    layer(x)
    h, c = layer.last_state
    expected = layer.backward(np.ones((4, 5, 3)))
    for fault in ({"mask": np.ones((1, 1), bool)}, {}):
        with pytest.raises(ValueError, match="LSTM"):
            layer(x if fault else x[:, :0], **fault)
    assert layer.last_state[0] is h
    assert layer.last_state[1] is c
    assert_array_equal(layer.backward(np.ones((4, 5, 3))), expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_size": 0}, ValueError, "RNN: input_size must be at least 1, got 0"),
        ({"hidden_size": 2.5}, TypeError, "RNN: hidden_size must be an int"),
        ({"num_layers": 0}, ValueError, "RNN: num_layers must be at least 1"),
        (
            {"nonlinearity": "sigmoid"},
            ValueError,
            "RNN: nonlinearity must be one of 'tanh', 'relu'",
        ),
        ({"dropout": 1.5}, ValueError, "RNN: dropout must be between 0 and 1"),
        ({"outputs": "first"}, ValueError, "RNN: outputs must be one of 'all', 'last'"),
        ({"truncate": 0}, ValueError, "RNN: truncate must be at least 1"),
    ],
)
def test_an_argument_out_of_range_is_an_error(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        nn.RNN(**{"input_size": 2, "hidden_size": 3, **options})


# ---- against PyTorch ----


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def torch_twin(torch: Any, layer: Recurrent) -> Any:
    """Return PyTorch's module with the values of `layer`."""
    extra = {"nonlinearity": layer.nonlinearity} if isinstance(layer, nn.RNN) else {}
    module = getattr(torch.nn, type(layer).__name__)(
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        bias=layer.bias,
        bidirectional=layer.bidirectional,
        batch_first=True,
        dtype=torch.float64,
        **extra,
    )
    values = {name: torch.from_numpy(value) for name, value in layer.state_dict().items()}
    module.load_state_dict(values)
    return module


def leaf(torch: Any, array: Array) -> Any:
    return torch.tensor(array, requires_grad=True)


def torch_gradients(module: Any) -> dict[str, Array]:
    return {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}


@given(**options, started=st.booleans())
def test_values_and_gradients_are_pytorchs(
    torch: Any,
    kind: str,
    num_layers: int,
    bias: bool,
    bidirectional: bool,
    batch: int,
    length: int,
    started: bool,
) -> None:
    rng = np.random.default_rng(1)
    layer = in_float64(kind, 2, 3, num_layers, bias=bias, bidirectional=bidirectional)
    module = torch_twin(torch, layer)
    x, state = rng.normal(size=(batch, length, 2)), random_state(layer, batch, rng)
    their_x, their_state = leaf(torch, x), [leaf(torch, array) for array in state]
    packed = tuple(their_state) if len(state) > 1 else their_state[0]
    their_output, their_final = module(their_x, packed) if started else module(their_x)
    their_final = as_tuple(their_final)

    output = layer(x, *state) if started else layer(x)
    assert_allclose(output, their_output.detach(), rtol=1e-11, atol=1e-13)
    for a, b in zip(as_tuple(layer.last_state), their_final, strict=True):
        assert_allclose(a, b.detach(), rtol=1e-11, atol=1e-13)

    grads = [rng.normal(size=values.shape) for values in (output, *state)]
    loss = sum(
        (values * torch.from_numpy(grad)).sum()
        for values, grad in zip((their_output, *their_final), grads, strict=True)
    )
    loss.backward()
    state_grad = tuple(grads[1:]) if len(state) > 1 else grads[1]
    input_grads = as_tuple(layer.backward(grads[0], state_grad=state_grad))
    theirs = [their_x, *their_state] if started else [their_x]
    for a, b in zip(input_grads, theirs, strict=True):
        assert_allclose(a, b.grad, rtol=1e-10, atol=1e-12)
    assert_same(gradients(layer), torch_gradients(module))


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_weights_move_to_pytorch_and_back(torch: Any, kind: str, bidirectional: bool) -> None:
    layer, other = (
        in_float64(kind, 2, 3, 2, bidirectional=bidirectional, rng=seed) for seed in (0, 1)
    )
    theirs = torch_twin(torch, layer).state_dict()
    assert list(theirs) == list(layer.state_dict())
    other.load_state_dict({name: value.numpy() for name, value in theirs.items()})
    assert_same(other.state_dict(), layer.state_dict(), rtol=0)


@every_kind
def test_a_padded_batch_is_pytorchs_packed_sequence(
    torch: Any, kind: str, rng: np.random.Generator
) -> None:
    lengths = np.array([2, 5, 1, 4])
    layer = in_float64(kind, 2, 3, 2, bidirectional=True)
    module = torch_twin(torch, layer)
    x, state = rng.normal(size=(4, 5, 2)), random_state(layer, 4, rng)
    their_x, their_state = leaf(torch, x), [leaf(torch, array) for array in state]
    rnn = torch.nn.utils.rnn
    sequences = rnn.pack_padded_sequence(
        their_x, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
    )
    their_output, their_final = module(
        sequences, tuple(their_state) if len(state) > 1 else their_state[0]
    )
    their_output, _ = rnn.pad_packed_sequence(their_output, batch_first=True)

    output = layer(x, *state, mask=np.arange(5) < lengths[:, None])
    assert_allclose(output, their_output.detach(), rtol=1e-11)
    for a, b in zip(as_tuple(layer.last_state), as_tuple(their_final), strict=True):
        assert_allclose(a, b.detach(), rtol=1e-11)
    grad = rng.normal(size=output.shape)
    their_output.backward(torch.from_numpy(grad))
    for a, b in zip(layer.backward(grad), [their_x, *their_state], strict=True):
        assert_allclose(a, b.grad, rtol=1e-10, atol=1e-12)
    assert_same(gradients(layer), torch_gradients(module))


@every_kind
@pytest.mark.parametrize("truncate", [1, 2, 3, 4])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_truncation_is_a_detach_between_chunks_counted_from_the_end(
    torch: Any, kind: str, truncate: int, bidirectional: bool, rng: np.random.Generator
) -> None:
    length = 7
    layer = in_float64(kind, 2, 3, 2, bidirectional=bidirectional, truncate=truncate)
    x, state = rng.normal(size=(4, length, 2)), random_state(layer, 4, rng)
    their_x, their_state = leaf(torch, x), [leaf(torch, array) for array in state]
    # One PyTorch module for each layer and direction, run over the chunks one by one.
    sequence, modules, index = their_x, {}, 0
    for k in range(2):
        outputs = []
        for suffix in ("", "_reverse")[: 1 + bidirectional]:
            extra: Any = {"nonlinearity": layer.nonlinearity} if isinstance(layer, nn.RNN) else {}
            single = type(layer)(sequence.shape[2], 3, **extra).astype(np.float64)
            values = layer.state_dict()
            single.load_state_dict(
                {name: values[f"{name[:-3]}_l{k}{suffix}"] for name in single.state_dict()}
            )
            module = modules[f"_l{k}{suffix}"] = torch_twin(torch, single)
            turned = sequence.flip(1) if suffix else sequence
            now = tuple(array[index : index + 1] for array in their_state)
            pieces: list[Any] = []
            for start in range(length % truncate - truncate, length, truncate):
                chunk = turned[:, max(start, 0) : start + truncate]
                if not chunk.shape[1]:
                    continue
                if pieces:
                    now = tuple(array.detach() for array in now)
                piece, now = module(chunk, now if len(now) > 1 else now[0])
                now = as_tuple(now)
                pieces.append(piece)
            output = torch.cat(pieces, 1)
            outputs.append(output.flip(1) if suffix else output)
            index += 1
        sequence = torch.cat(outputs, 2)
    grad = rng.normal(size=sequence.shape)
    sequence.backward(torch.from_numpy(grad))
    theirs = {
        name.replace("_l0", suffix): value
        for suffix, module in modules.items()
        for name, value in torch_gradients(module).items()
    }

    assert_allclose(layer(x, *state), sequence.detach(), rtol=1e-11)
    for a, b in zip(layer.backward(grad), [their_x, *their_state], strict=True):
        assert_allclose(a, b.grad, rtol=1e-10, atol=1e-12)
    assert_same(gradients(layer), theirs)
