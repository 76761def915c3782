"""`Layer.summary`: numbers derived by hand and counted by PyTorch, without side effects."""

from __future__ import annotations

import gc
import html
import re
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import nnlite as nn
from nnlite.debug.summary import LayerSummary, Summary

from ..registry import LAYERS, LayerCase

every_layer = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)


def lenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def line(summary: Summary, name: str) -> LayerSummary:
    (found,) = [layer for layer in summary.layers if layer.name == name]
    return found


# ---- the figures ----


def test_the_figures_of_lenet_are_those_of_the_paper() -> None:
    # LeCun et al. 1998, with all channels of the second convolution connected: a 5×5 kernel and
    # a bias for each pair of channels.
    summary = lenet().summary((1, 28, 28), batch_size=3)
    convolutions = [6 * (25 + 1), 16 * (6 * 25 + 1)]
    linear = [120 * (400 + 1), 84 * (120 + 1), 10 * (84 + 1)]
    assert summary.parameters == sum(convolutions) + sum(linear) == 61_706
    assert summary.trainable_parameters == 61_706
    assert summary.frozen_parameters == summary.buffers == 0
    per_image = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25 + 400 * 120 + 120 * 84 + 84 * 10
    assert summary.multiply_adds == 3 * per_image
    assert [layer.output_shape for layer in summary.layers] == [
        (3, 10),
        (3, 6, 28, 28),
        (3, 6, 28, 28),
        (3, 6, 14, 14),
        (3, 16, 10, 10),
        (3, 16, 10, 10),
        (3, 16, 5, 5),
        (3, 400),
        (3, 120),
        (3, 120),
        (3, 84),
        (3, 84),
        (3, 10),
    ]
    # 784 inputs, two arrays after each of four layers but the last, one after pooling; Flatten
    # hands on what it gets.
    activations = 784 + 2 * 4704 + 1176 + 2 * 1600 + 400 + 2 * 120 + 2 * 84 + 10
    assert summary.activation_bytes == 4 * 3 * activations
    assert summary.state_bytes == 4 * 61_706
    assert lenet().astype(np.float64).summary((1, 28, 28)).state_bytes == 8 * 61_706


@pytest.mark.parametrize(("cell", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers_multiply_every_weight_once_for_each_step(cell: Any, gates: int) -> None:
    # Layer 0 takes 5 features and layer 1 the 2·7 states below; all have 7 states of their own.
    layer = cell(5, 7, num_layers=2, bidirectional=True, outputs="last")
    (found,) = layer.summary((11, 5), batch_size=3).layers
    assert found.multiply_adds == 3 * 11 * gates * 7 * 2 * ((5 + 7) + (14 + 7))
    assert found.parameters == gates * 7 * 2 * ((5 + 7 + 2) + (14 + 7 + 2))
    assert found.output_shape == (3, 14)


@pytest.mark.parametrize(("cell", "gates"), [(nn.RNNCell, 1), (nn.GRUCell, 3), (nn.LSTMCell, 4)])
def test_cells_multiply_every_weight_once(cell: Any, gates: int) -> None:
    (found,) = cell(5, 7).summary(5, batch_size=3).layers
    assert found.multiply_adds == 3 * gates * 7 * (5 + 7)


def test_an_embedding_multiplies_nothing_and_takes_integers() -> None:
    model = nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 3))
    for dtype in (int, np.int32, "uint8", [np.int64]):
        summary = model.summary(12, batch_size=2, dtype=dtype)
        assert [layer.multiply_adds for layer in summary.layers] == [0, 0, 2 * 12 * 8 * 3]
        assert summary.layers[1].output_shape == (2, 12, 8)


def test_a_shared_parameter_counts_once_and_its_products_every_time() -> None:
    step = nn.Linear(4, 4, bias=False)
    summary = nn.Sequential(step, nn.Tanh(), step.tied(), step.tied()).summary(4)
    assert summary.parameters == 16
    assert summary.multiply_adds == 3 * 16
    assert summary.state_bytes == 4 * 16
    assert [layer.shared_parameters for layer in summary.layers] == [0, 0, 0, 16, 16]
    assert str(summary).count("shared") == 2


def test_frozen_parameters_and_buffers_are_told_apart() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    for parameter in model[0].parameters():
        parameter.requires_grad = False
    model[2].bias.requires_grad = False
    summary = model.summary(4)
    assert (summary.parameters, summary.trainable_parameters) == (15 + 6 + 8, 6 + 6)
    assert summary.frozen_parameters == 15 + 2
    # A mean and a variance for each of 3 features, and the number of batches, as int64.
    assert summary.buffers == 7
    assert summary.state_bytes == 4 * (29 + 6) + 8
    text = str(summary)
    assert re.search(r"^0 .* frozen 15 ", text, re.MULTILINE)
    assert re.search(r"^2 .* partly frozen 8 ", text, re.MULTILINE)
    assert "29 parameters: 12 trainable, 17 frozen; 7 numbers in buffers" in text


def test_what_is_a_view_or_was_handed_on_takes_no_memory() -> None:
    model = nn.Sequential(
        nn.Identity(), nn.Residual(nn.Linear(6, 6), nn.Dropout(0.5)), nn.Reshape(2, 3), nn.Flatten()
    )
    summary = model.summary(6, batch_size=5)
    sizes = {layer.name: layer.output_bytes for layer in summary.layers if layer.output_bytes}
    # The sum of the shortcut is memory of its own; a Dropout drops nothing in evaluation.
    assert sizes == {"1": 4 * 30, "1.body.0": 4 * 30}
    assert summary.activation_bytes == 3 * 4 * 30


def test_a_graph_of_several_inputs_takes_a_list_of_shapes_and_of_dtypes() -> None:
    model = nn.Graph(
        {
            "word": (nn.Embedding(10, 3), "index"),
            "sum": (nn.Add(), "word", "x"),
            "product": (nn.MatMul(), "sum", "matrix"),
        },
        inputs=("index", "x", "matrix"),
    )
    summary = model.summary(
        [(4,), (4, 3), (3, 2)], batch_size=5, dtype=[int, np.float32, np.float32]
    )
    assert summary.layers[0].output_shape == (5, 4, 2)
    assert line(summary, "product").multiply_adds == 5 * 4 * 3 * 2
    assert summary.activation_bytes == 8 * 20 + 4 * (60 + 30) + 4 * (60 + 60 + 40)
    assert "index (5, 4) of int64, x (5, 4, 3) of float32" in str(summary)


def test_an_own_layer_is_counted_as_it_says() -> None:
    class Outer(nn.Layer):
        def __init__(self) -> None:
            self.factor = nn.Parameter(np.ones((3, 3)))
            self.inner = nn.Linear(3, 3, bias=False)
            self.unused = nn.Linear(7, 7)

        def forward(self, x: Any) -> Any:
            return self.inner(self.inner(x @ self.factor.data)), x

        def multiply_adds(self, input_shapes: Any, output_shape: Any) -> int:
            assert input_shapes == ((2, 3),)
            assert output_shape == ((2, 3), (2, 3))
            return 2 * 9

    summary = Outer().summary(3, batch_size=2, dtype=np.float64)
    outer, inner, unused = summary.layers
    assert (outer.name, inner.name, unused.name) == ("", "inner", "unused")
    assert (outer.parameters, inner.parameters, unused.parameters) == (9, 9, 56)
    # It was called twice.
    assert (outer.multiply_adds, inner.multiply_adds, unused.multiply_adds) == (18, 36, 0)
    assert (inner.output_shape, unused.output_shape) == ((2, 3), None)
    assert re.search(r"^unused .* not called", str(summary), re.MULTILINE)


@every_layer
def test_parameters_and_output_shapes_are_those_of_the_layer(case: LayerCase) -> None:
    inputs = case.inputs(np.random.default_rng(0), 3)
    shapes, dtypes = [x.shape[1:] for x in inputs], [x.dtype for x in inputs]
    layer = case.make().astype(np.float64)
    summary = layer.summary(shapes, batch_size=3, dtype=dtypes)
    assert summary.parameters == sum(parameter.size for parameter in layer.parameters())
    assert summary.layers[0].output_shape == layer(*inputs).shape
    assert [found.name for found in summary.layers] == [name for name, _ in layer.named_layers()]
    stored = sum(value.nbytes for value in layer.state_dict().values())
    assert summary.state_bytes == stored


@st.composite
def counted_models(draw: st.DrawFn) -> tuple[Any, Any, tuple[int, ...]]:
    """Draw constructors of the same model for nnlite and PyTorch, and the shape of a sample."""
    kind = draw(st.sampled_from(["Linear", "Conv1d", "Conv2d"]))
    size = st.integers(1, 4)
    channels, outputs = draw(size), draw(size)
    if kind == "Linear":
        shape = (*draw(st.lists(size, max_size=2)), channels)
        return lambda nn: nn.Linear(channels, outputs), kind, shape
    axes = int(kind[4])
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    options = {"stride": draw(st.integers(1, 2)), "padding": draw(st.integers(0, 2))}
    shape = (channels, *(draw(st.integers(3, 7)) for _ in range(axes)))
    return lambda nn: getattr(nn, kind)(channels, outputs, kernel, **options), kind, shape


@given(drawn=counted_models(), batch_size=st.integers(1, 3))
def test_multiply_adds_are_half_of_the_operations_that_pytorch_counts(
    drawn: tuple[Any, str, tuple[int, ...]], batch_size: int
) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    make, kind, shape = drawn
    module = make(torch.nn)
    if kind == "Conv1d":
        # nnlite takes the size alone, PyTorch's layer has it in a tuple.
        assert make(nn).weight.shape == tuple(module.weight.shape)
    with FlopCounterMode(display=False) as counter:
        module(torch.ones(batch_size, *shape))
    summary = make(nn).summary(shape, batch_size)
    assert 2 * summary.multiply_adds == counter.get_total_flops()
    assert summary.parameters == sum(parameter.numel() for parameter in module.parameters())


# ---- no side effects ----


def test_the_model_stays_as_it_is() -> None:
    dropout, rng = nn.Dropout(0.5, rng=3), np.random.default_rng(0)
    model = nn.Sequential(
        nn.Linear(4, 6, rng=0), nn.BatchNorm1d(6), dropout, nn.Reshape(2, 3), nn.GRU(3, 2, rng=1)
    )
    model[1].eval()
    x = rng.normal(size=(5, 4)).astype(np.float32)
    output = model(x)
    grad = rng.normal(size=output.shape)
    expected = model.backward(grad)
    before = {
        "state": model.state_dict(),
        "modes": [layer.training for layer in model.layers()],
        "attributes": [sorted(vars(layer)) for layer in model.layers()],
        "caches": [id(layer._cache.values) for layer in model.layers()],
        "last_state": np.array(model[4].last_state),
        "package": np.array(nn.random.generator().bit_generator.state["state"]["state"]),
        "dropout": str(dropout.__dict__),
    }
    model.summary(4, batch_size=7)
    after = {
        "state": model.state_dict(),
        "modes": [layer.training for layer in model.layers()],
        "attributes": [sorted(vars(layer)) for layer in model.layers()],
        "caches": [id(layer._cache.values) for layer in model.layers()],
        "last_state": np.array(model[4].last_state),
        "package": np.array(nn.random.generator().bit_generator.state["state"]["state"]),
        "dropout": str(dropout.__dict__),
    }
    np.testing.assert_equal(after, before)
    # The backward of the forward before.
    assert_array_equal(model.backward(grad), expected)


def test_a_model_that_draws_even_in_evaluation_draws_the_same_afterwards() -> None:
    class Noise(nn.Layer):
        def __init__(self) -> None:
            self.rng = np.random.default_rng(0)

        def forward(self, x: Any) -> Any:
            return x + self.rng.normal(size=x.shape) + nn.random.generator().normal(size=x.shape)

    x, first, second = np.zeros(3), Noise(), Noise()
    nn.seed(0)
    expected = first(x)
    nn.seed(0)
    second.summary(3)
    assert_array_equal(second(x), expected)


def test_it_keeps_nothing_of_the_copy_that_it_ran() -> None:
    alive: list[weakref.ref[Any]] = []

    class Watched(nn.Linear):
        def forward(self, x: Any) -> Any:
            alive.append(weakref.ref(self))
            return super().forward(x)

    gc.disable()
    try:
        summary = nn.Sequential(Watched(3, 3)).summary(3)
        assert [ref() for ref in alive] == [None]
    finally:
        gc.enable()
    assert summary.parameters == 12


def test_it_works_within_no_grad_and_after_a_forward_that_failed() -> None:
    model = lenet()
    with pytest.raises(ValueError, match="expected images"):
        model(np.ones((1, 2, 28, 28), np.float32))
    with nn.no_grad():
        assert model.summary((1, 28, 28)).parameters == 61_706
    assert nn.is_grad_enabled()


# ---- how it shows ----


def test_the_table_has_nested_layers_indented_and_all_totals() -> None:
    model = nn.Sequential(
        nn.Residual(nn.Linear(100, 100), nn.ReLU()), nn.Linear(100, 10, bias=False)
    )
    assert str(model.summary((100,), batch_size=50)).splitlines() == [
        "summary of Sequential for input (50, 100) of float32",
        "name      layer                          output shape  parameters  multiply-adds  memory",
        "          Sequential                     (50, 10)",
        "0           Residual                     (50, 100)                                 20 kB",
        "0.body        Sequential                 (50, 100)",
        "0.body.0        Linear(100, 100)         (50, 100)         10,100        500,000   20 kB",
        "0.body.1        ReLU()                   (50, 100)              0              0   20 kB",
        "1           Linear(100, 10, bias=False)  (50, 10)           1,000         50,000    2 kB",
        "11,100 parameters: 11,100 trainable",
        "550,000 multiply-adds for one forward of the batch",
        "44.4 kB of parameters and buffers, 82 kB of inputs and outputs of layers",
    ]


def test_in_a_notebook_it_is_html_with_the_indentation_kept() -> None:
    class Strange(nn.Identity):
        def __repr__(self) -> str:
            return "<script>"

    summary = nn.Sequential(nn.Sequential(Strange())).summary(3)
    text = summary._repr_html_()
    assert "<script>" not in text
    assert "\u00a0" * 8 + html.escape("<script>") in text
    assert "\u00a0" not in repr(summary)


def test_long_shapes_and_labels_are_never_cut_off() -> None:
    # As other summaries do, to the grief of their users.
    label = "Conv2d(1, 1, (3, 5), stride=(2, 3), padding=(1, 2), dilation=(2, 1), bias=False)"
    layer = nn.Conv2d(1, 1, (3, 5), (2, 3), (1, 2), (2, 1), bias=False)
    text = str(layer.summary((1, 1000, 1000), batch_size=1))
    assert label in text
    assert "(1, 1, 499, 334)" in text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (5_000_000_000, "5 GB"),
        (3e15, "3e+03 TB"),
    ],
)
def test_bytes_are_shown_to_three_digits(count: int, text: str) -> None:
    from nnlite.debug.summary import _size

    assert _size(count) == text


# ---- errors ----


def test_a_wrong_shape_is_the_error_of_the_layer_with_its_name_in_the_model() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Residual(nn.Linear(4, 5), nn.Linear(4, 4)))
    with pytest.raises(
        ValueError,
        match=r"^layer '1.body.1': Linear\(4, 4\): expected input of shape \(N, ..., 4\), "
        r"got \(1, 5\) \(summary gave the model input \(1, 2, 2\) of float32\)$",
    ):
        model.summary((2, 2))
    graph = nn.Graph({"h": (model, "x")})
    with pytest.raises(ValueError, match=r"^layer 'h.1.body.0': Linear\(4, 5\): .*\(1, 6\)"):
        graph.summary((2, 3))
    with pytest.raises(ValueError, match=r"^Linear\(4, 5\): expected .* got \(1, 3\) \(summary "):
        nn.Linear(4, 5).summary(3)


def test_floats_for_an_embedding_are_an_error_that_shows_the_dtype() -> None:
    with pytest.raises(TypeError, match=r"^layer '0': Embedding.*integer.*\(1, 7\) of float32"):
        nn.Sequential(nn.Embedding(4, 2)).summary(7)


def test_another_number_of_inputs_than_the_model_takes_is_its_error() -> None:
    graph = nn.Graph({"y": (nn.Add(), "x", "z")}, inputs=("x", "z"))
    with pytest.raises(TypeError, match=r"^Graph: expected 2 input\(s\), 'x', 'z', got 1"):
        graph.summary((3,))
    with pytest.raises(TypeError, match="2 positional arguments but 3"):
        nn.ReLU().summary([(3,), (3,)])


def test_an_error_of_another_kind_comes_as_it_is() -> None:
    class FaultError(KeyError):
        pass

    class Fails(nn.Layer):
        def forward(self, x: Any) -> Any:
            raise FaultError("key", 3)

    with pytest.raises(FaultError) as caught:
        nn.Sequential(Fails()).summary(3)
    assert caught.value.args == ("key", 3)


@pytest.mark.parametrize(
    "shape",
    [None, "28", (None, 28), (0,), (-1, 28), (2.5,), [(3,), None], (True,), {3}, np.ones((2, 2))],
)
def test_what_is_no_shape_is_an_error(shape: Any) -> None:
    with pytest.raises(ValueError, match="^summary: input_shape must be the shape of a sample"):
        nn.ReLU().summary(shape)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "summary: batch_size must be at least 1, got 0"),
        ({"batch_size": 2.0}, TypeError, "summary: batch_size must be an int, got 2.0"),
        ({"dtype": [int, int]}, ValueError, r"summary: got 2 dtypes for 1 input\(s\)"),
        ({"dtype": "complex64"}, TypeError, "summary: dtype must be .* real numbers, .*complex64"),
        ({"dtype": object}, TypeError, "summary: dtype must be .* real numbers, got object"),
    ],
)
def test_options_that_make_no_sense_are_an_error(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        nn.ReLU().summary(3, **options)


def test_a_sample_may_be_a_number_and_a_model_may_have_no_input() -> None:
    assert nn.ReLU().summary((), batch_size=4).layers[0].output_shape == (4,)
    assert nn.ReLU().summary([3, 2]).layers[0].output_shape == (1, 3, 2)
    (weight,) = nn.Weight(np.ones((2, 3))).summary([]).layers
    assert (weight.parameters, weight.output_shape) == (6, (2, 3))
