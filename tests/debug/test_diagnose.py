"""Models made ill on purpose are diagnosed, and healthy ones get a clean report."""

from __future__ import annotations

import builtins
import copy
from typing import Any

import matplotlib
import numpy as np
import pytest

import nnlite as nn

matplotlib.use("Agg")

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(64, 2)).astype(np.float32)
XOR = (POINTS[:, 0] * POINTS[:, 1] > 0).astype(int)
HEIGHTS = np.sin(2 * POINTS.sum(axis=1, keepdims=True))


def classifier(*last: nn.Layer) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2), *last)


def regressor(*last: nn.Layer) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1), *last)


def ill(diagnosis: Any) -> dict[str, Any]:
    """Return the checks that found something, by name; each has a cure."""
    found = {check.name: check for check in diagnosis.checks if check.is_ill}
    assert all(check.cure for check in found.values())
    assert diagnosis.healthy == (not found)
    return found


# ---- healthy models ----


def images() -> tuple[np.ndarray, np.ndarray]:
    (pixels, labels), _ = nn.datasets.mnist()
    return pixels[:48], labels[:48]


HEALTHY = {
    "a classifier": (classifier, nn.CrossEntropy(), lambda: (POINTS, XOR)),
    "probabilities": (
        lambda: classifier(nn.Softmax()), nn.CrossEntropy(from_logits=False), lambda: (POINTS, XOR),
    ),
    "log-probabilities": (
        lambda: classifier(nn.LogSoftmax()), nn.NegativeLogLikelihood(), lambda: (POINTS, XOR),
    ),
    "yes or no": (
        lambda: nn.Sequential(nn.Linear(2, 32), nn.GELU(), nn.Linear(32, 1)),
        nn.BinaryCrossEntropy(), lambda: (POINTS, XOR[:, None].astype(np.float32)),
    ),
    "a regressor": (regressor, nn.MeanSquaredError(), lambda: (POINTS, HEIGHTS)),
    "a regressor by sums": (regressor, nn.Huber(reduction="sum"), lambda: (POINTS, HEIGHTS)),
    "weights of samples": (
        classifier, nn.CrossEntropy(label_smoothing=0.1), lambda: (POINTS, XOR, np.arange(64)),
    ),
    "images": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(288, 10),
        ),
        nn.CrossEntropy(), images,
    ),
    "sequences of indices": (
        lambda: nn.Sequential(
            nn.Embedding(9, 8), nn.GRU(8, 16, outputs="last"), nn.Linear(16, 3)
        ),
        nn.CrossEntropy(),
        lambda: (RNG.integers(0, 9, (20, 5)), RNG.integers(0, 3, 20)),
    ),
    "two inputs": (
        lambda: nn.Graph(
            {"both": (nn.Add(), "a", "b"), "h": (nn.Linear(2, 32), "both"),
             "relu": (nn.ReLU(), "h"), "y": (nn.Linear(32, 2), "relu")}, ("a", "b"),
        ),
        nn.CrossEntropy(), lambda: ((POINTS, 0 * POINTS + 1), XOR),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HEALTHY)
def test_a_healthy_model_gets_a_clean_report(case: str) -> None:
    make, loss, batch = HEALTHY[case]
    diagnosis = nn.diagnose(make(), loss, batch())
    assert ill(diagnosis) == {}
    assert 0 < diagnosis.lr < 10
    assert "cure" not in repr(diagnosis)


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: nn.SGD(parameters, lr=0.1, momentum=0.9),
        lambda parameters: nn.Adam(parameters),
        lambda parameters: nn.AdamW(parameters, lr=0.003),
        lambda parameters: nn.RMSprop(parameters, lr=0.001),
    ],
)
def test_a_usual_optimizer_is_fine(make: Any) -> None:
    model = classifier()
    diagnosis = nn.diagnose(
        model, nn.CrossEntropy(), (POINTS, XOR), optimizer=make(model.parameters())
    )
    assert ill(diagnosis) == {}
    assert set(diagnosis.update_ratios) == {"0.weight", "2.weight"}


# ---- the input ----


def test_pixels_from_0_to_255() -> None:
    pixels, labels = images()
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
    raw = (pixels * 0.3081 + 0.1307) * 255
    found = ill(nn.diagnose(model, nn.CrossEntropy(), (raw, labels)))
    assert "not standardised: mean" in found["input"].message
    assert "divide by the standard deviation" in found["input"].cure


def test_a_column_of_another_scale() -> None:
    for factor, message in ((1000.0, "feature 1 is not standardised"), (1e-5, "feature 1 varies")):
        scaled = POINTS * np.array([1, factor], np.float32)
        found = ill(nn.diagnose(classifier(), nn.CrossEntropy(), (scaled, XOR)))
        assert message in found["input"].message
    found = ill(nn.diagnose(classifier(), nn.CrossEntropy(), (1e-4 * POINTS, XOR)))
    assert "not standardised: at most" in found["input"].message


def test_a_missing_value() -> None:
    points = POINTS.copy()
    points[5, 1] = np.nan
    diagnosis = nn.diagnose(classifier(), nn.CrossEntropy(), (points, XOR))
    assert "it has nan at (5, 1)" in ill(diagnosis)["input"].message
    with pytest.raises(ValueError, match="no range test"):
        diagnosis.plot()


# ---- the output ----


@pytest.mark.parametrize(
    ("last", "loss", "target", "cure"),
    [
        (nn.Softmax(), nn.CrossEntropy(), XOR, "leave out the Softmax"),
        (nn.ReLU(), nn.CrossEntropy(), XOR, "leave out the ReLU"),
        (nn.Sigmoid(), nn.CrossEntropy(), XOR, "leave out the Sigmoid"),
        (nn.Sigmoid(), nn.BinaryCrossEntropy(), np.eye(2)[XOR], "leave out the Sigmoid"),
        (nn.Sequential(), nn.NegativeLogLikelihood(), XOR, "LogSoftmax"),
        (nn.Tanh(), nn.MeanSquaredError(), 3 * np.eye(2)[XOR], "leave out the Tanh"),
        (nn.ReLU(), nn.MeanAbsoluteError(), np.eye(2)[XOR] - 0.5, "leave out the ReLU"),
    ],
)
def test_an_output_that_does_not_suit_the_loss(
    last: nn.Layer, loss: nn.Loss, target: np.ndarray, cure: str
) -> None:
    found = ill(nn.diagnose(classifier(last), loss, (POINTS, target)))
    assert cure in found["output"].cure


def test_a_loss_that_has_warned_before_is_judged_again() -> None:
    model, loss = classifier(nn.Softmax()), nn.CrossEntropy()
    with pytest.warns(UserWarning, match="expects logits"):
        loss(model(POINTS), XOR)
    assert "output" in ill(nn.diagnose(model, loss, (POINTS, XOR)))


# ---- the first loss ----


def test_a_guess_has_the_loss_log_c() -> None:
    pixels, labels = images()
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    assert nn.diagnose(model, nn.CrossEntropy(), (pixels, labels)).expected_loss == pytest.approx(
        np.log(10)
    )
    # The mean squared error of the mean is the variance.
    assert nn.diagnose(
        regressor(), nn.MeanSquaredError(), (POINTS, HEIGHTS)
    ).expected_loss == pytest.approx(HEIGHTS.var(), rel=1e-5)


def test_a_last_layer_of_large_weights() -> None:
    model = classifier()
    model[2].weight.data *= 50
    diagnosis = nn.diagnose(model, nn.CrossEntropy(), (POINTS, XOR))
    assert diagnosis.first_loss > 2 * np.log(2)
    assert "weights of the last layer smaller" in ill(diagnosis)["first loss"].cure


def test_targets_far_from_zero() -> None:
    targets = 500 + 10 * HEIGHTS
    found = ill(nn.diagnose(regressor(), nn.MeanSquaredError(), (POINTS, targets)))
    assert f"the mean of the targets ({targets.mean():.3g})" in found["first loss"].cure


def test_a_model_that_gives_nan() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.Log(), nn.Linear(4, 2))
    diagnosis = nn.diagnose(model, nn.CrossEntropy(), (POINTS, XOR))
    assert "1 (Log()) makes" in ill(diagnosis)["first loss"].message


# ---- units and gradients ----


def test_dead_units() -> None:
    model = classifier()
    model[0].bias.data[:20] = -100
    diagnosis = nn.diagnose(model, nn.CrossEntropy(), (POINTS, XOR))
    assert diagnosis.dead_units["1"].tolist() == list(range(20))
    found = ill(diagnosis)["units"]
    assert found.message.startswith("20 of the 32 units of 1 (ReLU()) are dead")
    assert "LeakyReLU" in found.cure


def test_dead_channels() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, rng=0), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 10)
    )
    model[0].bias.data[:3] = -100
    diagnosis = nn.diagnose(model, nn.CrossEntropy(), images())
    assert diagnosis.dead_units["1"].tolist() == [0, 1, 2]
    assert "units" in ill(diagnosis)


def test_saturated_units() -> None:
    model = regressor()
    model[0].bias.data[...] = 40
    found = ill(nn.diagnose(model, nn.MeanSquaredError(), (POINTS, HEIGHTS)))["units"]
    assert "32 of the 32 units of 1 (Tanh()) are dead" in found.message
    assert "where the activation is flat" in found.cure


def test_equal_weights() -> None:
    model = classifier()
    for parameter in model.parameters():
        parameter.data[...] = 0.1
    found = ill(nn.diagnose(model, nn.CrossEntropy(), (POINTS, XOR)))["units"]
    assert "all units of 0 (Linear(2, 32)) give the same output" in found.message
    assert "at random" in found.cure


def test_a_last_layer_of_zeros() -> None:
    model = classifier()
    model[2].weight.data[...] = 0
    found = ill(nn.diagnose(model, nn.CrossEntropy(), (POINTS, XOR)))["gradients"]
    assert "passes back all zeros" in found.message


def test_vanishing_gradients() -> None:
    layers: list[nn.Layer] = [nn.Linear(2, 16), nn.Sigmoid()]
    for _ in range(12):
        layers += [nn.Linear(16, 16), nn.Sigmoid()]
    model = nn.Sequential(*layers, nn.Linear(16, 2))
    found = ill(nn.diagnose(model, nn.CrossEntropy(), (POINTS, XOR)))
    assert "use ReLU in place of Sigmoid" in found["gradients"].cure
    assert "one batch" in found


def test_exploding_gradients() -> None:
    layers: list[nn.Layer] = []
    for _ in range(5):
        layers += [nn.Linear(8, 8), nn.ReLU()]
        nn.init.normal_(layers[-2].weight, std=5)
    model = nn.Sequential(nn.Linear(2, 8), *layers, nn.Linear(8, 2))
    found = ill(nn.diagnose(model, nn.CrossEntropy(), (POINTS, XOR)))
    assert "max_grad_norm" in found["gradients"].cure


class Forgetful(nn.Layer):
    """A layer whose backward forgets the gradient of its parameter."""

    def __init__(self) -> None:
        self.factor = nn.Parameter(np.ones(2, np.float32))

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x * self.factor.data

    def backward(self, grad: np.ndarray, input_grad: bool = True) -> np.ndarray:
        return grad * self.factor.data


def test_a_gradient_that_is_missing() -> None:
    model = nn.Sequential(Forgetful(), *classifier())
    found = ill(nn.diagnose(model, nn.CrossEntropy(), (POINTS, XOR)))
    assert found["gradients"].message == "0.factor gets no gradient"


# ---- training ----


def test_a_model_that_is_too_simple() -> None:
    found = ill(nn.diagnose(nn.Sequential(nn.Linear(2, 2)), nn.CrossEntropy(), (POINTS, XOR)))
    assert "no activation between the layers" in found["one batch"].cure


def test_labels_that_contradict_each_other() -> None:
    points, labels = np.repeat(POINTS[:8], 8, axis=0), np.tile([0, 1], 32)
    found = ill(nn.diagnose(classifier(), nn.CrossEntropy(), (points, labels)))
    assert "wrong pairs of inputs and targets" in found["one batch"].cure


@pytest.mark.parametrize(
    ("lr", "names", "message"),
    [(300.0, ["learning rate", "updates"], "too large"), (1e-8, ["learning rate"], "too small")],
)
def test_a_wrong_learning_rate(lr: float, names: list[str], message: str) -> None:
    model = classifier()
    optimizer = nn.SGD(model.parameters(), lr=lr)
    found = ill(nn.diagnose(model, nn.CrossEntropy(), (POINTS, XOR), optimizer=optimizer))
    assert set(names) <= set(found)
    assert message in found["learning rate"].message


def test_weights_that_hardly_move() -> None:
    model = classifier()
    optimizer = nn.SGD(model.parameters(), lr=1e-8)
    found = ill(nn.diagnose(model, nn.CrossEntropy(), (POINTS, XOR), optimizer=optimizer))
    assert "use a larger learning rate" in found["updates"].cure


def test_the_range_test_is_drawn() -> None:
    diagnosis = nn.diagnose(classifier(), nn.CrossEntropy(), (POINTS, XOR))
    assert diagnosis.rates[0] == pytest.approx(1e-6)
    assert diagnosis.losses.min() < 0.9 * diagnosis.first_loss < diagnosis.losses[-1]
    (axes,) = diagnosis.plot().axes
    drawn = axes.lines[0]
    np.testing.assert_array_equal(drawn.get_xdata(), diagnosis.rates)
    np.testing.assert_array_equal(drawn.get_ydata(), diagnosis.losses)
    assert axes.get_xscale() == "log"


def test_update_ratios_are_those_of_the_first_step() -> None:
    model, loss = classifier(), nn.CrossEntropy()
    optimizer = nn.SGD(model.parameters(), lr=0.1)
    found = nn.diagnose(model, loss, (POINTS, XOR), optimizer=optimizer).update_ratios
    loss(model(POINTS), XOR)
    model.backward(loss.backward())
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            expected = 0.1 * np.linalg.norm(parameter.grad) / np.linalg.norm(parameter.data)
            assert found[name] == pytest.approx(expected, rel=1e-5)


# ---- nothing is changed ----


def test_nothing_is_changed() -> None:
    model = nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5, rng=3), nn.Linear(8, 2)
    )
    loss = nn.CrossEntropy()
    optimizer = nn.Adam(model.parameters())
    loss(model(POINTS), XOR)
    model.backward(loss.backward())
    optimizer.step()
    model.eval()[0].train()
    points = POINTS.copy()

    def state() -> Any:
        return copy.deepcopy(
            [
                model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()],
                [layer.training for layer in model.layers()],
                nn.random.generator().bit_generator.state,
                model[3]._rng.bit_generator.state,
            ]
        )  # fmt: skip

    before = state()
    nn.diagnose(model, loss, (points, XOR), optimizer=optimizer)
    np.testing.assert_equal(state(), before)
    np.testing.assert_array_equal(points, POINTS)


def test_the_same_model_gets_the_same_report() -> None:
    model = classifier()
    reports = [repr(nn.diagnose(model, nn.CrossEntropy(), (POINTS, XOR))) for _ in range(2)]
    assert reports[0] == reports[1]


# ---- errors ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.diagnose(3, nn.CrossEntropy(), (POINTS, XOR)), TypeError, "must be a layer"),
        (lambda: nn.diagnose(nn.Tanh(), nn.CrossEntropy(), (POINTS, XOR)), ValueError,
         r"Tanh\(\) has no parameters to train"),
        (lambda: nn.diagnose(classifier(), nn.CrossEntropy("none"), (POINTS, XOR)), ValueError,
         "use reduction='mean'"),
        (lambda: nn.diagnose(classifier(), nn.CrossEntropy(), POINTS), TypeError,
         r"a batch must be a pair \(inputs, targets\)"),
        (lambda: nn.diagnose(classifier(), nn.CrossEntropy(), (POINTS[:0], XOR[:0])), ValueError,
         "the batch has no samples"),
        (lambda: nn.diagnose(classifier(), nn.CrossEntropy(), (POINTS[:, :1], XOR)), ValueError,
         r"Linear\(2, 32\): expected input of shape"),
        (lambda: nn.diagnose(classifier(), nn.CrossEntropy(), (POINTS, XOR[:3])), ValueError,
         "CrossEntropy"),
        (lambda: nn.diagnose(classifier(), nn.CrossEntropy(), (POINTS, XOR),
                             optimizer=nn.SGD(classifier().parameters())), ValueError,
         "parameters of the optimizer are not in the model"),
    ],
)  # fmt: skip
def test_bad_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_one_sample_is_enough_for_a_report() -> None:
    assert nn.diagnose(classifier(), nn.CrossEntropy(), (POINTS[:1], XOR[:1])).batch_loss < 0.1
    diagnosis = nn.diagnose(regressor(), nn.MeanSquaredError(), (POINTS[:1], HEIGHTS[:1]))
    assert "all its targets are equal" in repr(diagnosis)


def test_without_matplotlib_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosis = nn.diagnose(classifier(), nn.CrossEntropy(), (POINTS, XOR))
    real_import = builtins.__import__

    def without_matplotlib(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        diagnosis.plot()
