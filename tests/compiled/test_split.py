"""A batch that is divided among threads has the gradients of the whole batch."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose

import nnlite as nn
from nnlite.compiled import split, steps
from nnlite.compiled.forms import FORMS, form
from nnlite.compiled.gradients import LossProgram
from nnlite.compiled.models import ModelProgram

from ..registry import LAYERS, LOSSES
from .division import divide

assert nn.compile  # its module registers the forms
LAYER_CASES = [case for case in LAYERS if all(type(part) in FORMS for part in case.make().layers())]
LOSS_CASES = [
    case for case in LOSSES if type(case.make()) in FORMS and case.make().reduction != "none"
]


@pytest.fixture(autouse=True, params=["parts", "samples"])
def chunks(request, monkeypatch):
    """Three threads, each of which computes its part as one chunk, or sample after sample."""
    divide(monkeypatch, 3, request.param == "samples")
    monkeypatch.setattr(steps, "_SHARED", 0)
    monkeypatch.setattr(steps, "share", in_three_parts)
    return request.param


def in_three_parts(work, length, size):
    for part in range(3):
        work(length * part // 3, length * (part + 1) // 3)


def mlp():
    nn.seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).astype(np.float64)


LOSSES = {
    "mean": (nn.CrossEntropy(), False),
    "sum": (nn.CrossEntropy(reduction="sum"), False),
    "class weights": (nn.CrossEntropy(weight=[1.0, 5.0, 0.1], ignore_index=2), True),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n", [2, 3, 8])
def test_gradients(name, n, chunks):
    loss, weighted = LOSSES[name]
    rng = np.random.default_rng(n)
    x, labels = rng.normal(size=(n, 4)), np.arange(n) % 2
    weights = (rng.uniform(0.1, 2, size=n),) if weighted else ()
    model = mlp()
    twin = copy.deepcopy(model)
    compiled = nn.compile(model, loss, native=False)
    assert compiled(x, labels, *weights) == pytest.approx(loss(twin(x), labels, *weights))
    parts = compiled._programs.latest._division.chunks(n)
    assert len(parts) == min(n, 3)
    assert sum(map(len, parts)) == (n if chunks == "samples" else len(parts))
    twin.backward(loss.backward())
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_allclose(one.grad, other.grad, rtol=1e-10, atol=1e-13)


def assert_divided(model, loss, inputs, *others, is_divided=True):
    """Compare the gradients of a batch of 7, which is divided or not, with the layers' own."""
    twin, seed = copy.deepcopy(model), 3
    compiled = nn.compile(model, loss, native=False)
    nn.seed(seed)
    value = compiled(inputs, *others)
    assert (len(compiled._programs.latest._division.chunks(7)) == 3) == is_divided
    nn.seed(seed)
    assert value == pytest.approx(loss.of_outputs(twin(*inputs), *others))
    twin.backward(loss.backward())
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert_allclose(one.grad, other.grad, rtol=1e-9, atol=1e-12)
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):
        assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", LAYER_CASES, ids=lambda case: case.name)
def test_a_layer_is_divided_unless_its_samples_depend_on_each_other(case):
    """Layers that draw do so for the whole batch before; batch norm sums over the parts."""
    rng = np.random.default_rng(0)
    model, inputs = case.make().astype(np.float64), case.inputs(rng, 7)
    output = copy.deepcopy(model)(*inputs)
    if isinstance(output, tuple):
        pytest.skip("a loss takes one output")
    loss, target = nn.MeanSquaredError(), rng.normal(size=output.shape)
    is_divided = (case.per_sample or not case.repeats_itself) and not list(model.buffers())
    is_divided |= isinstance(model, (nn.BatchNorm1d, nn.BatchNorm2d))
    assert_divided(model, loss, inputs, target, is_divided=is_divided)


@pytest.mark.parametrize("case", LOSS_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_loss_is_divided(case, weighted):
    rng = np.random.default_rng(0)
    prediction, target = case.prediction(rng, 7), case.target(rng, 7)
    weights = (rng.uniform(0.1, 2, size=7),) if weighted else ()
    width = prediction.size // 7
    linear = nn.Linear(width, width).astype(np.float64)
    linear.weight.data, linear.bias.data = np.eye(width), np.zeros(width)
    model = nn.Sequential(nn.Flatten(), linear, nn.Reshape(*prediction.shape[1:]))
    assert_divided(model, case.make(), (prediction,), target, *weights)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_of_two_predictions_is_divided(weighted):
    rng = np.random.default_rng(0)
    nodes = {
        "mean": (nn.Linear(4, 3), "x"),
        "log": (nn.Linear(4, 1), "x"),
        "var": (nn.Exp(), "log"),
    }
    model = nn.Graph(nodes, outputs=("mean", "var")).astype(np.float64)
    weights = (rng.uniform(0.1, 2, size=7),) if weighted else ()
    assert_divided(
        model, nn.GaussianNLL(), (rng.normal(size=(7, 4)),), rng.normal(size=(7, 3)), *weights
    )


def test_a_part_in_which_no_label_counts():
    loss = nn.CrossEntropy(ignore_index=1)
    x, labels = np.random.default_rng(0).normal(size=(6, 4)), np.array([1, 1, 0, 2, 0, 0])
    model = mlp()
    assert nn.compile(model, loss, native=False)(x, labels) == pytest.approx(loss(model(x), labels))


def test_clipping_is_by_the_norm_of_the_parameters_of_the_optimizer():
    loss, rng = nn.MeanSquaredError(), np.random.default_rng(0)
    model = mlp()
    twin = copy.deepcopy(model)
    optimizer, other = (nn.SGD(each[2].parameters(), lr=0.1) for each in (model, twin))
    step = nn.compile(model, loss, optimizer, max_grad_norm=0.05, native=False)
    x, y = rng.normal(size=(7, 4)), rng.normal(size=(7, 3))
    for _ in range(2):
        step(x, y)
        other.zero_grad()
        loss(twin(x), y)
        twin.backward(loss.backward(), input_grad=False)
        nn.clip_grad_norm(twin[2].parameters(), 0.05)
        other.step()
    assert_allclose(model[2].weight.data, twin[2].weight.data, rtol=1e-9)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
def test_a_step(native, max_grad_norm):
    if native:
        pytest.importorskip("numba")
    loss, rng = nn.MeanSquaredError(), np.random.default_rng(0)
    model = mlp()
    twin = copy.deepcopy(model)
    optimizer, other = (nn.Adam(each.parameters(), lr=0.01) for each in (model, twin))
    step = nn.compile(model, loss, optimizer, max_grad_norm=max_grad_norm, native=native)
    for n in (7, 7, 2, 1, 7):
        x, y = rng.normal(size=(n, 4)), rng.normal(size=(n, 3))
        assert step(x, y) == pytest.approx(loss(twin(x), y))
        other.zero_grad()
        twin.backward(loss.backward(), input_grad=False)
        if max_grad_norm is not None:
            nn.clip_grad_norm(twin.parameters(), max_grad_norm)
        other.step()
    for one, another in zip(model.parameters(), twin.parameters(), strict=True):
        assert_allclose(one.data, another.data, rtol=1e-9)
        assert_allclose(one.grad, another.grad, rtol=1e-9)
    assert "def update(" in step.source


def assert_same_steps(model, step, loss, optimizer, sizes):
    """Compare steps with batches of these sizes with those of a twin, which has the optimizer."""
    twin, optimizer = optimizer
    rng = np.random.default_rng(0)
    for n in sizes:
        x, labels = rng.normal(size=(n, 4)), np.arange(n) % 3
        value = step(x, labels)
        optimizer.zero_grad()
        assert value == pytest.approx(loss(twin(x), labels))
        twin.backward(loss.backward())
        optimizer.step()
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            assert_allclose(one.data, other.data, rtol=1e-9, atol=1e-13)
            assert_allclose(one.grad, other.grad, rtol=1e-9, atol=1e-13)
        for one, other in zip(model.buffers(), twin.buffers(), strict=True):
            assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("native", [False, True])
def test_one_thread_computes_the_chunks_of_a_large_batch(native, monkeypatch):
    if native:
        pytest.importorskip("numba")
    monkeypatch.setattr(split, "threads_of_products", lambda: 1)
    numbers = 2 * 6 + 3 + 3  # of a sample: the outputs of the layers and the probabilities
    monkeypatch.setattr(split, "_CACHED", 4 * numbers * 8)
    monkeypatch.setattr(split, "_TIMES", 0)
    calls = sizes_of_calls(monkeypatch, LossProgram)
    model = mlp()
    twin = copy.deepcopy(model)
    loss, optimizers = nn.CrossEntropy(), [nn.Adam(each.parameters()) for each in (model, twin)]
    step = nn.compile(model, loss, optimizers[0], native=native)
    assert_same_steps(model, step, loss, (twin, optimizers[1]), (10, 10, 4, 9))
    sizes = [n for name, n in calls if name == "gradients"]
    assert sizes == [4, 4, 2, 4, 4, 2, 4, 3, 3, 3]


@pytest.mark.parametrize("layers", [(), (nn.BatchNorm1d(6),)], ids=["MLP", "batch norm"])
def test_the_first_batch_does_not_decide_whether_larger_ones_are_divided(layers, monkeypatch):
    monkeypatch.setattr(split, "_WAITING", 400)  # of 126 multiply-adds a sample
    monkeypatch.setattr(split, "_CACHED", 1 << 23)
    model = mlp()
    model = nn.Sequential(model[0], *copy.deepcopy(layers), *model[1:]).astype(np.float64)
    twin = copy.deepcopy(model)
    loss, optimizers = nn.CrossEntropy(), [nn.SGD(m.parameters(), lr=0.1) for m in (model, twin)]
    step = nn.compile(model, loss, optimizers[0], native=False)
    programs = []
    for n in (2, 7, 2, 40, 3):
        assert_same_steps(model, step, loss, (twin, optimizers[1]), [n])
        programs.append(step._programs.latest)
    small, large = programs[:2]
    assert programs == [small, large, small, large, small]
    assert isinstance(large, steps.DividedStepProgram)
    assert not isinstance(small, steps.DividedStepProgram)


def test_threads_move_parts_of_the_parameters_of_each_group():
    loss, rng = nn.MeanSquaredError(), np.random.default_rng(0)
    model = mlp()
    twin = copy.deepcopy(model)
    optimizer, other = (
        nn.Adam([{"params": each[0].parameters()}, {"params": [each[2].bias], "lr": 0.1}], lr=0.01)
        for each in (model, twin)
    )
    step = nn.compile(model, loss, optimizer, native=False)
    for _ in range(3):
        x, y = rng.normal(size=(7, 4)), rng.normal(size=(7, 3))
        assert step(x, y) == pytest.approx(loss(twin(x), y))
        other.zero_grad()
        twin.backward(loss.backward(), input_grad=False)
        other.step()
    for one, another in zip(model.parameters(), twin.parameters(), strict=True):
        assert_allclose(one.data, another.data, rtol=1e-9)


def test_a_step_that_moves_nothing():
    model = mlp().requires_grad_(False)
    step = nn.compile(model, nn.MeanSquaredError(), nn.Adam(model.parameters()), native=False)
    x, y = np.ones((7, 4)), np.ones((7, 3))
    assert step(x, y) == step(x, y) == pytest.approx(nn.MeanSquaredError()(model(x), y))


def normalized():
    nn.seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1),
        nn.Residual(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(36, 5), nn.BatchNorm1d(5, momentum=None), nn.Tanh(),
        nn.Linear(5, 3),
    ).astype(np.float64)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "native"), [*((name, False) for name in LOSSES), ("class weights", True)]
)
@pytest.mark.parametrize("optimized", [False, True])
def test_batch_norm_sums_over_the_parts(name, native, optimized):
    if native:
        pytest.importorskip("numba")
    loss, weighted = LOSSES[name]
    rng = np.random.default_rng(0)
    model = normalized()
    twin = copy.deepcopy(model)
    optimizer, other = (nn.SGD(each.parameters(), lr=0.1) for each in (model, twin))
    compiled = nn.compile(model, loss, *[optimizer] * optimized, native=native)
    for n in (7, 3, 2, 7):  # with weights, no label of a part may count
        x, labels = rng.normal(size=(n, 1, 8, 8)), np.arange(n) % 3
        weights = (rng.uniform(0.1, 2, size=n),) if weighted else ()
        for each in (optimizer, other):
            each.zero_grad()
        nn.seed(n)
        value = compiled(x, labels, *weights)
        assert len(compiled._programs.latest._division.chunks(n)) == min(n, 3)
        nn.seed(n)
        assert value == pytest.approx(loss(twin(x), labels, *weights))
        twin.backward(loss.backward(), input_grad=False)
        other.step()
        if not optimized:
            optimizer.step()
    for key, array in model.state_dict().items():
        assert_allclose(array, twin.state_dict()[key], rtol=1e-7, atol=1e-10, err_msg=key)
    assert "def commit(" in compiled.source


def test_buffers_change_only_if_all_parts_are_computed():
    model = normalized()
    before = model.state_dict()
    step = nn.compile(model, nn.CrossEntropy(), nn.SGD(model.parameters(), 0.1), native=False)
    with pytest.raises(ValueError, match="labels must be in"):
        step(np.random.default_rng(0).normal(size=(6, 1, 8, 8)), np.array([0, 0, 0, 0, 0, 9]))
    for name, array in model.state_dict().items():
        assert (array == before[name]).all()


def test_batch_norm_of_one_value_is_an_error_though_it_is_divided():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    step = nn.compile(model, nn.CrossEntropy(), native=False)
    step(np.ones((6, 4), np.float32), np.zeros(6, int))
    with pytest.raises(ValueError, match="no variance to train with"):
        step(np.ones((1, 4), np.float32), np.zeros(1, int))


class Doubled(nn.Identity):
    """A layer of which nothing is known."""


form(Doubled)(FORMS[nn.Identity])


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Softmax(dim=0),),
        (nn.Permute(1, 0), nn.Permute(1, 0)),
        (nn.Unsqueeze(0), nn.Squeeze(0)),
        (nn.Unsqueeze(1), nn.InstanceNorm1d(1, track_running_stats=True), nn.Squeeze(1)),
        (Doubled(),),
    ],
    ids=repr,
)
def test_a_model_that_mixes_samples_is_not_divided(layers):
    model = nn.Sequential(nn.Linear(4, 6), *layers, nn.Linear(6, 3))
    compiled = nn.compile(model, nn.CrossEntropy(), native=False)
    compiled(np.ones((8, 4), np.float32), np.arange(8) % 3)
    assert compiled._programs.latest._division.chunks(8) == (((0, 8),),)


def test_an_initial_state_of_as_many_layers_as_samples_is_not_divided():
    model = nn.LSTM(3, 4, num_layers=2, bidirectional=True, rng=0).astype(np.float64).eval()
    compiled = nn.compile(model, native=False)
    rng = np.random.default_rng(0)
    for n in (4, 3):
        inputs = [rng.normal(size=size) for size in ((n, 5, 3), (4, n, 4), (4, n, 4))]
        with nn.no_grad():
            assert_allclose(compiled(*inputs), model(*inputs), rtol=1e-9)


def test_a_matrix_of_as_many_rows_as_samples_is_not_divided():
    compiled = nn.compile(nn.MatMul(), native=False)
    rng = np.random.default_rng(0)
    for n in (4, 3):
        samples, matrix = rng.normal(size=(n, 2, 4)), rng.normal(size=(4, 5))
        with nn.no_grad():
            assert_allclose(compiled(samples, matrix), samples @ matrix, rtol=1e-9)


def test_wrong_labels_in_one_part_change_nothing():
    model = mlp()
    before = model.state_dict()
    step = nn.compile(model, nn.CrossEntropy(), nn.SGD(model.parameters(), 0.1), native=False)
    with pytest.raises(ValueError, match="labels must be in"):
        step(np.ones((6, 4)), np.array([0, 0, 0, 0, 0, 9]))
    for name, array in model.state_dict().items():
        assert (array == before[name]).all()


@pytest.mark.parametrize("count", [1, 3])
def test_the_same_number_of_threads_gives_the_same_bits(count, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(split, "threads_of_products", lambda: count)
    rng = np.random.default_rng(0)
    # Sizes at which the order of a sum shows: 3 parts of 11 or 12 samples.
    batches = [(rng.normal(size=(34, 60)).astype(np.float32), rng.integers(0, 5, 34))] * 20

    def trained():
        nn.seed(0)
        model = nn.Sequential(nn.Linear(60, 33), nn.ReLU(), nn.Linear(33, 5))
        step = nn.compile(model, nn.CrossEntropy(), nn.Adam(model.parameters(), lr=0.01))
        losses = [step(*batch) for batch in batches]
        assert len(step._programs.latest._division.chunks(34)) == count
        return losses, [parameter.data.tobytes() for parameter in model.parameters()]

    first = trained()
    assert all(trained() == first for _ in range(5))


@pytest.mark.parametrize("cached", [0, 1 << 23])  # a few samples at a time, or all
@pytest.mark.parametrize("case", LAYER_CASES, ids=lambda case: case.name)
def test_prediction_is_divided_too(case, cached, monkeypatch):
    monkeypatch.setattr(split, "_CACHED", cached)
    rng = np.random.default_rng(0)
    model, inputs = case.make().astype(np.float64).eval(), case.inputs(rng, 7)
    compiled = nn.compile(copy.deepcopy(model), native=False)
    with nn.no_grad():
        expected, outputs = (
            y if isinstance(y, tuple) else (y,) for y in (model(*inputs), compiled(*inputs))
        )
    for one, other in zip(outputs, expected, strict=True):
        assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("length", [5, 7, 9])  # fewer than samples, as many, and more
@pytest.mark.parametrize("name", ["attn_mask", "key_padding_mask"])
def test_a_prediction_with_a_mask_by_keyword(name, length, monkeypatch):
    monkeypatch.setattr(split, "_CACHED", 0)
    rng = np.random.default_rng(0)
    model = nn.MultiheadAttention(6, 2, rng=0).astype(np.float64).eval()
    x = rng.normal(size=(7, length, 6))
    mask = rng.normal(size=(length, length))
    if name == "key_padding_mask":
        mask = rng.random((7, length)) < 0.7
        mask[:, 0] = False
    compiled = nn.compile(copy.deepcopy(model), native=False)
    with nn.no_grad():
        expected = model(x, **{name: mask})
        assert_allclose(compiled(x, **{name: mask}), expected, rtol=1e-9, atol=1e-12)


def sizes_of_calls(monkeypatch, kind=ModelProgram):
    """Return a list that gets the name and the number of samples of each call of a function."""
    sizes = []

    def watch(call):
        def watched(self, name, n, *arguments):
            sizes.append((name, n))
            return call(self, name, n, *arguments)

        return watched

    for method in ("call", "call_with"):
        monkeypatch.setattr(kind, method, watch(getattr(kind, method)))
    return sizes


# The numbers of a sample in all arrays: sums, outputs and states. The models have 51 and 220
# parameters, which are as many as 3 samples and 1 have.
@pytest.mark.parametrize(
    ("model", "numbers", "sizes"),
    [
        (mlp(), 6 + 6 + 3, [1, 3, 3]),
        (nn.LSTM(4, 5, rng=0).astype(np.float64), 3 * (20 + 5) + 4 * (5 + 1 + 4) + 4 * 5, [1] * 7),
    ],
    ids=["MLP", "LSTM"],
)
def test_samples_of_a_prediction_that_stay_in_the_cache(model, numbers, sizes, monkeypatch):
    monkeypatch.setattr(split, "threads_of_products", lambda: 1)
    calls = sizes_of_calls(monkeypatch)
    x = np.random.default_rng(0).normal(size=(7, 3, 4) if isinstance(model, nn.LSTM) else (7, 4))
    expected = nn.predict(model, x)
    for cached, parts in ((0, sizes), (4 * numbers * 8, [3, 4])):
        monkeypatch.setattr(split, "_CACHED", cached)
        assert_allclose(nn.predict(nn.compile(model, native=False), x), expected, rtol=1e-9)
        assert sorted(calls) == [("predict", size) for size in parts]
        calls.clear()


@pytest.mark.parametrize("native", [False, True])
def test_running_statistics_do_not_keep_a_prediction_whole(native, monkeypatch):
    if native:
        pytest.importorskip("numba")
    monkeypatch.setattr(split, "_CACHED", 1 << 23)
    sizes = sizes_of_calls(monkeypatch)
    model = normalized()
    x = np.random.default_rng(0).normal(size=(7, 1, 8, 8))
    model(x)
    expected = nn.predict(model, x)
    compiled = nn.compile(model, native=native)
    assert_allclose(nn.predict(compiled, x), expected, rtol=1e-9)
    assert_allclose(nn.predict(compiled, x), expected, rtol=1e-9)
    assert sorted(sizes) == sorted([("predict", 2), ("predict", 2), ("predict", 3)] * 2)
    sizes.clear()
    with nn.no_grad():
        compiled(x)  # in training mode: of the batch
    assert sizes == [("predict", 7)]


def test_programs_of_a_compiled_object_share_the_arrays_for_gradients(chunks):
    """Else sequences of many lengths would each take several times the memory of the model."""
    model, rng = nn.RNN(3, 4, rng=0).astype(np.float64), np.random.default_rng(0)
    compute = nn.compile(model, nn.MeanSquaredError(), native=False)
    for length in range(1, 6):
        compute(rng.normal(size=(6, length, 3)), rng.normal(size=(6, length, 4)))
    programs = [each for found in compute._programs._programs.values() for each in found]
    assert len(programs) == 5
    rooms = {id(program.rooms): program.rooms for program in programs}
    # The whole batch, two other parts, and a chunk of each part.
    count = {"parts": 3, "samples": 6}[chunks]
    assert [len(each) for each in rooms.values()] == [count * len(list(model.parameters()))]
