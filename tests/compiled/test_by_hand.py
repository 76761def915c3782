"""A compiled model in a loop of the user's own: threads divide its forward and its backward."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nnlite as nn
from nnlite.compiled import parallel, split
from nnlite.compiled.forms import FORMS
from nnlite.compiled.models import ModelProgram

from ..registry import LAYERS
from .division import divide

assert nn.compile  # its module registers the forms
LAYER_CASES = [case for case in LAYERS if all(type(part) in FORMS for part in case.make().layers())]


@pytest.fixture(params=[2, 3])
def threads(request, monkeypatch):
    divide(monkeypatch, request.param, in_samples=False)
    return request.param


def perceptron():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(20, 3),
    )  # fmt: skip


def recurrent():
    return nn.Sequential(nn.LSTM(4, 5, outputs="last"), nn.Linear(5, 3))


def normalized():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3),
        nn.Residual(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)), nn.Flatten(),
        nn.Linear(64, 5), nn.BatchNorm1d(5, momentum=None), nn.Tanh(), nn.Linear(5, 3),
    )  # fmt: skip


def graph():
    """A graph of two inputs and two outputs, one of them a view of a value inside."""
    nodes = {
        "left": (nn.Linear(4, 6), "a"),
        "right": (nn.Linear(5, 6), "b"),
        "both": (nn.Add(), "left", "right"),
        "hidden": (nn.Tanh(), "both"),
        "grid": (nn.Reshape(2, 3), "hidden"),
        "score": (nn.Linear(6, 2), "right"),
    }
    return nn.Graph(nodes, inputs=("a", "b"), outputs=("grid", "score"))


MODELS = {
    "perceptron": (perceptron, [(4,)]),
    "CNN": (convolutional, [(2, 6, 6)]),
    "LSTM": (recurrent, [(3, 4)]),
    "batch norm and dropout": (normalized, [(2, 6, 6)]),
    "graph": (graph, [(4,), (5,)]),
}


def made(name, dtype=np.float64, native=False):
    """Return the compiled model, its uncompiled twin, and the inputs of n samples as a function."""
    make, shapes = MODELS[name]
    nn.seed(0)
    model = make().astype(dtype)
    rng = np.random.default_rng(0)

    def inputs(n):
        return [rng.normal(size=(n, *shape)).astype(dtype) for shape in shapes]

    return nn.compile(model, native=native), copy.deepcopy(model), inputs


def as_tuple(values):
    return values if isinstance(values, tuple) else (values,)


def passes(model, inputs, missing=()):
    """Return outputs and input gradients of a model; the gradients of outputs are their sines."""
    nn.seed(5)
    outputs = as_tuple(model(*inputs))
    grads = tuple(None if i in missing else np.sin(3 * y) for i, y in enumerate(outputs))
    return outputs, as_tuple(model.backward(grads if len(grads) > 1 else grads[0]))


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape == other.shape
            assert_allclose(one, other, rtol=1e-8, atol=1e-11)


def assert_same_state(model, twin):
    assert_same([p.grad for p in model.parameters()], [p.grad for p in twin.parameters()])
    assert_same([*model.buffers()], [*twin.buffers()])


def parts_of(compiled):
    """Return the number of parts that forward was divided into in the latest call."""
    _, n, needed = compiled.cached()
    chunks = getattr(needed, "chunks", (((0, n),),))
    assert [bounds for part in chunks for bounds in part][-1][1] == n
    return len(chunks)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_the_uncompiled_model(name, native, threads):
    """Also of a smaller batch between larger ones, and of gradients that are added."""
    if native:
        pytest.importorskip("numba")
    compiled, twin, inputs = made(name, native=native)
    for n in (7, 7, 2, 8):
        batch = inputs(n)
        found, expected = passes(compiled, batch), passes(twin, batch)
        assert parts_of(compiled) == min(n, threads)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
        assert_same_state(compiled.model, twin)


@pytest.mark.parametrize("in_samples", [False, True])
@pytest.mark.parametrize("case", LAYER_CASES, ids=lambda case: case.name)
def test_a_layer_is_divided_unless_its_samples_depend_on_each_other(case, in_samples, monkeypatch):
    """Layers that draw do so for the whole batch before; batch norm sums over the parts."""
    divide(monkeypatch, 3, in_samples)
    inputs = case.inputs(np.random.default_rng(0), 7)
    model = case.make().astype(np.float64)
    twin, compiled = copy.deepcopy(model), nn.compile(model, native=False)
    found, expected = passes(compiled, inputs), passes(twin, inputs)
    is_divided = (case.per_sample or not case.repeats_itself) and not list(model.buffers())
    is_divided |= isinstance(model, (nn.BatchNorm1d, nn.BatchNorm2d))
    assert parts_of(compiled) == (3 if is_divided else 1)
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    assert_same_state(model, twin)


def test_the_gradients_of_a_perceptron_are_those_of_its_formulas(threads):
    """y = V tanh(W x + b) + c, with W, b, V and c from the backpropagation of the whole batch."""
    compiled, _, inputs = made("perceptron")
    w, b, v, c = (parameter.data for parameter in compiled.parameters())
    (x,), grad = inputs(7), np.arange(21.0).reshape(7, 3)
    hidden = np.tanh(x @ w.T + b)
    delta = (grad @ v) * (1 - hidden**2)
    assert_allclose(compiled(x), hidden @ v.T + c, rtol=1e-12)
    assert_allclose(compiled.backward(grad), delta @ w, rtol=1e-10, atol=1e-12)
    expected = [delta.T @ x, delta.sum(0), grad.T @ hidden, grad.sum(0)]
    assert_same([parameter.grad for parameter in compiled.parameters()], expected)
    assert parts_of(compiled) == threads


@pytest.mark.parametrize("name", MODELS)
def test_gradients_agree_with_central_differences(name, threads):
    compiled, _, inputs = made(name)
    for layer in compiled.layers():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    assert nn.gradcheck(compiled, *inputs(4))
    compiled(*inputs(4))
    assert parts_of(compiled) == threads


@pytest.mark.parametrize("input_grad", [False, True])
@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_gradient(missing, input_grad, threads):
    """Without that of the grid, "left" and "a" have none; without that of the score, "score"."""
    compiled, twin, inputs = made("graph")
    batch = inputs(7)
    if input_grad:
        found, expected = passes(compiled, batch, [missing]), passes(twin, batch, [missing])
        assert_same(found[1], expected[1])
        assert (found[1][0] is None) == (missing == 0)
    else:
        for model in (compiled, twin):
            grads = [np.cos(y) for y in model(*batch)]
            grads[missing] = None
            assert model.backward(tuple(grads), input_grad=False) is None
    assert_same_state(compiled.model, twin)
    assert compiled.model["left" if missing == 0 else "score"].weight.grad is None
    assert parts_of(compiled) == threads


def test_frozen_parameters_have_no_gradient(threads):
    compiled, twin, inputs = made("perceptron")
    for model in (compiled.model, twin):
        model[0].requires_grad_(False)
        model[2].bias.requires_grad = False
    batch = inputs(7)
    for one, other in zip(passes(compiled, batch), passes(twin, batch), strict=True):
        assert_same(one, other)
    assert_same_state(compiled.model, twin)
    compiled.model.requires_grad_(False)
    passes(compiled, batch)
    assert_same_state(compiled.model, twin)
    assert parts_of(compiled) == threads


def test_backward_may_be_called_twice(threads):
    compiled, twin, inputs = made("batch norm and dropout")
    batch = inputs(7)
    for model in (compiled, twin):
        nn.seed(1)
        y = model(*batch)
        model.backward(np.sin(y))
        model.backward(np.cos(y), input_grad=False)
    assert_same_state(compiled.model, twin)
    assert parts_of(compiled) == threads


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("later", [1, 5])
def test_the_number_of_threads_may_change_before_backward(name, later, threads, monkeypatch):
    compiled, twin, inputs = made(name)
    batch = inputs(7)
    nn.seed(5)
    outputs = as_tuple(compiled(*batch))
    monkeypatch.setattr(split, "threads_of_products", lambda: later)
    grads = tuple(np.sin(3 * y) for y in outputs)
    found = compiled.backward(grads if len(grads) > 1 else grads[0])
    assert parts_of(compiled) == threads
    assert_same(as_tuple(found), passes(twin, batch)[1])
    assert_same_state(compiled.model, twin)
    for one, other in zip(passes(compiled, batch), passes(twin, batch), strict=True):
        assert_same(one, other)
    assert parts_of(compiled) == later
    assert_same_state(compiled.model, twin)


def test_batches_of_one_sample_and_of_none(threads):
    compiled, twin, inputs = made("perceptron")
    for n in (7, 1):
        batch = inputs(n)
        for one, other in zip(passes(compiled, batch), passes(twin, batch), strict=True):
            assert_same(one, other)
    assert parts_of(compiled) == 1
    with pytest.raises(ValueError, match="empty") as expected:
        twin(*inputs(0))
    with pytest.raises(ValueError, match="empty") as raised:
        compiled(*inputs(0))
    assert str(raised.value) == str(expected.value)


def test_without_gradients_there_is_nothing_for_backward(threads):
    compiled, _, inputs = made("perceptron")
    compiled(*inputs(7))
    with nn.no_grad():
        y = compiled(*inputs(7))
    with pytest.raises(RuntimeError, match="call forward before it"):
        compiled.backward(y)


def test_outputs_and_input_gradients_are_new_arrays(threads):
    compiled, _, inputs = made("graph")
    batch = inputs(7)
    outputs, grads = passes(compiled, batch)
    arrays = [*outputs, *grads]
    copies = [array.copy() for array in arrays]
    passes(compiled, [x + 1 for x in batch])
    for array, before in zip(arrays, copies, strict=True):
        assert array.flags.c_contiguous
        assert not any(np.shares_memory(array, x) for x in batch)
        assert (array == before).all()
    assert parts_of(compiled) == threads


def test_an_index_out_of_range_in_one_part_is_the_error_of_the_model(threads):
    model = nn.Sequential(nn.Embedding(5, 2, rng=0), nn.Flatten(), nn.Linear(6, 2, rng=1))
    compiled = nn.compile(model, native=False)
    indices = np.zeros((7, 3), int)
    compiled(indices)
    indices[6, 2] = 5
    with pytest.raises(ValueError, match="indices") as expected:
        model(indices)
    with pytest.raises(ValueError, match="indices") as raised:
        compiled(indices)
    assert str(raised.value) == str(expected.value)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", ["CNN", "batch norm and dropout"])
@pytest.mark.parametrize("with_grads", [False, True])
def test_an_interruption_of_one_part_leaves_nothing_half_updated(
    name, with_grads, error, threads, monkeypatch
):
    """Of every call of a function that a thread makes."""
    compiled, twin, inputs = made(name)
    batch = inputs(7)
    call, left = ModelProgram.call_with, 0

    def interrupted(self, *arguments):
        nonlocal left
        left -= 1
        if left == 0:
            raise error
        return call(self, *arguments)

    monkeypatch.setattr(ModelProgram, "call_with", interrupted)
    if with_grads:
        passes(compiled, batch)
        passes(twin, batch)
    for count in range(1, 100):
        left = count
        buffers = [buffer.copy() for buffer in compiled.model.buffers()]
        grads = [p.grad if p.grad is None else p.grad.copy() for p in compiled.parameters()]
        try:
            nn.seed(5)
            y = compiled(*batch)
        except error:
            assert_same([*compiled.model.buffers()], buffers)
            continue
        passes(twin, batch)
        try:
            compiled.backward(np.sin(3 * y))
        except error:
            assert_same([p.grad for p in compiled.parameters()], grads)
            for parameter, other in zip(compiled.parameters(), twin.parameters(), strict=True):
                other.grad = parameter.grad
            continue
        break
    assert count >= 2 * threads
    assert_same_state(compiled.model, twin)


def test_threads_compute_the_parts(threads, monkeypatch):
    """From the second call of a function on: in the first, one thread compiles for all."""
    counts = []
    run = parallel.threads.run

    def counted(calls):
        counts.append(len(calls))
        run(calls)

    monkeypatch.setattr(parallel.threads, "run", counted)
    compiled, _, inputs = made("perceptron")
    batch = inputs(7)
    passes(compiled, batch)
    assert counts == []
    passes(compiled, batch)
    assert counts == [threads, threads]


def test_the_first_batch_does_not_decide_whether_larger_ones_are_divided(monkeypatch):
    """A sample is 126 multiply-adds; the second thread saves half: 400 from 7 samples on."""
    divide(monkeypatch, 2, in_samples=False)
    monkeypatch.setattr(split, "_WAITING", 400)
    compiled, twin, inputs = made("perceptron")
    programs = set()
    for n, parts in ((2, 1), (6, 1), (7, 2), (2, 1), (40, 2)):
        batch = inputs(n)
        for one, other in zip(passes(compiled, batch), passes(twin, batch), strict=True):
            assert_same(one, other)
        assert parts_of(compiled) == parts
        programs.add(compiled._programs.latest)
    assert len(programs) == 1
    assert_same_state(compiled.model, twin)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_number_of_threads_gives_the_same_bits(name, threads):
    pytest.importorskip("numba")

    def trained():
        compiled, _, inputs = made(name, np.float32, native=True)
        optimizer = nn.SGD(compiled.parameters(), lr=0.1)
        results = []
        for _ in range(5):
            optimizer.zero_grad()
            outputs, grads = passes(compiled, inputs(34))
            optimizer.step()
            results += [array.tobytes() for array in (*outputs, *grads)]
        assert parts_of(compiled) == threads
        return [*results, *[p.data.tobytes() for p in compiled.parameters()]]

    first = trained()
    assert all(trained() == first for _ in range(5))
