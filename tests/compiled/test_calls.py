"""Calls of compiled objects: arrays of all kinds, one after the other, and where gradients go."""

import contextlib
import copy
import itertools
import pickle
import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn
from nnlite.compiled.forms import form
from nnlite.compiled.source import nest


def network():
    nn.seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))


def misaligned(array):
    memory = np.empty(array.nbytes + 1, np.int8)
    copy = memory[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def read_only(array):
    view = array.view()
    view.flags.writeable = False
    return view


X = np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32)
ARRAYS = {
    "as machine code takes it": X,
    "of float64": X.astype(np.float64),
    "not contiguous": X.swapaxes(1, 2).copy().swapaxes(1, 2),
    "of the other byte order": X.astype(X.dtype.newbyteorder()),
    "misaligned": misaligned(X),
    "read-only": read_only(X),
    "lists": X.tolist(),
    "of another batch size": X[:1],
    "of another shape": X.reshape(2, 6),
}


@pytest.mark.parametrize("native", [False, True])
def test_each_call_may_have_an_array_of_another_kind(native):
    if native:
        pytest.importorskip("numba")
    model = network()
    compiled = nn.compile(model, native=native)
    for one, other in itertools.permutations(ARRAYS, 2):
        for name in (one, other, other):
            with nn.no_grad():
                expected = model(np.array(ARRAYS[name], np.float32))
                result = compiled(ARRAYS[name])
            assert_allclose(result, expected, rtol=1e-5, err_msg=f"{name} after {one}")


def test_a_wrong_shape_or_dtype_after_a_right_one_is_the_error_of_the_model():
    model = network()
    compiled, step = nn.compile(model, native=False), _step(model)
    for wrong in (X[:, :1], X[:0], X.astype(int), "x", None):
        for call in (compiled, lambda x: step(x, np.array([0, 1]))):
            call(X)
            with pytest.raises((TypeError, ValueError)):
                call(wrong)
            call(X)
    with pytest.raises(ValueError, match="labels must be"):
        step(X, np.array([0, 3]))
    with pytest.raises(ValueError, match="need labels of shape"):
        step(X, np.array([0, 1, 2]))


def _step(model):
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    return nn.compile(model, nn.CrossEntropy(), optimizer, native=False)


def test_sample_weights_are_not_taken_for_the_target():
    model = network()
    target, weight = np.array([0, 1]), np.array([1.0, 0.0], np.float32)
    step, gradients = _step(model), nn.compile(model, nn.CrossEntropy(), native=False)
    for call in (gradients, step):
        both = nn.CrossEntropy()(model(X), target)
        assert call(X, target) == pytest.approx(both)
        first = nn.CrossEntropy()(model(X[:1]), target[:1])
        assert call(X, target, weight) == pytest.approx(first)


def test_outputs_and_input_gradients_are_arrays_of_their_own():
    model = network()
    compiled = nn.compile(model, native=False)
    outputs = [compiled(X), compiled(X)]
    grads = [compiled.backward(np.ones((2, 3), np.float32)) for _ in range(2)]
    for one, other in (outputs, grads):
        before = other.copy()
        one[...] = 7
        assert_array_equal(other, before)
    assert outputs[0].shape == (2, 3)
    assert grads[0].shape == X.shape


@pytest.mark.parametrize("input_grad", [False, True])
def test_a_backward_adds_to_the_gradients_that_there_are_and_leaves_others_alone(input_grad):
    model, twin = network(), network()
    compiled = nn.compile(twin, native=False)
    grad = np.arange(6, dtype=np.float32).reshape(2, 3)
    for step in range(4):
        for one in (model, twin):
            # All gradients are new, some of them, or none.
            for parameter in list(one.parameters())[step:]:
                parameter.zero_grad()
        for one, call in ((model, model), (twin, compiled)):
            call(X)
            call.backward(grad * (step + 1), input_grad=input_grad)
            assert all(parameter.grad is not None for parameter in one.parameters())
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            assert_allclose(other.grad, one.grad, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_is_held_is_not_written_into():
    model = network()
    compiled = nn.compile(model, native=False)
    compiled(X)
    compiled.backward(np.ones((2, 3), np.float32))
    held = [parameter.grad for parameter in model.parameters()]
    before = [grad.copy() for grad in held]
    model.zero_grad()
    compiled.backward(np.full((2, 3), 5, np.float32))
    for grad, value, parameter in zip(held, before, model.parameters(), strict=True):
        assert_array_equal(grad, value)
        assert_allclose(parameter.grad, 5 * value, rtol=1e-4)


def test_what_changes_between_forward_and_backward():
    model = network()
    compiled = nn.compile(model, native=False)
    grad = np.ones((2, 3), np.float32)
    compiled(X)
    model[1].weight.requires_grad = False
    compiled.backward(grad)
    assert model[1].weight.grad is None
    assert model[3].weight.grad is not None
    model[1].weight.requires_grad = True
    model.zero_grad()
    compiled(X)
    model.astype(np.float64)
    compiled.backward(grad)
    assert model[1].weight.grad.dtype == np.float64


@pytest.mark.parametrize("native", [False, True])
def test_predictions_one_after_the_other_are_of_the_model_as_it_is(native):
    if native:
        pytest.importorskip("numba")
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4, rng=0), nn.Dropout(0.5, rng=0))
    compiled = nn.compile(model, native=native)

    def assert_same(x=X):
        for _ in range(3):
            assert_allclose(nn.predict(compiled, x), nn.predict(model, x), rtol=1e-5)

    assert_same()
    assert_same(X[:1])
    model[1].weight.data = 2 * model[1].weight.data
    assert_same()
    model[1].bias.data[...] = 3
    assert_same()
    model[2].eval()
    assert_same()
    model[1] = nn.Linear(6, 2, rng=1)
    assert_same()
    compiled(X)
    assert_same()
    with pytest.raises(RuntimeError, match="call forward before it"):
        compiled.backward(np.ones((2, 2), np.float32))


def test_a_prediction_is_a_new_array_and_an_error_is_that_of_the_model():
    nothing = nn.compile(nn.Identity(), native=False)
    for _ in range(3):
        assert not np.shares_memory(nn.predict(nothing, X), X)
    words = nn.Embedding(5, 2, rng=0)
    compiled = nn.compile(words, native=False)
    for _ in range(3):
        nn.predict(compiled, np.array([[1, 4]]))
    with pytest.raises(ValueError, match="indices") as expected:
        nn.predict(words, np.array([[1, 5]]))
    with pytest.raises(ValueError, match="indices") as raised:
        nn.predict(compiled, np.array([[1, 5]]))
    assert str(raised.value) == str(expected.value)


def test_threads_predict_with_one_compiled_model_while_another_changes_it():
    pytest.importorskip("numba")
    model = network()
    compiled = nn.compile(model)
    weights = [model.state_dict(), {k: -v for k, v in model.state_dict().items()}]
    inputs = [X, X[:1], np.concatenate([X, X])]
    right = []
    for state in weights:
        model.load_state_dict(state)
        right.append([nn.predict(model, x) for x in inputs])
    faults, is_done = [], threading.Event()

    def predict(place):
        while not is_done.is_set():
            result = nn.predict(compiled, inputs[place])
            if not any(np.allclose(result, of_state[place], rtol=1e-4) for of_state in right):
                faults.append(result)

    workers = [threading.Thread(target=predict, args=(place,)) for place in range(3)]
    for worker in workers:
        worker.start()
    for _ in range(100):
        for parameter in model.parameters():
            parameter.data = parameter.data.copy()
    is_done.set()
    for worker in workers:
        worker.join()
    assert not faults


def test_a_compiled_model_may_be_a_part_of_another():
    part, whole = nn.Linear(3, 4, rng=0), nn.Linear(4, 2, rng=1)
    usual = nn.Sequential(part, nn.Tanh(), whole)
    x = X[:, 0]
    expected = usual(x)
    model = nn.Sequential(nn.compile(nn.Sequential(part, nn.Tanh()), native=False), whole)
    compiled = nn.compile(model, native=False)
    assert_allclose(compiled(x), expected, rtol=1e-6)
    assert "# 0.model.0: Linear(3, 4)" in compiled.source


def test_the_error_of_a_compiled_part_has_its_path_in_the_whole():
    model = nn.Sequential(nn.compile(nn.Sequential(nn.Linear(3, 4)), native=False), nn.Tanh())
    with pytest.raises(ValueError, match=r"expected .* \(layer '0\.model\.0', input of"):
        model(np.ones((2, 5), np.float32))


class Counter(nn.Layer):
    """A layer whose forward leaves all kinds of things on it."""

    def __init__(self, rng=None):
        self.rng = np.random.default_rng(rng)
        self.calls, self.seen = 0, []
        self.register_buffer("total", np.zeros(3, np.float32))
        self.register_buffer("mean", np.zeros(3, np.float32))

    def forward(self, x):
        self.cache(x)
        self.calls += 1
        self.seen.append(x.shape)
        self.total += x.sum(axis=0) + self.rng.random(dtype=np.float32)
        self.mean = self.total / self.calls
        return 2 * x

    def backward(self, grad, input_grad=True):
        (x,) = self.cached()
        return 2 * grad + 0 * x


@form(Counter)
def counter(layer, code, x):
    y = code.new(x.shape)
    code(nest({"i": x.size}, f"{y}[i] = real(2) * {x}[i]"))
    return y, lambda dy: code.pass_gradient(x, dy)


def state_of(layer):
    caches = [vars(part).get("_cache") for part in layer.layers()]
    return {
        "attributes": [(part.calls, list(part.seen), part.mean) for part in layer.layers()[1:]],
        "buffers": [buffer.tolist() for buffer in layer.buffers()],
        "generators": [part.rng.bit_generator.state for part in layer.layers()[1:]],
        "caches": [cache and (cache.forwards, id(cache.values)) for cache in caches],
    }


@pytest.mark.parametrize("value", [1, np.nan])
@pytest.mark.parametrize("kind", ["model", "gradients", "step"])
def test_a_first_call_leaves_no_trace_of_the_uncompiled_forward(kind, value):
    x = np.full((4, 3), value, np.float32)
    model = nn.Sequential(Counter(rng=0), Counter(rng=1))
    loss = nn.MeanSquaredError()
    model(np.ones((2, 3), np.float32))
    before = state_of(model)
    parts = {"model": (), "gradients": (loss,), "step": (loss, nn.SGD([nn.Parameter([1.0])], lr=1))}
    compiled = nn.compile(model, *parts[kind], native=False)
    with contextlib.suppress(ValueError):  # of the loss, for NaN
        compiled(x, *[x] * (kind != "model"))
    assert state_of(model) == before


def test_model_and_loss_go_backward_after_the_first_call_of_a_compiled_object():
    model, loss = network(), nn.MeanSquaredError()
    targets = np.zeros((2, 3), np.float32)
    loss(model(X), targets)
    model.backward(loss.backward())
    expected = [parameter.grad for parameter in model.parameters()]
    optimizer = nn.SGD(model.parameters(), lr=0)
    for parts in ((), (loss,), (loss, optimizer)):
        compiled = nn.compile(model, *parts, native=False)
        model.zero_grad()
        loss(model(X), targets)
        compiled(X[:1], *[targets[:1]] * bool(parts))
        model.zero_grad()
        model.backward(loss.backward())
        for parameter, grad in zip(model.parameters(), expected, strict=True):
            assert_array_equal(parameter.grad, grad)


def test_a_recurrent_layer_keeps_its_state_where_no_program_is_built():
    model = nn.Sequential(nn.LSTM(3, 4, outputs="last", rng=0), nn.Linear(5, 1, rng=0))
    model[0](X)
    before = model[0].last_state
    with pytest.raises(ValueError, match="Linear"):
        nn.compile(model, native=False)(X[:1])
    assert model[0].last_state is before


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_a_method_that_was_replaced_has_no_compiled_form(method):
    model = network()
    compiled = nn.compile(model, native=False)
    compiled(X)
    setattr(model[2], method, lambda x, input_grad=True: 0 * x)
    for call in (lambda: nn.compile(model, native=False), lambda: compiled(X)):
        with pytest.raises(TypeError, match=rf"Tanh\(\) \('2' in .* given another {method}"):
            call()


def test_a_compiled_model_is_traced_and_summarised_as_its_layers():
    compiled = nn.compile(network(), native=False)
    assert "model.1         Linear(6, 4)" in str(nn.trace(compiled, X))
    assert str(compiled.summary((2, 3), 4)) == str(compiled.model.summary((2, 3), 4))


FORMATS = {
    "save_model": (lambda model, path: nn.save_model(model, path), "cannot be in a file", None),
    "to_onnx": (lambda model, path: nn.to_onnx(model, path, (2, 3)), "has no form in ONNX", "onnx"),
    "to_torch": (lambda model, path: nn.to_torch(model), "no module for CompiledModel", "torch"),
    "to_html": (lambda model, path: nn.to_html(model, path), "the page has no form for", None),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_without_compiled_models_takes_the_attribute_model(name, tmp_path):
    write, fault, package = FORMATS[name]
    if package:
        pytest.importorskip(package)
    compiled = nn.compile(network(), native=False)
    for model in (compiled, nn.Sequential(compiled, nn.Tanh())):
        with pytest.raises((TypeError, ValueError), match=rf"^{name}.*{fault}.*; use .*\.model, "):
            write(model, tmp_path / "model.npz")
    write(compiled.model, tmp_path / "model.npz")


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "tied": lambda layer: layer.tied(),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_a_compiled_model_has_its_own_cache(name):
    compiled = nn.compile(network(), native=False)
    grad = np.ones((2, 3), np.float32)
    expected = compiled(X)
    input_grad = compiled.backward(grad)
    other = COPIES[name](compiled)
    with pytest.raises(RuntimeError, match="call forward before it"):
        other.backward(grad)
    assert_array_equal(other(X), expected)
    other(X[:1])
    assert_array_equal(compiled.backward(grad), input_grad)
    assert repr(other) == repr(compiled)


def test_a_tied_compiled_model_has_its_own_modes_and_the_same_parameters():
    compiled = nn.compile(nn.Sequential(nn.Linear(3, 3, rng=0), nn.Dropout(1.0)), native=False)
    compiled(X[:, 0])
    twin = compiled.tied().eval()
    assert_array_equal(compiled(X[:, 0]), np.zeros((2, 3)))
    assert_allclose(twin(X[:, 0]), compiled.model[0](X[:, 0]), rtol=1e-6)
    assert [*map(id, twin.parameters())] == [*map(id, compiled.parameters())]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Dropout(0.5), (1, 3)), (nn.Dropout1d(0.5), (1, 3)), (nn.Dropout1d(0.5), (2, 1))],
    ids=str,
)
def test_the_noise_of_any_batch_is_what_machine_code_takes(layer, shape):
    pytest.importorskip("numba")
    compiled = nn.compile(layer)
    for n in (2, 1, 3):
        x = np.ones((n, *shape), np.float32)
        nn.seed(n)
        expected = layer(x)
        nn.seed(n)
        assert_array_equal(compiled(x), expected)


class Pair(nn.Layer):
    """A layer of outputs that are computed, its input, and computed and needed."""

    def forward(self, x):
        self.cache(x)
        return 2 * x, x, np.tanh(x)

    def backward(self, grad, input_grad=True):
        (x,) = self.cached()
        return 2 * grad[0] + grad[1] + grad[2] * (1 - np.tanh(x) ** 2)


@form(Pair)
def pair(layer, code, x):
    y, z = code.new(x.shape), code.new(x.shape)
    for result, value in ((y, f"real(2) * {x}[i]"), (z, f"tanh({x}[i])")):
        code(nest({"i": x.size}, f"{result}[i] = {value}"))

    def backward(dy, _, dz):  # the gradient of the output x is added to the others
        with code.gradient(x) as dx:
            term = f"{dz}[i] * (real(1) - {z}[i] * {z}[i])"
            code(nest({"i": x.size}, f"{dx}[i] = real(2) * {dy}[i] + {term}"))

    return (y, x, z), backward


@pytest.mark.parametrize("native", [False, True])
def test_outputs_may_be_computed_given_and_needed_by_backward(native):
    if native:
        pytest.importorskip("numba")
    model = Pair()
    compiled = nn.compile(model, native=native)
    rng = np.random.default_rng(0)
    for size in (2, 2, 5, 2):
        x, *grads = rng.normal(size=(4, size, 3)).astype(np.float32)
        for one, other in zip(compiled(x), model(x), strict=True):
            assert_allclose(one, other, rtol=1e-5)
        assert_allclose(compiled.backward(grads), model.backward(grads), rtol=1e-4, atol=1e-6)
        for one, other in zip(nn.predict(compiled, x), model(x), strict=True):
            assert_allclose(one, other, rtol=1e-5)
            assert not np.shares_memory(one, x)


@pytest.mark.parametrize("width", [4, 20_000])
def test_small_variables_of_a_backward_share_an_array(width):
    model = nn.Sequential(nn.Linear(3, width, rng=0), nn.Tanh(), nn.Linear(width, 2, rng=0))
    compiled = nn.compile(model, native=False)
    x, grad = np.ones((2, 3), np.float32), np.ones((2, 2), np.float32)
    assert_allclose(compiled(x), model(x), rtol=1e-4)
    assert_allclose(compiled.backward(grad), model.backward(grad), rtol=1e-4, atol=1e-5)
    assert ("y_1 = part(kept, 0, n * 4)" in compiled.source) == (width == 4)


@pytest.mark.parametrize("loss", [nn.CrossEntropy(), nn.Focal(), nn.MultiMargin()], ids=str)
def test_a_batch_may_have_a_class_for_each_sample(loss):
    nodes = {
        "first": (nn.Linear(4, 3, rng=0), "x"),
        "second": (nn.Linear(5, 3, rng=1), "y"),
        "columns": (nn.Permute(1, 0), "second"),
        "scores": (nn.MatMul(), "first", "columns"),
    }
    model = nn.Graph(nodes, ("x", "y"))
    gradients = nn.compile(model, loss, native=False)
    rng = np.random.default_rng(0)
    for n in (4, 6, 4):
        x, y = (rng.normal(size=(n, size)).astype(np.float32) for size in (4, 5))
        w, v = (model[name].weight.data for name in ("first", "second"))
        b, c = (model[name].bias.data for name in ("first", "second"))
        expected = loss((x @ w.T + b) @ (y @ v.T + c).T, np.arange(n))
        assert gradients((x, y), np.arange(n)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "layer",
    [nn.LSTM(3, 2, rng=0), nn.AvgPool1d(2), nn.ReflectionPad1d(1), nn.Reshape(2, -1),
     nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool1d(2)],
    ids=str,
)  # fmt: skip
def test_an_axis_of_features_may_be_as_long_as_the_batch(layer):
    model = nn.Graph({"sum": (nn.Add(), "x", "bias"), "y": (layer, "sum")}, ("x", "bias"))
    compiled = nn.compile(model, native=False)
    rng, bias = np.random.default_rng(0), np.arange(3, dtype=np.float32)
    for n in (2, 3, 4):
        x = rng.normal(size=(n, 4, 1)).astype(np.float32)
        assert_allclose(compiled(x, bias), layer(x + bias), rtol=1e-5)


def test_samples_may_share_an_input_of_any_size():
    nodes = {
        "read": (nn.MultiheadAttention(4, 2, rng=0), "x", {"attn_mask": "mask"}),
        "first": (nn.Slice(0, 1), "read"),
        "y": (nn.Flatten(), "first"),
    }
    model, loss = nn.Graph(nodes, ("x", "mask")), nn.MeanSquaredError()
    gradients = nn.compile(model, loss, native=False)
    rng, mask = np.random.default_rng(0), np.triu(np.ones((5, 5), bool), 1)
    for n in (2, 3, 5, 30):
        x, targets = (rng.normal(size=(n, *size)).astype(np.float32) for size in ((5, 4), (4,)))
        alone = model(x[:, :1], mask[:1, :1])  # what the first step can read
        assert gradients((x, mask), targets) == pytest.approx(loss(alone, targets), rel=1e-5)


@pytest.mark.parametrize("kind", ["gradients", "step"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_prediction_may_be_one_number_for_the_whole_batch(kind, reduction):
    model, loss = nn.Sequential(nn.Linear(3, 2, rng=0), nn.Sum()), nn.MeanSquaredError(reduction)
    parts = {"gradients": (), "step": (nn.SGD(model.parameters(), lr=0),)}[kind]
    compiled = nn.compile(model, loss, *parts, native=False)
    for n in (1, 4):
        x = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
        error = model(x) - 0.5
        assert compiled(x, np.array(0.5)) == pytest.approx(error**2, rel=1e-5)
        assert_allclose(model[0].bias.grad, [2 * n * error] * 2, rtol=1e-5)
        model.zero_grad()
