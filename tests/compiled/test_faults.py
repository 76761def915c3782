"""Errors of compiled gradients and steps are those of model and loss, and change nothing."""

import copy
import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nnlite as nn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3)).astype(np.float32)
POINTS = RNG.uniform(0.1, 0.9, size=(4, 2)).astype(np.float32)
SHARES = POINTS / POINTS.sum(1, keepdims=True)
COUNTS = np.round(5 * POINTS)
LABELS = np.array([0, 1, 1, 0])

# The loss, the layer in front of it, and targets.
LOSSES = {
    "MeanSquaredError": (nn.MeanSquaredError(), nn.Identity(), POINTS),
    "MeanAbsoluteError": (nn.MeanAbsoluteError(), nn.Identity(), POINTS),
    "Huber": (nn.Huber(), nn.Identity(), POINTS),
    "SmoothL1": (nn.SmoothL1(), nn.Identity(), POINTS),
    "Quantile": (nn.Quantile(quantile=0.3), nn.Identity(), POINTS),
    "PoissonNLL": (nn.PoissonNLL(), nn.Identity(), COUNTS),
    "PoissonNLL of rates": (nn.PoissonNLL(log_input=False), nn.Softplus(), COUNTS),
    "Hinge": (nn.Hinge(), nn.Identity(), np.sign(POINTS - 0.5)),
    "BinaryCrossEntropy": (nn.BinaryCrossEntropy(), nn.Identity(), POINTS),
    "BinaryCrossEntropy of probabilities": (
        nn.BinaryCrossEntropy(from_logits=False), nn.Sigmoid(), POINTS,
    ),
    "KLDivergence": (nn.KLDivergence(), nn.LogSoftmax(), SHARES),
    "CrossEntropy": (nn.CrossEntropy(), nn.Identity(), LABELS),
    "CrossEntropy of probabilities": (nn.CrossEntropy(from_logits=False), nn.Softmax(), LABELS),
    "CrossEntropy with distributions": (nn.CrossEntropy(), nn.Identity(), SHARES),
    "NegativeLogLikelihood": (nn.NegativeLogLikelihood(), nn.LogSoftmax(), LABELS),
    "Focal": (nn.Focal(), nn.Identity(), LABELS),
    "MultiMargin": (nn.MultiMargin(), nn.Identity(), LABELS),
}  # fmt: skip


def with_value(array, number, *places):
    """Return a copy with this number at the first element of some samples, and floats elsewhere."""
    array = array.astype(np.result_type(array, np.float32))
    for place in places:
        array[place].reshape(-1)[:1] = number
        if array.ndim == 1:
            array[place] = number
    return array


FAULTS = {
    "a NaN in an input": lambda x, t: (with_value(x, np.nan, 2), t),
    "NaN in two inputs": lambda x, t: (with_value(x, np.nan, 1, 3), t),
    "an infinite input": lambda x, t: (with_value(x, -np.inf, 1), t),
    "inputs with fewer features": lambda x, t: (x[:, :2], t),
    "one axis less": lambda x, t: (x[0], t),
    "integers": lambda x, t: (x.astype(int), t),
    "text": lambda x, t: (x.astype(str), t),
    "complex numbers": lambda x, t: (x.astype(complex), t),
    "fewer targets": lambda x, t: (x, t[:3]),
    "targets with one axis more": lambda x, t: (x, t[..., None]),
    "a NaN in the targets": lambda x, t: (x, with_value(t, np.nan, 2)),
    "an infinite target": lambda x, t: (x, with_value(t, np.inf, 1)),
    "targets too small": lambda x, t: (x, t - 5),
    "targets too large": lambda x, t: (x, t + 5),
    "targets of text": lambda x, t: (x, t.astype(str)),
    "targets of other integers": lambda x, t: (x, (t + 200).astype(np.uint8)),
    "a negative weight": lambda x, t: (x, t, np.array([1, 1, -1, 1.0])),
    "weights of zero": lambda x, t: (x, t, np.zeros(4)),
    "a weight that is NaN": lambda x, t: (x, t, np.array([1, np.nan, 1, 1])),
    "an infinite weight": lambda x, t: (x, t, np.array([1, np.inf, 1, 1])),
    "fewer weights": lambda x, t: (x, t, np.ones(3)),
    "weights with one axis more": lambda x, t: (x, t, np.ones((4, 1))),
    "no sample": lambda x, t: (x[:0], t[:0]),
    "lists of several lengths": lambda x, t: ([[1.0, 2.0, 3.0], [4.0]], t),
    "a masked input": lambda x, t: (np.ma.masked_less(x, 0), t),
    "masked targets": lambda x, t: (x, np.ma.masked_equal(t, t.flat[0])),
    "masked weights": lambda x, t: (x, t, np.ma.masked_equal([1.0, 2.0, 3.0, 4.0], 2.0)),
}


def error_of(call, *arguments):
    """Return the error of a call, or the value that it returns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pytest.approx(call(*arguments), rel=1e-4)
        except (TypeError, ValueError, RuntimeError) as error:
            return type(error), str(error)


def assert_same_error(model, loss, arguments, native=False, after=None):
    """Compare the errors of a first call, or of one after others that were right."""
    twin = copy.deepcopy(model)
    expected = error_of(lambda x, *others: loss(twin(x), *others), *arguments)
    gradients = nn.compile(model, loss, native=native)
    optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = nn.compile(model, loss, optimizer, native=native)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    if after is not None:
        start = copy.deepcopy(optimizer.state_dict())
        for others in ((), (np.ones(len(after[0]), np.float32),)):
            gradients(*after, *others)
            step(*after, *others)
        model.load_state_dict(before)
        optimizer.load_state_dict(start)
        model.zero_grad()
    assert error_of(gradients, *arguments) == expected
    if isinstance(expected, tuple):
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())
        assert error_of(step, *arguments) == expected
        for name, array in model.state_dict().items():
            assert_array_equal(array, before[name])
        assert not optimizer.state_dict()["state"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_fault_is_named_as_without_compile(name, fault):
    loss, last, targets = LOSSES[name]
    model = nn.Sequential(nn.Linear(3, 2, rng=0), last)
    assert_same_error(model, loss, FAULTS[fault](X, targets))
    assert_same_error(model, loss, FAULTS[fault](X, targets), after=(X, targets))


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("fault", ["a NaN in an input", "targets too large", "no sample"])
def test_in_training_mode_a_sample_may_spoil_others(fault, native):
    if native:
        pytest.importorskip("numba")
    model = nn.Sequential(
        nn.Linear(3, 4, rng=0), nn.BatchNorm1d(4), nn.Dropout(0.5, rng=0), nn.Linear(4, 2, rng=0)
    )
    assert_same_error(model, nn.CrossEntropy(), FAULTS[fault](X, LABELS), native)


def test_one_sample_has_no_variance_in_evaluation_either():
    model = nn.Sequential(nn.Linear(3, 2, rng=0), nn.BatchNorm1d(2, track_running_stats=False))
    model.eval()
    assert_same_error(model, nn.CrossEntropy(), (X[:1], LABELS[:1]), after=(X, LABELS))
    compiled = nn.compile(model, native=False)
    compiled(X)
    assert error_of(compiled, X[:1]) == error_of(model, X[:1])


@pytest.mark.parametrize(
    "x", [[[1.0, 2.0], [3.0]], np.ma.masked_less(X, 0)], ids=["rows", "masked"]
)
def test_a_fault_of_an_input_is_named_by_the_model(x):
    model = nn.Linear(3, 2, rng=0)
    compiled = nn.compile(model, native=False)
    for _ in range(2):
        assert error_of(compiled, x) == error_of(model, x)
        compiled(X)


@pytest.mark.parametrize("grad", [np.ones((4, 3)), np.ones((4, 2), complex), None], ids=str)
def test_a_fault_of_a_backward_is_named_by_the_model(grad):
    model = nn.Linear(3, 2, rng=0)
    compiled = nn.compile(copy.deepcopy(model), native=False)
    assert error_of(compiled.backward, POINTS) == error_of(model.backward, POINTS)
    model(X)
    compiled(X)
    assert error_of(compiled.backward, grad) == error_of(model.backward, grad)


def test_a_loss_that_overflows_changes_nothing():
    model = nn.Linear(3, 2, rng=0)
    step = nn.compile(
        model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1), native=False
    )
    before = model.weight.data.copy()
    message = r"^MeanSquaredError\(\): the loss is not finite$"
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=message):
        step(1e30 * X, POINTS)
    assert_array_equal(model.weight.data, before)


@pytest.mark.parametrize("option", ["weight", "pos_weight"])
def test_weights_of_samples_are_of_one_batch_size(option):
    loss = nn.BinaryCrossEntropy(**{option: np.array([1, 2, 3, 4], np.float32)})
    model = nn.Sequential(nn.Linear(3, 1, rng=0), nn.Flatten(0))
    gradients = nn.compile(model, loss, native=False)
    assert gradients(X, POINTS[:, 0]) == pytest.approx(loss(model(X), POINTS[:, 0]), rel=1e-6)
    more, targets = np.tile(X, (2, 1)), np.tile(POINTS[:, 0], 2)
    with pytest.raises(ValueError, match=rf"{option} of shape \(4,\) does not broadcast"):
        gradients(more, targets)


def test_samples_are_no_axis_to_leave_out():
    compiled = nn.compile(nn.Sequential(nn.Squeeze(0), nn.ReLU()), native=False)
    assert_array_equal(compiled(X[:1]), np.maximum(X[0], 0))
    with pytest.raises(ValueError, match="expected an axis of size 1"):
        compiled(X)


def test_the_state_of_a_recurrent_layer_after_an_error_is_no_memory_that_nobody_wrote():
    model = nn.Sequential(nn.Embedding(5, 4, rng=0), nn.RNN(4, 3, rng=1))
    compiled, indices = nn.compile(model, native=False), np.ones((2, 6), int)
    compiled(indices)
    with pytest.raises(ValueError, match="out of range|must be"):
        compiled(9 * indices)
    assert_array_equal(model[1].last_state, np.zeros((1, 2, 3)))
