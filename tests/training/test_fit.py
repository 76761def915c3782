"""fit is the explicit loop: the same bits, exact means, nothing half done when it ends early."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

from ..registry import Array


def blobs(samples: int = 60, seed: int = 0) -> tuple[Array, Array]:
    """Points of three classes in five dimensions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=samples)
    points = rng.normal(size=(samples, 5)) + 1.5 * np.eye(3, 5)[labels]
    return points.astype(np.float32), labels


def classifier(*between: nn.Layer) -> nn.Sequential:
    nn.seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), *between, nn.Linear(8, 3))


def batches(sizes: list[int]) -> list[tuple[Array, Array]]:
    points, labels = blobs(sum(sizes))
    ends = np.cumsum(sizes)[:-1]
    return list(zip(np.split(points, ends), np.split(labels, ends), strict=True))


def weights(model: nn.Layer) -> Array:
    return np.concatenate([array.ravel() for array in model.state_dict().values()])


def fit(model: nn.Layer, train: Any, loss: nn.Loss | None = None, **options: Any) -> nn.History:
    optimizer = nn.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = {"progress": False, **options}
    return nn.fit(model, loss or nn.CrossEntropy(), optimizer, train, **options)


class TestTheLoop:
    def test_gives_the_same_bits_as_the_explicit_loop(self) -> None:
        validation = blobs(30, seed=1)
        by_hand, by_fit = (classifier(nn.Dropout(0.3), nn.BatchNorm1d(8)) for _ in range(2))

        nn.seed(2)
        loader = nn.DataLoader(*blobs(), batch_size=16, shuffle=True)
        history = fit(by_fit, loader, epochs=3, validation=validation, metrics=[nn.accuracy])

        nn.seed(2)
        loader = nn.DataLoader(*blobs(), batch_size=16, shuffle=True)
        loss = nn.CrossEntropy()
        optimizer = nn.SGD(by_hand.parameters(), lr=0.1, momentum=0.9)
        losses, right = np.zeros(3), np.zeros(3)
        for epoch in range(3):
            for points, labels in loader:
                logits = by_hand(points)
                losses[epoch] += loss(logits, labels) * len(labels)
                right[epoch] += (logits.argmax(axis=1) == labels).sum()
                optimizer.zero_grad()
                by_hand.backward(loss.backward(), input_grad=False)
                optimizer.step()

        assert_array_equal(weights(by_fit), weights(by_hand))
        assert_array_equal(history["loss"], losses / 60)
        assert_array_equal(history["accuracy"], right / 60)
        logits = by_hand.eval()(validation[0])
        assert history["validation_loss"][-1] == pytest.approx(loss(logits, validation[1]))
        assert history["validation_accuracy"][-1] == nn.accuracy(logits, validation[1])

    def test_agrees_with_pytorch(self) -> None:
        torch = pytest.importorskip("torch")
        data = batches([20, 20, 12])
        model = classifier()
        twin = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        twin.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
        optimizer = torch.optim.Adam(twin.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        expected = []
        for _ in range(5):
            total = 0.0
            for points, labels in data:
                loss = torch.nn.functional.cross_entropy(
                    twin(torch.tensor(points)), torch.tensor(labels)
                )
                total += loss.item() * len(labels)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
                optimizer.step()
            schedule.step()
            expected.append(total / 52)

        ours = nn.Adam(model.parameters(), lr=0.01)
        history = nn.fit(
            model, nn.CrossEntropy(), ours, data, epochs=5, schedule=nn.StepLR(ours, 2),
            max_grad_norm=0.5, progress=False,
        )  # fmt: skip
        assert_allclose(history["loss"], expected, rtol=1e-6)
        for name, value in twin.state_dict().items():
            assert_allclose(model.state_dict()[name], value.numpy(), atol=1e-6)
        assert_allclose(history["lr"], [1e-2, 1e-2, 1e-3, 1e-3, 1e-4])

    def test_epochs_count_those_that_the_history_has(self) -> None:
        data = batches([20, 20])
        whole, parts = classifier(), classifier()
        optimizer = nn.Adam(parts.parameters())
        loss, history = nn.CrossEntropy(), nn.History()
        for epochs in (2, 2, 5):
            nn.fit(parts, loss, optimizer, data, epochs=epochs, history=history, progress=False)
        expected = nn.fit(whole, loss, nn.Adam(whole.parameters()), data, epochs=5, progress=False)
        assert_array_equal(weights(parts), weights(whole))
        assert_array_equal(history["loss"], expected["loss"])

    def test_no_epochs_train_nothing(self) -> None:
        model = classifier()
        before = weights(model)
        assert fit(model, batches([4]), epochs=0).epochs.size == 0
        assert_array_equal(weights(model), before)

    def test_several_inputs_come_as_a_tuple(self) -> None:
        nodes = {"sum": (nn.Add(), "left", "right"), "out": (nn.Linear(2, 1), "sum")}
        model = nn.Graph(nodes, inputs=["left", "right"])
        ones = np.ones((3, 2), np.float32)
        history = nn.fit(
            model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.01),
            [((ones, ones), np.zeros((3, 1), np.float32))], epochs=2, progress=False,
        )  # fmt: skip
        assert history["loss"][1] < history["loss"][0]

    def test_sample_weights_are_the_third_of_a_batch(self) -> None:
        # A weight of 2 is as good as the same sample twice.
        (points, labels) = blobs(6)
        twice = [0, 0, 1, 2, 3, 4, 5, 5]
        weighted, repeated = classifier(), classifier()
        first = fit(weighted, [(points, labels, np.array([2, 1, 1, 1, 1, 2]))], epochs=4)
        second = fit(repeated, [(points[twice], labels[twice])], epochs=4)
        assert_allclose(weights(weighted), weights(repeated), atol=1e-6)
        assert_allclose(first["loss"], second["loss"], rtol=1e-6)


class TestModes:
    def test_a_model_in_evaluation_mode_is_trained_in_training_mode_and_gets_its_mode_back(
        self,
    ) -> None:
        first, second = (classifier(nn.BatchNorm1d(8)) for _ in range(2))
        fit(first, batches([9, 9]))
        fit(second.eval(), batches([9, 9]))
        assert_array_equal(weights(first), weights(second))
        assert (first.training, second.training, second[2].training) == (True, False, False)

    def test_a_layer_that_is_kept_in_evaluation_mode_stays_so(self) -> None:
        model = classifier(nn.BatchNorm1d(8))
        model[2].eval()
        fit(model, batches([9, 9]), validation=blobs(5))
        assert_array_equal(model[2].running_mean, np.zeros(8))  # type: ignore[attr-defined]
        assert (model.training, model[2].training) == (True, False)


class TestAccumulation:
    LOSSES = (
        nn.CrossEntropy(),
        nn.CrossEntropy(weight=[1, 2, 3], ignore_index=1, label_smoothing=0.1),
        nn.CrossEntropy("sum"),
    )

    @pytest.mark.parametrize("loss", LOSSES, ids=repr)
    def test_makes_the_step_of_one_batch_of_all_samples(self, loss: nn.Loss) -> None:
        # 5 batches in groups of 2: the last group is one batch, and smaller.
        parts = batches([8, 6, 8, 8, 3])
        whole = batches([14, 16, 3])
        accumulated, at_once = classifier().astype(np.float64), classifier().astype(np.float64)
        options = {"loss": loss, "epochs": 2, "max_grad_norm": 1.0}
        first = fit(accumulated, parts, accumulate=2, **options)
        second = fit(at_once, whole, **options)
        assert_allclose(weights(accumulated), weights(at_once), rtol=1e-9)
        assert_allclose(first["loss"], second["loss"], rtol=1e-9)

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("empty", [0, 1, 2])
    def test_a_batch_of_which_nothing_counts_adds_nothing(self, reduction: str, empty: int) -> None:
        parts = batches([4, 4, 4])
        parts[empty][1][:] = -100
        whole = [tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))]
        accumulated, at_once = classifier().astype(np.float64), classifier().astype(np.float64)
        options: Any = {"loss": nn.CrossEntropy(reduction), "metrics": [nn.accuracy], "epochs": 2}
        first = fit(accumulated, parts, accumulate=3, **options)
        second = fit(at_once, whole, **options)
        assert_allclose(weights(accumulated), weights(at_once), rtol=1e-9)
        for name in first:
            assert_allclose(first[name], second[name], rtol=1e-9)

    def test_sample_weights_of_zero_add_nothing(self) -> None:
        (points, labels), other = batches([4, 4])
        model, without = classifier().astype(np.float64), classifier().astype(np.float64)
        fit(model, [(points, labels, np.zeros(4)), (*other, np.ones(4))], accumulate=2)
        fit(without, [other])
        assert_allclose(weights(model), weights(without), rtol=1e-9)

    def test_counts_the_numbers_of_sequences_of_several_lengths(self) -> None:
        # (N, T, 1) with T of 2 and of 5: the mean is over 2·2 + 3·5 numbers.
        rng = np.random.default_rng(0)
        short, long = rng.normal(size=(2, 2, 1)), rng.normal(size=(3, 5, 1))
        model = nn.Sequential(nn.Linear(1, 1)).astype(np.float64)
        (weight, bias) = (p.data.copy() for p in model.parameters())
        history = nn.fit(
            model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1),
            [(short, short**2), (long, long**2)], accumulate=2, progress=False,
        )  # fmt: skip
        x = np.concatenate([short.ravel(), long.ravel()])
        error = weight[0, 0] * x + bias[0] - x**2
        assert history["loss"][0] == pytest.approx((error**2).mean())
        assert model[0].weight.data[0, 0] == pytest.approx(  # type: ignore[attr-defined]
            weight[0, 0] - 0.1 * (2 * error * x).mean()
        )

    def test_steps_are_counted_in_groups(self) -> None:
        model = classifier()
        optimizer = nn.SGD(model.parameters(), lr=1.0)
        schedule = nn.ExponentialLR(optimizer, 0.5)
        nn.fit(
            model, nn.CrossEntropy(), optimizer, batches([4] * 5), accumulate=2,
            schedule=schedule, schedule_every="step", progress=False,
        )  # fmt: skip
        assert schedule.count == 3


class TestSchedules:
    def rates(self, make: Any, **options: Any) -> list[float]:
        model = classifier()
        optimizer = nn.SGD(model.parameters(), lr=1e-3)
        history = nn.fit(
            model, nn.CrossEntropy(), optimizer, batches([6, 6]), epochs=4,
            schedule=make(optimizer), progress=False, **options,
        )  # fmt: skip
        return list(history["lr"])

    def test_step_after_each_epoch_or_after_each_step(self) -> None:
        def make(optimizer: nn.Optimizer) -> nn.Schedule:
            return nn.ExponentialLR(optimizer, 0.5)

        assert_allclose(self.rates(make), [1e-3, 5e-4, 2.5e-4, 1.25e-4])
        # Step n, from 0, is made with 1e-3 / 2ⁿ; the last steps of the epochs are 1, 3, 5 and 7.
        per_step = self.rates(make, schedule_every="step")
        assert_allclose(per_step, [1e-3 / 2**n for n in (1, 3, 5, 7)])

    def test_reduce_on_plateau_gets_the_monitored_figure(self) -> None:
        def make(optimizer: nn.Optimizer) -> nn.ReduceLROnPlateau:
            return nn.ReduceLROnPlateau(optimizer, patience=0, threshold=9, threshold_mode="abs")

        # No epoch after the first improves by 9.
        assert_allclose(self.rates(make), [1e-3, 1e-3, 1e-4, 1e-5])
        seen: list[float] = []

        class Spy(nn.ReduceLROnPlateau):
            def step(self, metric: float) -> None:
                seen.append(metric)

        def run(**options: Any) -> nn.History:
            seen.clear()
            model = classifier()
            optimizer = nn.SGD(model.parameters())
            return nn.fit(
                model, nn.CrossEntropy(), optimizer, batches([6]), epochs=2,
                schedule=Spy(optimizer), metrics=[nn.accuracy], progress=False, **options,
            )  # fmt: skip

        assert_array_equal(run()["loss"], seen)
        assert_array_equal(run(validation=blobs(9))["validation_loss"], seen)
        assert_array_equal(run(monitor="accuracy")["accuracy"], seen)

    def test_what_does_not_fit_is_refused(self) -> None:
        other = nn.SGD(classifier().parameters())
        with pytest.raises(ValueError, match="schedule is of another optimizer"):
            self.rates(lambda optimizer: nn.StepLR(other, 1))
        with pytest.raises(ValueError, match="ReduceLROnPlateau needs the figures of whole epochs"):
            self.rates(nn.ReduceLROnPlateau, schedule_every="step")
        with pytest.raises(ValueError, match="no 'validation_loss' to monitor"):
            self.rates(nn.ReduceLROnPlateau, monitor="validation_loss")
        with pytest.raises(ValueError, match="schedule_every must be one of 'epoch', 'step'"):
            self.rates(lambda optimizer: nn.StepLR(optimizer, 1), schedule_every="batch")
        with pytest.raises(ValueError, match="monitor='loss' is for a ReduceLROnPlateau, got "):
            self.rates(lambda optimizer: nn.StepLR(optimizer, 1), monitor="loss")
        with pytest.raises(ValueError, match=r"monitor='nonsense' .* got schedule=None"):
            self.rates(lambda optimizer: None, monitor="nonsense")


class Fault(nn.Layer):
    """Passes everything on, and does something at the forward of the given number."""

    def __init__(self, number: int, forward: Any = None, backward: Any = None) -> None:
        self.number, self.count = number, 0
        self.at_forward, self.at_backward = forward, backward

    def forward(self, x: Array) -> Array:
        self.count += self.training
        self.cache()
        if self.training and self.count == self.number and self.at_forward:
            return self.at_forward(x)
        return x

    def backward(self, grad: Array, input_grad: bool = True) -> Array:
        if self.count == self.number and self.at_backward:
            return self.at_backward(grad)
        return grad


def after(steps: int, *layers: nn.Layer) -> Array:
    """The weights after this many steps with batches of 4."""
    model = classifier(*layers)
    fit(model, batches([4] * 8)[:steps])
    return weights(model)


class TestNotFinite:
    def test_a_loss_of_nan_stops_with_the_last_weights_that_gave_a_finite_one(self) -> None:
        # The loss of batch 3 is that of the weights after step 2, so those of step 1 are the last
        # that are known to be good.
        model = classifier(Fault(3, forward=lambda x: x * np.nan))
        with pytest.raises(
            ValueError,
            match=r"fit: epoch 1, batch 3: CrossEntropy\(\): the predictions contain NaN",
        ):
            fit(model, batches([4] * 8))
        assert_array_equal(weights(model), after(1))

    def test_the_running_statistics_are_those_of_the_batches_before(self) -> None:
        model, other = (
            classifier(Fault(n, lambda x: x * np.nan), nn.BatchNorm1d(8)) for n in (3, 9)
        )
        with pytest.raises(ValueError, match="epoch 1, batch 3"):
            fit(model, batches([4] * 8))
        fit(other, batches([4] * 8)[:2])
        assert_array_equal(model.state_dict()["3.running_var"], other.state_dict()["3.running_var"])

    def test_after_validation_the_running_statistics_are_those_of_the_whole_epoch(self) -> None:
        # The data of the validation are at fault, so neither they nor the weights go back.
        model, other = (classifier(nn.BatchNorm1d(8)) for _ in range(2))
        points, labels = blobs(300)
        points[299] = np.nan
        with pytest.raises(ValueError, match="validation: the data of this batch contain NaN"):
            fit(model, batches([4] * 3), validation=(points, labels))
        fit(other, batches([4] * 3))
        assert_array_equal(weights(model), weights(other))

    def test_it_says_which_weights_the_model_has(self) -> None:
        data = batches([4, 4])
        began = "; the model has the weights that the run began with"
        with pytest.raises(ValueError, match=began):
            fit(classifier(Fault(1, forward=lambda x: x * np.nan)), data)
        with pytest.raises(ValueError, match="; the model has the last weights with which the los"):
            fit(classifier(Fault(2, forward=lambda x: x * np.nan)), data)
        data[0][0][0] = np.nan
        with pytest.raises(ValueError, match="; the model has the weights of before this batch"):
            fit(classifier(), data)

    def test_a_loss_of_infinity_in_a_later_epoch_says_which(self) -> None:
        model = nn.Sequential(nn.Linear(1, 1, bias=False))
        model[0].weight.data = [[1.0]]  # type: ignore[attr-defined]
        ones, zeros = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
        # Each step multiplies the weight by 1 - 2e6: its square leaves float32 with the fourth.
        with pytest.raises(ValueError, match=r"epoch 2, batch 2: .*the last weights with which"):
            nn.fit(
                model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=1e6),
                [(ones, zeros)] * 3, epochs=9, progress=False,
            )  # fmt: skip
        # Three steps were good, the fourth led to a square of 1.6e25² = 2.6e50.
        assert model[0].weight.data[0, 0] == pytest.approx((1 - 2e6) ** 3, rel=1e-6)  # type: ignore[attr-defined]

    def test_a_gradient_of_nan_is_not_stepped_with(self) -> None:
        def spoil(grad: Array) -> Array:
            grad = grad.copy()
            grad[0, 0] = np.nan
            return grad

        model = classifier(Fault(3, backward=spoil))
        with pytest.raises(
            ValueError,
            match=r"epoch 1, batch 3: the gradient of the parameter of shape \(8, 5\) con",
        ):
            fit(model, batches([4] * 8))
        assert_array_equal(weights(model), after(2))

    def test_a_gradient_whose_square_overflows_is_finite(self) -> None:
        model = nn.Sequential(nn.Linear(1, 1, bias=False))
        data = [(np.full((1, 1), 1e25, np.float32), np.full((1, 1), -1e25, np.float32))]
        nn.fit(
            model,
            nn.MeanAbsoluteError(),
            nn.SGD(model.parameters(), lr=1e-35),
            data,
            progress=False,
        )

    def test_data_with_nan_are_named_and_the_weights_are_those_of_the_last_step(self) -> None:
        data = batches([4] * 8)
        data[2][0][1, 1] = np.nan
        model = classifier(nn.BatchNorm1d(8))
        with pytest.raises(
            ValueError, match="epoch 1, batch 3: the data of this batch contain NaN"
        ):
            fit(model, data)
        assert_array_equal(weights(model), after(2, nn.BatchNorm1d(8)))

    def test_validation_that_is_not_finite_stops_too(self) -> None:
        model = nn.Sequential(nn.Linear(1, 1, bias=False))
        model[0].weight.data = [[1.0]]  # type: ignore[attr-defined]
        ones, zeros = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
        with pytest.raises(ValueError, match=r"epoch 1.*validation: the loss is inf"):
            nn.fit(
                model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=1e25),
                [(ones, zeros)], validation=(ones, zeros), progress=False,
            )  # fmt: skip
        assert model[0].weight.data == 1  # type: ignore[attr-defined]


class TestOtherErrors:
    """Whatever ends a step, the model is as it was before it, the running statistics too."""

    def unfinished(self, error: type[BaseException], data: Any, **options: Any) -> None:
        model = classifier(nn.BatchNorm1d(8))
        with pytest.raises(error):
            fit(model, data, **options)
        assert_array_equal(weights(model), after(2, nn.BatchNorm1d(8)))

    def test_a_label_out_of_range(self) -> None:
        data = batches([4] * 8)
        data[2][1][0] = 7
        self.unfinished(ValueError, data)

    def test_a_metric_that_fails(self) -> None:
        calls = []

        def failing(predictions: Array, labels: Array) -> float:
            calls.append(labels)
            return 1 / (3 - len(calls))

        self.unfinished(ZeroDivisionError, batches([4] * 8), metrics=[failing])

    def test_an_optimizer_that_fails(self) -> None:
        class Failing(nn.SGD):
            count = 0

            def step(self) -> None:
                super().step()
                self.count += 1
                if self.count == 3:
                    raise KeyboardInterrupt

        model = classifier(nn.BatchNorm1d(8))
        optimizer = Failing(model.parameters(), lr=0.1, momentum=0.9)
        with pytest.raises(KeyboardInterrupt):
            nn.fit(model, nn.CrossEntropy(), optimizer, batches([4] * 8), progress=False)
        assert_array_equal(weights(model), after(2, nn.BatchNorm1d(8)))

    def test_sample_weights_that_do_not_fit_are_named_by_the_loss(self) -> None:
        (points, labels) = blobs(4)
        for sample_weight in (np.ones(3), ["a"] * 4, np.ones((4, 2)), [1, -1, 0, 0]):
            data: Any = [(points, labels, sample_weight), (points, labels, np.ones(4))]
            with pytest.raises((ValueError, TypeError), match=r"batch 1: CrossEntropy.* weights"):
                fit(classifier(), data, accumulate=2)

    def test_sample_weights_that_only_the_loss_can_take_are_refused(self) -> None:
        class Lenient(nn.CrossEntropy):
            def forward(self, prediction: Array, target: Any, sample_weight: Any = None) -> Any:
                return super().forward(prediction, target)

        points, labels = blobs(4)
        with pytest.raises(ValueError, match=r"one for each sample, got the shape \(3,\)"):
            fit(classifier(), [(points, labels, np.ones(3))], loss=Lenient())

    def test_a_label_out_of_range_of_the_class_weights_is_named_by_the_loss(self) -> None:
        points, labels = blobs(4)
        labels[0] = 3
        with pytest.raises(ValueError, match=r"CrossEntropy.*labels must be in \[0, 3\)"):
            fit(classifier(), [(points, labels)], loss=nn.CrossEntropy(weight=[1, 2, 3]))


class TestInterrupt:
    def interrupted(self, model: nn.Layer, data: Any, **options: Any) -> nn.History:
        history = nn.History()
        with pytest.raises(KeyboardInterrupt):
            fit(model, data, history=history, **options)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return history

    @pytest.fixture(autouse=True)
    def _default_handler(self) -> Iterator[None]:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.parametrize("where", ["forward", "backward"])
    def test_within_a_step_waits_for_its_end(self, where: str) -> None:
        def interrupt(array: Array) -> Array:
            signal.raise_signal(signal.SIGINT)
            return array

        model = classifier(Fault(3, **{where: interrupt}))
        history = self.interrupted(model, batches([4] * 8))
        assert_array_equal(weights(model), after(3))
        assert history.epochs.size == 0

    def test_keeps_the_history_of_whole_epochs(self) -> None:
        def interrupt(array: Array) -> Array:
            signal.raise_signal(signal.SIGINT)
            return array

        model, other = classifier(Fault(7, forward=interrupt)), classifier()
        history = self.interrupted(model, batches([4, 4, 4]), epochs=5)
        assert_array_equal(history["loss"], fit(other, batches([4, 4, 4]), epochs=2)["loss"])

    def test_at_the_end_of_an_epoch_waits_for_its_figures_and_schedule(self) -> None:
        class Interrupting(nn.ReduceLROnPlateau):
            def step(self, metric: float) -> None:
                signal.raise_signal(signal.SIGINT)
                super().step(metric)

        model, history = classifier(), nn.History()
        optimizer = nn.SGD(model.parameters())
        schedule = Interrupting(optimizer)
        with pytest.raises(KeyboardInterrupt):
            nn.fit(
                model, nn.CrossEntropy(), optimizer, batches([4]), epochs=2, schedule=schedule,
                history=history, progress=False,
            )  # fmt: skip
        assert schedule.best == history["loss"][0]

    def test_in_the_data_it_is_at_once(self) -> None:
        class Data:
            def __iter__(self) -> Iterator[Any]:
                yield from batches([4] * 8)[:2]
                signal.raise_signal(signal.SIGINT)
                raise AssertionError("the interrupt has come too late")

        model = classifier()
        self.interrupted(model, Data())
        assert_array_equal(weights(model), after(2))

    @pytest.mark.parametrize("every", [{"every_batches": 1}, {}])
    def test_while_a_checkpoint_is_written_it_waits(
        self, every: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(descriptor: int) -> None:
            patch.undo()
            signal.raise_signal(signal.SIGINT)
            os.fsync(descriptor)

        data = batches([4] * 8)[:2]
        checkpoint = nn.Checkpoint(tmp_path / "run.npz", **every)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupt)
            self.interrupted(classifier(), data, checkpoint=checkpoint)
        assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
        model = classifier()
        fit(model, data, checkpoint=checkpoint, resume=True)
        assert_array_equal(weights(model), after(2))

    def test_twice_does_not_wait(self) -> None:
        def insist(array: Array) -> Array:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the interrupt has come too late")

        model = classifier(nn.BatchNorm1d(8), Fault(2, forward=insist))
        self.interrupted(model, batches([4] * 8))
        assert_array_equal(weights(model), after(1, nn.BatchNorm1d(8)))

    def test_a_handler_of_the_program_stays(self) -> None:
        calls = []
        signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))

        def interrupt(array: Array) -> Array:
            signal.raise_signal(signal.SIGINT)
            return array

        fit(classifier(Fault(2, forward=interrupt)), batches([4] * 8))
        assert calls == [signal.SIGINT]


class TestProgress:
    def test_prints_a_line_for_each_epoch(self, capsys: pytest.CaptureFixture[str]) -> None:
        history = fit(
            classifier(), batches([8]), epochs=2, validation=blobs(8), metrics=[nn.accuracy],
            progress=True, callbacks=[lambda t: t.epoch == 2 and t.stop("that is all")],
        )  # fmt: skip
        out, err = capsys.readouterr()
        first, second = out.splitlines()
        assert first.startswith(f"epoch 1/2  loss {history['loss'][0]:<#9.4g} accuracy ")
        assert re.fullmatch(r".*  lr 0\.1000   +\d+\.\d s; stopped, as that is all", second)
        names = ["loss", "accuracy", "val_loss", "val_accuracy", "lr"]
        assert [first.index(f" {name} ") for name in names] == [
            second.index(f" {name} ") for name in names
        ]
        assert err == ""  # no bar where there is no terminal

    def test_says_that_there_is_nothing_to_do(self, capsys: pytest.CaptureFixture[str]) -> None:
        model, history = classifier(), nn.History()
        fit(model, batches([8]), epochs=2, history=history)
        fit(model, batches([8]), epochs=2, history=history, progress=True)
        assert capsys.readouterr().out == "nothing to do: the history has 2 epochs already\n"

    def test_off_is_silent(self, capsys: pytest.CaptureFixture[str]) -> None:
        fit(classifier(), batches([8]), epochs=2)
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("sized", [True, False])
    def test_shows_a_bar_on_a_terminal_and_takes_it_away(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sized: bool
    ) -> None:
        import sys
        import time

        class Slow:
            def __iter__(self) -> Iterator[Any]:
                for batch in batches([4] * 3):
                    time.sleep(0.11)  # tqdm draws ten times in a second
                    yield batch

        if sized:
            monkeypatch.setattr(Slow, "__len__", lambda self: 3, raising=False)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        fit(classifier(), Slow(), progress=True)
        drawn = capsys.readouterr().err.split("\r")
        assert any("2/3" in line if sized else "2 batches" in line for line in drawn)
        assert any("loss " in line for line in drawn)
        assert drawn[-1] == ""
        assert drawn[-2].strip() == ""


class TestEvaluate:
    @pytest.mark.parametrize(
        "loss",
        [
            nn.CrossEntropy(),
            nn.CrossEntropy("sum"),
            nn.CrossEntropy(weight=[0.5, 2, 3], ignore_index=1, label_smoothing=0.2),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("batch_size", [1, 7, 256])
    def test_is_that_of_one_batch_whatever_the_batches(
        self, loss: nn.Loss, batch_size: int
    ) -> None:
        points, labels = blobs()
        model = classifier().astype(np.float64)

        def accuracy(scores: Array, labels: Array) -> float:
            return nn.accuracy(scores, labels, ignore_index=loss.ignore_index)  # type: ignore[attr-defined]

        figures = nn.evaluate(
            model, loss, (points, labels), metrics=[accuracy], batch_size=batch_size
        )
        logits = model(points)
        assert figures["loss"] == pytest.approx(loss(logits, labels), rel=1e-12)
        assert figures["accuracy"] == pytest.approx(accuracy(logits, labels), rel=1e-12)

    def test_takes_sample_weights(self) -> None:
        points, labels = blobs(10)
        sample_weight = np.arange(10)
        model, loss = classifier().astype(np.float64), nn.CrossEntropy(weight=[1, 2, 3])
        figures = nn.evaluate(model, loss, (points, labels, sample_weight), batch_size=3)
        expected = loss(model(points), labels, sample_weight)
        assert figures["loss"] == pytest.approx(expected, rel=1e-12)

    def test_takes_sample_weights_of_several_outputs(self, rng: np.random.Generator) -> None:
        inputs, targets = rng.normal(size=(9, 5)), rng.normal(size=(9, 3))
        sample_weight = np.arange(9)
        model, loss = classifier().astype(np.float64), nn.Huber()
        figures = nn.evaluate(model, loss, (inputs, targets, sample_weight), batch_size=4)
        expected = loss(model(inputs), targets, sample_weight)
        assert figures["loss"] == pytest.approx(expected, rel=1e-12)

    def test_a_loss_may_have_a_parameter_of_the_name_weight(self) -> None:
        class Scaled(nn.Loss):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter([2.0])
                self.inner = nn.CrossEntropy()

            def forward(self, prediction: Array, target: Any, sample_weight: Any = None) -> Any:
                return float(self.weight.data[0]) * self.inner(prediction, target)

        model = classifier()
        doubled = nn.evaluate(model, Scaled(), blobs(), batch_size=7)["loss"]
        single = nn.evaluate(model, nn.CrossEntropy(), blobs(), batch_size=7)["loss"]
        assert doubled == pytest.approx(2 * single)

    def test_tells_a_tuple_of_batches_from_a_tuple_of_arrays(self) -> None:
        model, loss, (points, labels) = classifier(), nn.CrossEntropy(), blobs(8)
        expected = nn.evaluate(model, loss, (points, labels))["loss"]
        parts = ((points[:4], labels[:4]), (points[4:], labels[4:]))
        for data in (parts, list(parts), (points, labels.tolist())):
            assert nn.evaluate(model, loss, data)["loss"] == pytest.approx(expected)
        fit(model, parts, validation=parts)

    def test_takes_several_inputs(self, rng: np.random.Generator) -> None:
        model = nn.Graph({"sum": (nn.Add(), "left", "right")}, inputs=["left", "right"])
        left, right, targets = rng.normal(size=(3, 7, 2))
        loss = nn.MeanSquaredError()
        expected = pytest.approx(((left + right - targets) ** 2).mean())
        data = (left, right), targets
        assert nn.evaluate(model, loss, data, batch_size=3)["loss"] == expected
        assert nn.evaluate(model, loss, [data])["loss"] == expected
        for batch_size in (3, 7):
            outputs = nn.predict(model, (left, right), batch_size=batch_size)
            assert_array_equal(outputs, left + right)
        with pytest.raises(ValueError, match=r"same length, got the shapes \(7, 2\) and \(6, 2\)"):
            nn.predict(model, (left, right[:6]))

    def test_takes_a_list_of_arrays_for_a_tuple(self) -> None:
        model, loss, data = classifier(), nn.CrossEntropy(), blobs()
        assert nn.evaluate(model, loss, list(data)) == nn.evaluate(model, loss, data)

    def test_takes_batches_and_named_metrics(self) -> None:
        figures = nn.evaluate(
            classifier(), nn.CrossEntropy(), batches([3, 1]),
            metrics={"top_2": lambda scores, labels: nn.top_k_accuracy(scores, labels, k=2)},
        )  # fmt: skip
        assert list(figures) == ["loss", "top_2"]

    def test_keeps_no_caches_and_no_gradients_and_puts_the_mode_back(self) -> None:
        model = classifier(nn.Dropout(0.5), nn.BatchNorm1d(8))
        model[1].eval()
        before = weights(model)
        first, second = (nn.evaluate(model, nn.CrossEntropy(), blobs()) for _ in range(2))
        assert first == second
        assert [layer.training for layer in model] == [True, False, True, True, True]
        assert_array_equal(weights(model), before)
        with pytest.raises(RuntimeError, match="call forward before it"):
            model.backward(np.zeros((60, 3), np.float32))

    def test_says_what_is_wrong_with_the_data(self) -> None:
        model, loss = classifier(), nn.CrossEntropy(ignore_index=0)
        points, labels = blobs(4)
        with pytest.raises(ValueError, match="evaluate: every target is ignored"):
            nn.evaluate(model, loss, (points, labels * 0))
        with pytest.raises(ValueError, match="evaluate: the data gave no batch"):
            nn.evaluate(model, loss, [])
        with pytest.raises(TypeError, match=r"a batch must be a pair .*, got ndarray"):
            nn.evaluate(model, loss, iter([points, labels]))
        with pytest.raises(TypeError, match="expected a tuple of arrays or batches, got int"):
            nn.evaluate(model, loss, 7)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="the metric 'confusion_matrix' must give a number"):
            nn.evaluate(model, nn.CrossEntropy(), blobs(4), metrics=[nn.confusion_matrix])


class TestPredict:
    def test_is_that_of_one_batch_in_evaluation_mode(self) -> None:
        points, _ = blobs(30)
        model = classifier(nn.Dropout(0.5)).astype(np.float64)
        expected = model.eval()(points)
        model.train()
        assert_allclose(nn.predict(model, points, batch_size=7), expected, rtol=1e-12)
        assert model[2].training

    def test_leaves_the_modes_alone_that_other_threads_see(self) -> None:
        seen: list[tuple[bool, bool]] = []

        class Curious(nn.Layer):
            def forward(self, x: Array) -> Array:
                here = self.training
                with ThreadPoolExecutor(1) as pool:
                    elsewhere = pool.submit(lambda: self.training).result()
                seen.append((here, elsewhere))
                return x

        model = nn.Sequential(Curious())
        nn.predict(model, np.zeros((2, 3), np.float32))
        model(np.zeros((2, 3), np.float32))
        assert seen == [(False, True), (True, True)]

    def test_puts_the_mode_back_after_an_error(self) -> None:
        model = classifier(nn.Dropout(0.5))
        with pytest.raises(ValueError, match="expected input of shape"):
            nn.predict(model, np.zeros((2, 7), np.float32))
        assert all(layer.training for layer in model)
        assert nn.is_grad_enabled()

    def test_is_an_array_of_its_own(self) -> None:
        inputs = np.zeros((4, 5), np.float32)
        outputs = nn.predict(nn.Sequential(nn.Flatten()), inputs)
        outputs += 1
        assert_array_equal(inputs, 0)

    def test_without_inputs_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="expected at least one input"):
            nn.predict(classifier(), np.zeros((0, 5), np.float32))


class TestWhatDoesNotFit:
    """One sentence each, before anything is trained."""

    def refused(self, error: type[Exception], message: str, **changes: Any) -> None:
        model = changes.pop("model", None) or classifier()
        before = weights(model) if isinstance(model, nn.Layer) else None
        optimizer = changes.pop("optimizer", None) or nn.SGD(model.parameters())
        arguments = {"loss": nn.CrossEntropy(), "train": batches([4, 4]), **changes}
        with pytest.raises(error, match=message) as caught:
            nn.fit(model, arguments.pop("loss"), optimizer, progress=False, **arguments)
        assert "\n" not in str(caught.value)
        if before is not None:
            assert_array_equal(weights(model), before)

    def test_numbers_out_of_range(self) -> None:
        self.refused(ValueError, "fit: epochs must be at least 0, got -1", epochs=-1)
        self.refused(TypeError, "fit: epochs must be an int, got 1.5", epochs=1.5)
        self.refused(ValueError, "fit: accumulate must be at least 1, got 0", accumulate=0)
        self.refused(ValueError, "fit: max_grad_norm must be above 0", max_grad_norm=0)

    def test_data_that_are_used_up_or_empty(self) -> None:
        self.refused(ValueError, "fit: epoch 1: the training data gave no batch", train=[])
        generator = (batch for batch in batches([4]))
        self.refused(TypeError, "a generator is used up after one epoch", train=generator, epochs=2)
        self.refused(
            TypeError, "a zip of validation data is used up", validation=zip([], [], strict=True)
        )
        model = classifier()
        assert fit(model, (batch for batch in batches([4]))).epochs.size == 1

    def test_data_that_are_no_batches(self) -> None:
        points, labels = blobs(4)
        self.refused(
            TypeError, r"must be batches, got arrays; write DataLoader", train=(points, labels)
        )
        self.refused(TypeError, "must be batches, such as a DataLoader, got ndarray", train=points)
        self.refused(
            TypeError,
            r"epoch 1, batch 1: a batch must be a pair .* got dict",
            train=[{"points": points}],
        )
        self.refused(TypeError, "a batch must be a pair .* got 4 items", train=[(points,) * 4])

    def test_validation_data_of_another_shape(self) -> None:
        points, labels = blobs(4)
        self.refused(
            ValueError, r"fit: validation: Linear\(5, 8\)", validation=(points[:, :4], labels)
        )
        self.refused(ValueError, "same length", validation=(points, labels[:3]))
        self.refused(
            ValueError, r"fit: validation: CrossEntropy.* need labels of shape \(4,\)",
            validation=(points, points),
        )  # fmt: skip

    def test_validation_data_of_which_the_first_labels_are_ignored_are_fine(self) -> None:
        points, labels = blobs(300)
        labels[:256] = -100
        calls = []

        def count(predictions: Array, labels: Array) -> float:
            calls.append(len(labels))
            return 0.0

        model = classifier()
        history = fit(model, batches([4]), validation=(points, labels), metrics=[count])
        expected = nn.evaluate(model, nn.CrossEntropy(), (points[256:], labels[256:]))
        assert history["validation_loss"][0] == expected["loss"]
        assert calls == [4, 44]  # not on trial, and not where nothing counts

    def test_a_batch_that_the_loss_cannot_take_says_where(self) -> None:
        data = batches([4] * 8)
        data[1][1][2] = 7
        model = classifier()
        with pytest.raises(
            ValueError, match=r"fit: epoch 1, batch 2: CrossEntropy.*labels must be"
        ):
            fit(model, data)
        assert_array_equal(weights(model), after(1))

    def test_validation_data_of_the_wrong_kind(self) -> None:
        points, labels = blobs(8)
        kinds = "must be a tuple of arrays .* or batches, got"
        self.refused(TypeError, f"validation data {kinds} ndarray", validation=points)
        self.refused(TypeError, f"validation data {kinds} str", validation="points")
        self.refused(TypeError, f"validation data {kinds} dict", validation={"x": points})
        self.refused(TypeError, f"validation data {kinds} int", validation=3)
        self.refused(ValueError, "fit: validation: the data have no batch", validation=[])
        pair = "fit: validation: a batch must be a pair"
        self.refused(TypeError, pair, validation=[points])
        self.refused(TypeError, pair, validation=[{"x": points}])
        self.refused(TypeError, pair, validation=nn.DataLoader(points, batch_size=4))
        shape = r"fit: validation: Linear\(5, 8\)"
        self.refused(ValueError, shape, validation=[(points[:, :4], labels)])
        self.refused(ValueError, shape, validation=nn.DataLoader(points[:, :4], labels))
        nothing = "fit: validation: every target is ignored or has no weight"
        ignored = np.full_like(labels, -100)
        self.refused(ValueError, nothing, validation=(points, [-100] * len(labels)))
        self.refused(ValueError, nothing, validation=[(points, ignored), (points, ignored)])
        self.refused(ValueError, nothing, validation=nn.DataLoader(points, ignored))
        self.refused(
            ValueError, nothing, validation=(points, labels, np.zeros(len(labels), np.float32))
        )

    def test_a_trial_of_validation_data_draws_no_order(self) -> None:
        points, labels = blobs(8)
        loader = nn.DataLoader(points, labels, batch_size=4, shuffle=True)
        nn.seed(0)
        fit(nn.Sequential(nn.Linear(5, 3, rng=0)), batches([4]), epochs=0, validation=loader)
        drawn = np.random.default_rng(0).permutation(8)
        assert_array_equal(next(iter(loader))[1], labels[drawn[:4]])

    def test_an_optimizer_of_another_model(self) -> None:
        other = classifier()
        self.refused(
            ValueError,
            r"fit: 4 of the 4 parameters of the optimizer are not in the model, the first of shape "
            r"\(8, 5\)",
            optimizer=nn.SGD(other.parameters()),
        )
        self.refused(TypeError, "expected an optimizer such as", optimizer=nn.SGD)

    def test_what_is_no_model_or_loss(self) -> None:
        self.refused(
            TypeError,
            r"the loss must be an object, got the class CrossEntropy",
            loss=nn.CrossEntropy,
        )
        self.refused(TypeError, "the loss must be a layer, got str", loss="mse")
        swapped = "expected the model first and the loss after it"
        model, loss = classifier(), nn.CrossEntropy()
        optimizer = nn.SGD(model.parameters())
        with pytest.raises(TypeError, match=f"fit: {swapped}"):
            nn.fit(loss, model, optimizer, batches([4]))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=f"evaluate: {swapped}"):
            nn.evaluate(loss, model, blobs())  # type: ignore[arg-type]
        self.refused(
            ValueError, "gives no single number; use reduction='mean'", loss=nn.CrossEntropy("none")
        )

    def test_metrics(self) -> None:
        self.refused(TypeError, "metrics must be a list of functions", metrics=nn.accuracy)
        self.refused(TypeError, "a metric must be a function of", metrics=[1])
        self.refused(ValueError, "'<lambda>' cannot be the name", metrics=[lambda a, b: 0.0])
        self.refused(ValueError, "two metrics of the name", metrics=[nn.accuracy, nn.accuracy])
        self.refused(ValueError, "'loss' cannot be the name", metrics={"loss": nn.accuracy})
        self.refused(
            ValueError,
            "'validation_loss' cannot be the n",
            metrics={"validation_loss": nn.accuracy},
        )

    def test_others(self) -> None:
        self.refused(ValueError, "resume needs the checkpoint to go on from", resume=True)
        self.refused(TypeError, "expected the path of a file .*, got True", checkpoint=True)
        self.refused(TypeError, "history must be a History, got dict", history={})
        for name in ("resume", "progress", "rollback"):
            model = classifier()
            options = {"progress": False, name: "no"}
            with pytest.raises(TypeError, match=f"fit: {name} must be True or False, got 'no'"):
                fit(model, batches([4]), **options)


@pytest.mark.parametrize("samples", [3, 4, 5, 8, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predict_keeps_the_type_and_leaves_no_caches(samples: int, dtype: Any) -> None:
    model = nn.Linear(2, 3, rng=0).astype(dtype)
    x = np.arange(2 * samples, dtype=dtype).reshape(samples, 2)
    outputs = nn.predict(model, x, batch_size=4)
    assert_allclose(outputs, x @ model.weight.data.T + model.bias.data, rtol=1e-5, atol=1e-5)
    assert (outputs.shape, outputs.dtype) == ((samples, 3), dtype)
    with pytest.raises(RuntimeError, match="call forward"):
        model.backward(outputs)


@pytest.mark.parametrize("inputs", [(), np.float32(1), (np.float32(1), np.float32(1))])
def test_predict_refuses_what_has_no_samples(inputs: Any) -> None:
    with pytest.raises(ValueError, match="predict: expected at least one input"):
        nn.predict(nn.Identity(), inputs)


class TestBatchesInWhichNothingCounts:
    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("empty", [0, 1, 2])
    def test_they_make_no_step(self, reduction: str, empty: int) -> None:
        data = batches([4, 4, 4])
        data[empty][1][:] = -100
        model, other = classifier(), classifier()
        history = fit(model, data, nn.CrossEntropy(reduction), metrics=[nn.accuracy])
        del data[empty]
        expected = fit(other, data, nn.CrossEntropy(reduction), metrics=[nn.accuracy])
        assert_array_equal(weights(model), weights(other))
        assert history == expected

    def test_class_weights_and_sample_weights_of_zero_are_no_different(self) -> None:
        points, labels = blobs(8)
        labels[:4] = 0
        loss = nn.CrossEntropy(weight=[0.0, 1.0, 1.0])
        data = [(points[:4], labels[:4]), (points[4:], np.ones(4, int))]
        weighted = [(*data[0], np.zeros(4)), (*data[1], np.ones(4))]
        models = [classifier() for _ in range(3)]
        fit(models[0], data, loss)
        fit(models[1], weighted)
        fit(models[2], data[1:])
        assert_array_equal(weights(models[0]), weights(models[2]))
        assert_array_equal(weights(models[1]), weights(models[2]))

    def test_a_schedule_of_steps_counts_them(self) -> None:
        data = batches([4, 4])
        data[0][1][:] = -100
        model = classifier()
        optimizer = nn.SGD(model.parameters())
        schedule = nn.OneCycleLR(optimizer, 1.0, total_steps=2)
        nn.fit(
            model, nn.CrossEntropy(), optimizer, data, schedule=schedule, schedule_every="step",
            progress=False,
        )  # fmt: skip
        assert schedule.count == 2

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_an_epoch_of_nothing_else_is_an_error(self, reduction: str) -> None:
        data = batches([4, 4])
        for _, labels in data:
            labels[:] = -100
        model = classifier()
        with pytest.raises(ValueError, match="every target of the training data is ignored"):
            fit(model, data, nn.CrossEntropy(reduction))
        assert_array_equal(weights(model), weights(classifier()))


class TestRollback:
    def test_off_gives_the_same_bits(self) -> None:
        models = [classifier(nn.BatchNorm1d(8)) for _ in range(2)]
        histories = [
            fit(model, batches([4, 4, 4]), epochs=2, rollback=on)
            for model, on in zip(models, (True, False), strict=True)
        ]
        assert_array_equal(weights(models[0]), weights(models[1]))
        assert histories[0] == histories[1]

    def test_off_keeps_the_weights_that_a_loss_of_nan_came_from(self) -> None:
        model = classifier(Fault(3, forward=lambda x: x * np.nan))
        with pytest.raises(ValueError, match="batch 3.*; the model keeps its weights, as rollback"):
            fit(model, batches([4] * 8), rollback=False)
        assert_array_equal(weights(model), after(2))

    def test_a_frozen_parameter_that_somebody_changes_is_left_alone(self) -> None:
        class Change(nn.Callback):
            def on_step_end(self, training: nn.Training) -> None:
                first = next(iter(training.model.parameters()))
                first.data = first.data + 1

        model = classifier(Fault(3, forward=lambda x: x * np.nan))
        model[0].weight.requires_grad = False
        before = model[0].weight.data.copy()
        with pytest.raises(ValueError, match="batch 3"):
            fit(model, batches([4] * 8), callbacks=[Change()])
        assert_array_equal(model[0].weight.data, before + 1 + 1)


class TestCyclesOfSteps:
    @pytest.mark.parametrize("in_a_sequence", [False, True])
    def test_that_are_stepped_once_an_epoch_are_warned_of(self, in_a_sequence: bool) -> None:
        model = classifier()
        optimizer = nn.SGD(model.parameters())
        schedule: nn.Schedule = nn.OneCycleLR(optimizer, 0.1, total_steps=400)
        if in_a_sequence:
            schedule = nn.SequentialLR(optimizer, [nn.ExponentialLR(optimizer, 1), schedule], [1])
        message = (
            "total_steps=400, but is stepped after each of 2 epochs; use schedule_every='step'"
        )
        with pytest.warns(UserWarning, match=message) as caught:
            nn.fit(
                model, nn.CrossEntropy(), optimizer, batches([4]), epochs=2, schedule=schedule,
                progress=False,
            )  # fmt: skip
        assert caught[0].filename == __file__

    @pytest.mark.filterwarnings("error")
    def test_that_fit_are_not(self) -> None:
        for steps, every in ((2, "epoch"), (4, "step")):
            model = classifier()
            optimizer = nn.SGD(model.parameters())
            nn.fit(
                model, nn.CrossEntropy(), optimizer, batches([4, 4]), epochs=2, progress=False,
                schedule=nn.OneCycleLR(optimizer, 0.1, total_steps=steps), schedule_every=every,
            )  # fmt: skip


class Returning(nn.Layer):
    """A model that applies a function to its input."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def forward(self, x: Array) -> Any:
        return self.function(x)


@pytest.mark.parametrize("samples", [4, 9])
class TestPredictRefuses:
    def test_outputs_that_are_no_arrays(self, samples: int) -> None:
        for returning in (Returning(lambda x: (x, [x])), Returning(lambda x: [x, x])):
            with pytest.raises(TypeError, match="predict: .* must return .* arrays, got list"):
                nn.predict(returning, np.zeros((samples, 2)), batch_size=4)

    @pytest.mark.parametrize("function", [lambda x: x[1:], lambda x: x.mean(axis=0), np.sum])
    def test_another_number_of_rows(self, samples: int, function: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="predict: .* must return"):
            nn.predict(Returning(function), np.zeros((samples, 2)), batch_size=4)

    def test_a_last_batch_of_another_number_of_rows(self, samples: int) -> None:
        padded = Returning(lambda x: np.zeros((4, 2)))
        if samples == 4:
            assert nn.predict(padded, np.zeros((samples, 2)), batch_size=4).shape == (4, 2)
            return
        with pytest.raises(ValueError, match="a row for each of the 1 samples of a batch"):
            nn.predict(padded, np.zeros((samples, 2)), batch_size=4)

    def test_what_is_no_model_or_no_array(self, samples: int) -> None:
        x, model = np.zeros((samples, 2)), nn.Identity()
        with pytest.raises(TypeError, match=r"must be a layer, got ndarray; write predict\(m"):
            nn.predict(x, model)
        with pytest.raises(TypeError, match="got the class Identity; write Identity"):
            nn.predict(nn.Identity, x)
        with pytest.raises(TypeError, match="predict: expected the inputs as an array, got a Data"):
            nn.predict(model, nn.DataLoader(x))
        with pytest.raises(TypeError, match="predict: a masked array would lose its mask"):
            nn.predict(model, np.ma.masked_equal(x, 0))
        sparse = pytest.importorskip("scipy.sparse")
        with pytest.raises(TypeError, match=r"expected arrays, got csr_matrix; .*\.toarray\(\)"):
            nn.predict(model, sparse.csr_matrix(x))

    def test_outputs_that_depend_on_the_batch_size(self, samples: int) -> None:
        x = np.random.default_rng(0).normal(size=(samples, 2)).astype(np.float32)
        model = nn.Sequential(nn.BatchNorm1d(2, affine=False, track_running_stats=False))
        expected = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
        assert_allclose(nn.predict(model, x, batch_size=samples), expected, rtol=1e-4, atol=1e-6)
        if samples > 4:
            message = "layer '0', BatchNorm1d.* uses the statistics of the batch.*batch_size=9"
            with pytest.raises(ValueError, match=message):
                nn.predict(model, x, batch_size=4)


@pytest.mark.parametrize("function", ["predict", "evaluate"])
def test_another_thread_may_use_the_model_while_it_trains(function: str) -> None:
    points, labels = blobs(8)
    data = batches([4] * 8)
    answers: list[Any] = []

    class Ask(nn.Callback):
        """Asks in another thread, between the forward and the backward of a batch too."""

        def ask(self, model: nn.Layer) -> None:
            with ThreadPoolExecutor(1) as pool:
                if function == "predict":
                    answers.append(pool.submit(nn.predict, model, points).result())
                else:
                    job = pool.submit(nn.evaluate, model, nn.CrossEntropy(), (points, labels))
                    answers.append(job.result())

        def on_step_end(self, training: nn.Training) -> None:
            self.ask(training.model)

    class AskingLoss(nn.CrossEntropy):
        def forward(self, *arguments: Any) -> Any:
            Ask().ask(model)
            return super().forward(*arguments)

    model, alone = classifier(nn.Dropout(0.2, rng=1)), classifier(nn.Dropout(0.2, rng=1))
    fit(model, data, AskingLoss(), callbacks=[Ask()])
    fit(alone, data)
    assert len(answers) == 16
    assert_array_equal(weights(model), weights(alone))


def test_a_loader_of_two_inputs_trains_a_model_of_two_inputs() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40, 3)).astype(np.float32)
    target = a * 2 - b
    model = nn.Graph({"s": (nn.Linear(3, 3), "a"), "t": (nn.Linear(3, 3), "b"),
                      "y": (nn.Add(), "s", "t")}, inputs=["a", "b"])  # fmt: skip
    loader = nn.DataLoader((a, b), target, batch_size=8, shuffle=True, rng=0)
    optimizer = nn.Adam(model.parameters(), lr=0.05)
    loss = nn.MeanSquaredError()
    history = nn.fit(
        model, loss, optimizer, loader, epochs=60, validation=loader, progress=False
    )  # fmt: skip
    assert history["validation_loss"][-1] < 1e-3
    assert nn.evaluate(model, loss, ((a, b), target)) == pytest.approx(
        nn.evaluate(model, loss, loader), rel=1e-4, abs=1e-8
    )
