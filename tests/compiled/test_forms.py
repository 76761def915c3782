"""The compiled form of each layer and loss gives the same results as the layer."""

import ast
import copy
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn
from nnlite.compiled.forms import FORMS, form
from nnlite.compiled.source import nest

from ..registry import LAYERS, LOSSES

assert nn.compile  # its module registers the forms
# Gaps are seen in the table of the docs.
CASES = [case for case in LAYERS if all(type(part) in FORMS for part in case.make().layers())]
TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 2e-5}, np.float64: {"rtol": 1e-11, "atol": 1e-11}}


def each_case(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def assert_same_layers(layer, compiled, inputs, rng, dtype):
    """Compare outputs, all gradients and buffers of one forward and backward."""
    expected, got = layer(*inputs), compiled(*inputs)
    assert got.dtype == expected.dtype
    assert_allclose(got, expected, **TOLERANCE[dtype])
    grad = rng.normal(size=expected.shape).astype(dtype)
    grads = zip(as_tuple(layer.backward(grad)), as_tuple(compiled.backward(grad)), strict=True)
    for one, other in grads:
        assert (one is None) == (other is None)
        if one is not None:
            assert_allclose(other, one, **TOLERANCE[dtype])
    for one, other in zip(layer.parameters(), compiled.parameters(), strict=True):
        assert_allclose(other.grad, one.grad, **TOLERANCE[dtype])
    for one, other in zip(layer.state_dict().values(), compiled.state_dict().values(), strict=True):
        assert_allclose(other, one, **TOLERANCE[dtype])


@each_case(CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_as_plain_python(case, dtype):
    rng = np.random.default_rng(0)
    layer = case.make().astype(dtype)
    compiled = nn.compile(copy.deepcopy(layer), native=False)
    for batch in (4, 3):  # the second adds to the gradients of the first
        inputs = case.inputs(rng, batch)
        if case.takes_floats:
            inputs = tuple(x.astype(dtype) for x in inputs)
        assert_same_layers(layer, compiled, inputs, rng, dtype)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (
            nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, rng=0), nn.MaxPool2d(2, ceil_mode=True)),
            (2, 5, 6),
        ),
        (nn.AvgPool1d(3, 2, 1), (2, 20)),
        (nn.LSTM(3, 4, bidirectional=True, rng=0), (5, 3)),
        (nn.GRU(3, 4, outputs="last", truncate=2, rng=0), (5, 3)),
        (nn.GRUCell(3, 4, rng=0), (3,)),
        (
            nn.Graph(
                {
                    "s": (nn.LSTMCell(3, 4), "x"),
                    "t": (nn.LSTMCell(3, 4), "x", "s.0", "s.1"),
                    "y": (nn.Concatenate(), "t.0", "t.1"),
                }
            ),
            (3,),
        ),
    ],
    ids=repr,
)
def test_a_layer_as_machine_code(layer, shape):
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    compiled = nn.compile(copy.deepcopy(layer))
    for batch in (4, 3):
        x = rng.normal(size=(batch, *shape)).astype(np.float32)
        assert_same_layers(layer, compiled, (x,), rng, np.float32)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.BatchNorm1d(3), (20, 3)), (nn.BatchNorm2d(3), (5, 3, 7, 9))]
)
def test_batch_norm_of_values_far_from_zero_as_machine_code(layer, shape, training):
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    x = (1000 + rng.normal(size=shape)).astype(np.float32)
    x[1] += 50
    grad = rng.normal(size=shape).astype(np.float32)
    layer = copy.deepcopy(layer)
    if not training:
        layer.running_mean[:] = 1000.1
        layer.eval()
    twin = copy.deepcopy(layer).astype(np.float64)
    compiled = nn.compile(layer)
    assert_allclose(compiled(x), twin(x.astype(np.float64)), rtol=1e-5, atol=1e-5)
    assert_allclose(compiled.backward(grad), twin.backward(grad), rtol=1e-4, atol=1e-5)
    for name, array in layer.named_parameters():
        other = dict(twin.named_parameters())[name]
        assert_allclose(array.grad, other.grad, rtol=1e-4, atol=1e-4, err_msg=name)
    assert_allclose(layer.running_var, twin.running_var, rtol=1e-5)


@each_case(CASES)
def test_no_form_assigns_arrays_to_slices(case):
    """Numba takes a hundred times longer for such a statement than for the loop."""
    layer = case.make().astype(np.float64)
    compiled = nn.compile(layer, native=False)
    inputs = case.inputs(np.random.default_rng(0), 4)
    compiled.backward(compiled(*inputs))
    for node in ast.walk(ast.parse(compiled.source)):
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = {type(part) for target in targets for part in ast.walk(target)}
            is_number = isinstance(node.value, (ast.Constant, ast.UnaryOp))
            assert ast.Slice not in parts or is_number, ast.unparse(node)


@each_case(CASES)
def test_a_layer_keeps_its_cache_through_the_first_call_of_the_compiled_one(case):
    rng = np.random.default_rng(0)
    layer = case.make().astype(np.float64)
    twin = copy.deepcopy(layer)
    inputs = case.inputs(rng, 4)
    y, expected = layer(*inputs), twin(*inputs)
    nn.compile(layer, native=False)(*case.inputs(rng, 3))
    grad = rng.normal(size=y.shape)
    grads = zip(as_tuple(layer.backward(grad)), as_tuple(twin.backward(grad)), strict=True)
    for one, other in [(y, expected), *grads]:
        assert_array_equal(one, other)


@each_case(CASES)
def test_a_layer_in_evaluation(case):
    rng = np.random.default_rng(0)
    layer = case.make().astype(np.float64)
    layer(*case.inputs(rng, 4))  # it may move running statistics
    layer.eval()
    compiled = nn.compile(copy.deepcopy(layer), native=False)
    assert_same_layers(layer, compiled, case.inputs(rng, 4), rng, np.float64)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(3), (4, 3)),
        (nn.BatchNorm2d(3, momentum=None), (4, 3, 2, 2)),
        (nn.InstanceNorm1d(3, track_running_stats=True), (4, 3, 5)),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_batch_that_overflows_does_not_enter_the_running_statistics(layer, shape, value):
    layer = copy.deepcopy(layer)
    before = {name: array.copy() for name, array in layer.state_dict().items()}
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    x.flat[7] = value
    with np.errstate(all="ignore"):
        nn.compile(layer, native=False)(x)
    for name, array in layer.state_dict().items():
        assert_array_equal(array, before[name], err_msg=name)


def test_the_gradient_of_a_power_of_0_is_0_at_0_too():
    compiled = nn.compile(nn.Power(0.0), native=False)
    assert compiled(np.array([[0.0, 2.0]])).tolist() == [[1.0, 1.0]]
    assert compiled.backward(np.ones((1, 2))).tolist() == [[0.0, 0.0]]


RECURRENT = {
    "RNN": lambda: nn.RNN(3, 4, bidirectional=True, rng=0),
    "LSTM": lambda: nn.LSTM(3, 4, num_layers=2, truncate=2, rng=0),
    "LSTM, last": lambda: nn.LSTM(3, 4, outputs="last", bidirectional=True, rng=0),
    "GRU": lambda: nn.GRU(3, 4, num_layers=2, bidirectional=True, rng=0),
    "GRU, last": lambda: nn.GRU(3, 4, outputs="last", bias=False, truncate=3, rng=0),
}


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(3), (20, 3)),
        (nn.BatchNorm2d(2), (4, 2, 3, 3)),
        (nn.LayerNorm(30), (2, 30)),
        (nn.GroupNorm(2, 4), (2, 4, 3, 3)),
        (nn.InstanceNorm1d(2, track_running_stats=True), (2, 2, 30)),
    ],
    ids=lambda given: type(given).__name__,
)
def test_norms_of_values_far_from_0_are_accurate(layer, shape):
    rng = np.random.default_rng(0)
    x, grad = (1e5 + rng.normal(size=shape)).astype(np.float32), rng.normal(size=shape)
    exact = copy.deepcopy(layer).astype(np.float64)
    compiled = nn.compile(layer, native=False)
    assert_allclose(compiled(x), exact(x.astype(np.float64)), rtol=1e-5, atol=1e-6)
    assert_allclose(
        compiled.backward(grad.astype(np.float32)), exact.backward(grad), rtol=1e-4, atol=1e-5
    )
    for one, other in zip(layer.parameters(), exact.parameters(), strict=True):
        assert_allclose(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def assert_masks_hold(layer, native):
    rng = np.random.default_rng(0)
    names = ("x", "h", "c") if isinstance(layer, nn.LSTM) else ("x", "h")
    graph = nn.Graph(
        {"y": (layer, *names, {"mask": "present"})}, inputs=[*names, "present"], outputs=["y"]
    )
    compiled = nn.compile(copy.deepcopy(graph), native=native)
    runs = layer.num_layers * (2 if layer.bidirectional else 1)
    for batch in (4, 3):
        present = rng.random((batch, 5)) < 0.6
        present[0] = False
        x = rng.normal(size=(batch, 5, 3))
        x[~present] = np.nan  # what is masked does not count
        states = [rng.normal(size=(runs, batch, 4)) for _ in names[1:]]
        assert_same_layers(graph, compiled, (x, *states, present), rng, np.float64)
        for one, other in zip(
            as_tuple(layer.last_state), as_tuple(compiled.model["y"].last_state), strict=True
        ):
            assert_allclose(other, one, **TOLERANCE[np.float64])


@pytest.mark.parametrize("name", RECURRENT)
def test_masks_of_sequences(name):
    assert_masks_hold(RECURRENT[name]().astype(np.float64), native=False)


def test_masks_of_sequences_as_machine_code():
    pytest.importorskip("numba")
    assert_masks_hold(nn.LSTM(3, 4, rng=0).astype(np.float64), native=True)


# A loss of several numbers has no compiled form.
@each_case([case for case in LOSSES if case.make().reduction != "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_as_plain_python(case, weighted):
    loss = case.make()
    rng = np.random.default_rng(0)
    prediction, target = case.prediction(rng, 4), case.target(rng, 4)
    weights = (np.array([0.5, 2.0, 1.0, 0.25]),) if weighted else ()
    # The shift uses the input in the backward too.
    model = nn.Graph(
        {
            "y": (nn.Add(), "x", "s"),
            "s": (nn.Multiply(), "x", "shift"),
            "shift": nn.Weight(np.zeros(prediction.shape)),
        }
    )
    compiled = nn.compile(model, loss, native=False)
    assert compiled(prediction, target, *weights) == pytest.approx(
        loss(prediction, target, *weights)
    )
    assert_allclose(model["shift"].weight.grad, prediction * loss.backward(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("options", [{}, {"pos_weight": 9.0}, {"weight": 9.0}], ids=str)
def test_a_probability_of_0_or_1_passes_no_gradient_to_a_sigmoid(options, target):
    model = nn.Sequential(nn.Linear(1, 1, rng=0), nn.Sigmoid())
    model[0].weight.data = [[800.0]]
    loss = nn.BinaryCrossEntropy(from_logits=False, **options)
    x = np.full((2, 1), 1 - 2 * target, np.float32)  # the probability is wrong
    nn.compile(model, loss, native=False)(x, np.full((2, 1), target))
    assert [*model[0].weight.grad, *model[0].bias.grad] == [0, 0]


@pytest.mark.parametrize("name", ["CrossEntropy", "Focal", "MultiMargin", "MeanSquaredError"])
def test_a_sum_of_losses_may_have_weights_of_0_alone(name):
    loss = getattr(nn, name)("sum")
    numbers = np.random.default_rng(0).normal(size=(4, 3))
    target = numbers if name == "MeanSquaredError" else np.array([0, 1, 2, 0])
    model = nn.Linear(3, 3, rng=0).astype(np.float64)
    assert nn.compile(model, loss, native=False)(numbers, target, np.zeros(4)) == 0
    assert all(not parameter.grad.any() for parameter in model.parameters())


OF_SEVERAL = {
    "GaussianNLL": (nn.GaussianNLL(), ((2, 3), (2, 3)), "numbers"),
    "GaussianNLL, sum": (nn.GaussianNLL("sum", full=True, eps=0.5), ((3,), (1,)), "numbers"),
    "GaussianNLL of shared variances": (nn.GaussianNLL(eps=0.5), ((2, 3), (2,)), "numbers"),
    "CosineEmbedding": (nn.CosineEmbedding(), ((4,), (4,)), "signs"),
    "CosineEmbedding of sequences": (
        nn.CosineEmbedding("sum", margin=0.2), ((2, 4), (2, 4)), "signs"
    ),
    "TripletMargin": (nn.TripletMargin(), ((4,),) * 3, None),
    "TripletMargin of sequences": (
        nn.TripletMargin("sum", 2.0, 3.0, swap=True), ((2, 4),) * 3, None
    ),
    "TripletMargin, p=1": (nn.TripletMargin(p=1, swap=True), ((4,),) * 3, None),
}  # fmt: skip


def of_several(name):
    """Return a model of an output for each prediction of a loss, inputs, and what follows."""
    loss, shapes, kind = OF_SEVERAL[name]
    rng = np.random.default_rng(0)
    inputs = tuple(rng.normal(size=(6, *shape)) for shape in shapes)
    names = [f"x{i}" for i in range(len(shapes))]
    # The second is above zero: a variance, if there are any.
    nodes = {
        f"y{i}": (
            nn.Sequential(nn.Linear(shape[-1], shape[-1]), nn.Softplus() if i == 1 else nn.Tanh()),
            name,
        )
        for i, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }
    model = nn.Graph(nodes, inputs=names, outputs=[*nodes]).astype(np.float64)
    target = {
        "numbers": rng.normal(size=(6, *shapes[0])),
        "signs": rng.choice([-1.0, 1.0], size=(6, *shapes[0][:-1])),
        None: None,
    }[kind]
    return model, copy.deepcopy(loss), inputs, target


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", OF_SEVERAL)
def test_a_loss_of_several_predictions(name, weighted):
    model, loss, inputs, target = of_several(name)
    twin = copy.deepcopy(model)
    weights = np.array([0.5, 2.0, 1.0, 0.25, 0.0, 1.0]) if weighted else None
    compiled = nn.compile(model, loss, native=False)
    given = [each for each in (target, weights) if each is not None]
    value = compiled(inputs, target, weights)
    assert value == pytest.approx(loss.of_outputs(twin(*inputs), *given))
    twin.backward(loss.backward())
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_allclose(one.grad, other.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["GaussianNLL", "CosineEmbedding", "TripletMargin"])
def test_a_step_with_a_loss_of_several_predictions_as_machine_code(name):
    pytest.importorskip("numba")
    model, loss, inputs, target = of_several(name)
    twin = copy.deepcopy(model)
    step = nn.compile(model, loss, nn.SGD(model.parameters(), lr=0.1))
    optimizer = nn.SGD(twin.parameters(), lr=0.1)
    given = [] if target is None else [target]
    for _ in range(2):
        assert step(inputs, *given) == pytest.approx(loss.of_outputs(twin(*inputs), *given))
        optimizer.zero_grad()
        twin.backward(loss.backward(), input_grad=False)
        optimizer.step()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_allclose(one.data, other.data, rtol=1e-9)


def test_the_number_of_outputs_is_that_of_the_loss():
    model, _, inputs, target = of_several("GaussianNLL")
    compiled = nn.compile(model, nn.MeanSquaredError(), native=False)
    with pytest.raises(TypeError, match="got a tuple of 2"):
        compiled(inputs, target)
    compiled = nn.compile(nn.Linear(3, 3), nn.GaussianNLL(), native=False)
    with pytest.raises(TypeError, match="expected a model of 2 outputs"):
        compiled(np.ones((6, 3)), np.ones((6, 3)))


@pytest.mark.parametrize("order", [("a", "i", "b"), ("a", "b", "i"), ("b", "a", "i")])
def test_an_output_may_be_two_inputs_of_a_loss(order):
    nodes = {"a": (nn.Linear(3, 4, rng=0), "x"), "b": (nn.Linear(3, 4, rng=1), "z")}
    model = nn.Graph({**nodes, "i": (nn.Identity(), "a")}, ("x", "z"), order).astype(np.float64)
    loss, rng = nn.TripletMargin(margin=3), np.random.default_rng(0)
    inputs = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    expected = loss(*model(*inputs))
    model.backward(loss.backward(), input_grad=False)
    grads = [parameter.grad.copy() for parameter in model.parameters()]
    model.zero_grad()
    assert nn.compile(model, loss, native=False)(inputs) == pytest.approx(expected)
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert_allclose(parameter.grad, grad, rtol=1e-12, atol=1e-14)


def test_a_negative_variance_is_named():
    model, loss, inputs, target = of_several("GaussianNLL")
    model = nn.Graph({"a": (nn.Linear(3, 3), "x"), "b": (nn.Negative(), "v")},
                     inputs=("x", "v"), outputs=("a", "b"))  # fmt: skip
    with pytest.raises(ValueError, match="expected variances of at least 0"):
        nn.compile(model, loss, native=False)((inputs[0], np.abs(inputs[1])), target)


def test_gradcheck_of_a_compiled_model():
    nn.seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Tanh(), nn.MaxPool2d(2)),
        *(nn.Flatten(2), nn.LSTM(4, 3, outputs="last"), nn.Linear(3, 2)),
    )
    x = np.random.default_rng(0).normal(size=(3, 1, 4, 4))
    assert nn.gradcheck(nn.compile(model, native=False), x)


def test_a_copy_of_a_compiled_model_computes_with_its_own_parameters():
    layer = nn.Linear(2, 1, rng=0)
    compiled = nn.compile(layer, native=False)
    x = np.ones((1, 2), np.float32)
    before = compiled(x)
    copied = copy.deepcopy(compiled)
    copied.model.weight.data[...] = 0
    assert copied(x) == layer.bias.data
    assert compiled(x) == before


@pytest.mark.parametrize(
    ("layer", "option", "value"),
    [
        (nn.LeakyReLU(0.1), "negative_slope", 0.5),
        (nn.LayerNorm(3), "eps", 1.0),
        (nn.MaxPool1d(3, 1, 1), "padding", 0),
        (nn.Dropout(0.5), "p", 0.0),
    ],
)
def test_an_option_that_was_changed_holds_from_the_next_call_on(layer, option, value):
    compiled = nn.compile(layer, native=False)
    x = np.random.default_rng(0).normal(size=(2, 1, 3)).astype(np.float32)
    compiled(x)
    setattr(layer, option, value)
    assert_allclose(compiled(x), layer(x), rtol=1e-6)


class Careless(nn.Identity):
    """A layer whose form assigns to names that are taken."""


def test_variables_of_a_form_cannot_clash_with_other_names():
    names = [
        "n",
        "x",
        "y",
        "weight",
        "d_weight",
        "y_2",
        "real_",
        "exp",
        "loss",
        "norm",
        "mean",
        "square",
    ]

    def spoil(code):
        for name in names:
            code(f"{name} = [1]\n{name}.append({name}[0])")

    @form(Careless)
    def careless(layer, code, x):
        spoil(code)
        # Two of each, of the kinds of names that arguments have.
        for stem in ("n", "x_norm", "x_norm", "group0_lr", "group0_lr", "grad"):
            code(f"{code.name(stem)} = 0")
        y = code.new(x.shape)
        code(f"{y}[:] = {x}")

        def backward(dy):
            spoil(code)
            code.pass_gradient(x, dy)

        return y, backward

    def graph(kind):
        names_of_layers = {
            "y": (nn.LayerNorm(3), "x"),
            "weight": (kind(), "y"),
            "norm": (nn.Linear(3, 3, rng=0), "weight"),
            "loss": (kind(), "norm"),
        }
        return nn.Graph(names_of_layers)

    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    for layer in (graph(Careless), nn.Sequential(Careless(), nn.LayerNorm(3), Careless())):
        compiled = nn.compile(copy.deepcopy(layer), native=False)
        assert_same_layers(layer, compiled, (x,), np.random.default_rng(0), np.float32)
    values = []
    for kind in (Careless, nn.Identity):
        model = nn.Sequential(kind(), nn.BatchNorm1d(3), kind(), nn.Linear(3, 3, rng=0), kind())
        step = nn.compile(model, nn.CrossEntropy(), nn.Adam(model.parameters()), native=False)
        values += [[step(x, np.array([0, 1])) for _ in range(3)]]
    assert values[0] == values[1]


def test_comments_and_messages_keep_their_words():
    model = nn.Linear(3, 3)  # whose loss has a variable `norm`, as the clipping has
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    step = nn.compile(model, nn.CrossEntropy(), optimizer, max_grad_norm=2.0, native=False)
    step(np.zeros((2, 3), np.float32), np.array([0, 1]))
    assert "# gradients of a norm above 2 are scaled to it" in step.source
    assert "'clip_grad_norm: the norm of the gradients is not finite'" in step.source


def test_a_backward_that_reads_a_variable_of_its_forward_is_an_error():
    @form(Careless)
    def careless(layer, code, x):
        code("mine = 1")
        return x, lambda dy: code("theirs = mine")

    with pytest.raises(NameError, match=r"reads 'mine', .* those of code\.name"):
        nn.compile(Careless(), native=False)(np.ones((1, 2), np.float32))


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda code, x: None, TypeError, r"of Careless\(\) must return its output.*got \(None,\)"),
        (lambda code, x: (x, "back"), TypeError, r"of Careless\(\) must return its output"),
        (lambda code, x: code.new(x.shape), TypeError, r"Careless\(\) returns no function that"),
        (lambda code, x: code("a b"), SyntaxError, r"of Careless\(\): invalid syntax .*\na b$"),
        (
            lambda code, x: code("a = 1; b = 2"),
            SyntaxError,
            r"one statement in each line:\na = 1; b",
        ),
    ],
    ids=["nothing", "no function", "no backward", "no Python", "two statements"],
)
def test_a_form_with_a_fault_is_named(returned, error, message):
    @form(Careless)
    def careless(layer, code, x):
        return returned(code, x)

    model = nn.Sequential(nn.Linear(2, 2, rng=0), Careless())
    with pytest.raises(error, match=message):
        nn.compile(model, native=False)(np.ones((1, 2), np.float32))


def test_a_graph_may_return_its_input_and_what_has_no_gradient():
    embedding = nn.Embedding(5, 3, rng=0)
    embedding.weight.requires_grad = False
    nodes = {"e": (embedding, "i"), "u": (nn.Unsqueeze(1), "x")}
    compiled = nn.compile(nn.Graph(nodes, ("x", "i"), ("e", "u")), native=False)
    x, i = np.ones((2, 3), np.float32), np.array([4, 1])
    e, u = compiled(x, i)
    assert_array_equal(e, embedding.weight.data[i])
    assert_array_equal(u, x[:, None])
    dx, di = compiled.backward((None, 2 * u))
    assert_array_equal(dx, 2 * x)
    assert di is None


class Half(nn.Layer):
    """A layer that returns the first half of the features."""

    def forward(self, x):
        self.cache(x)
        return x[:, : x.shape[1] // 2]

    def backward(self, grad, input_grad=True):
        return np.concatenate([grad, 0 * grad], axis=1)


FALSE_SHAPES = {
    "all features": (lambda code, x: code.new(x.shape), "(3, 4)"),
    "other axes": (lambda code, x: code.new(x.shape[::-1]), "(4, 3)"),
    "an axis more": (lambda code, x: code.new((x.shape[0], 2, 1)), "(3, 2, 1)"),
    "nothing": (lambda code, x: code.new((x.shape[0], 0)), "(3, 0)"),
    "a scalar": (lambda code, x: code.new(()), "()"),
    "two outputs": (lambda code, x: (code.new((x.shape[0], 2)),) * 2, "((3, 2), (3, 2))"),
}


@pytest.mark.parametrize("kind", ["model", "gradients", "step"])
@pytest.mark.parametrize("name", FALSE_SHAPES)
def test_a_form_that_declares_another_shape_than_that_of_forward_is_an_error(name, kind):
    made, shape = FALSE_SHAPES[name]

    @form(Half)
    def half(layer, code, x):
        return made(code, x), lambda *dy: None

    model = nn.Sequential(nn.Linear(3, 4, rng=0), Half(), nn.Linear(2, 1, rng=0))
    loss = nn.MeanSquaredError()
    parts = {"model": (), "gradients": (loss,), "step": (loss, nn.SGD(model.parameters(), lr=1))}
    compiled = nn.compile(model, *parts[kind], native=False)
    message = rf"form of Half() ('1' in the model) declares the shape {shape} for its output, "
    message += "but forward returned (3, 2)"
    with pytest.raises(TypeError, match=re.escape(message)):
        compiled(np.ones((3, 3), np.float32), *[np.ones((3, 1), np.float32)] * (kind != "model"))


def test_an_input_cannot_be_an_output_of_another_size():
    @form(Half)
    def half(layer, code, x):
        return x.with_shape((x.shape[0], 2)), lambda dy: None

    message = r"Half\(\) returns its input of shape \(3, 4\) with the shape \(3, 2\); .* code\.new$"
    with pytest.raises(TypeError, match=message):
        nn.compile(Half(), native=False)(np.ones((3, 4), np.float32))


def test_a_form_with_the_shape_of_forward_is_right_for_all_batch_sizes():
    @form(Half)
    def half(layer, code, x):
        y = code.new((x.shape[0], x.shape[1] // 2))
        code(nest({"i": x.shape[0], "j": 2}, f"{y}[2 * i + j] = {x}[4 * i + j]"))
        return y, lambda dy: None

    compiled = nn.compile(Half(), native=False)
    for n in (1, 3, 5):
        x = np.arange(4 * n, dtype=np.float32).reshape(n, 4)
        assert_array_equal(compiled(x), x[:, :2])
