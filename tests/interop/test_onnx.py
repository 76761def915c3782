"""ONNX files: exported models run elsewhere, and imported models can be trained."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

from ..registry import LAYERS, LayerCase

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
reference = pytest.importorskip("onnx.reference")
helper = onnx.helper

from nnlite.interop.onnx import functions  # noqa: E402 - it needs onnx
from nnlite.interop.onnx.forms import form_of  # noqa: E402

DATA = Path(__file__).parent / "data"
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}

# Gaps are seen in the table of the docs.
WRITTEN = [case for case in LAYERS if all(map(form_of, case.make().layers()))]
every_layer = pytest.mark.parametrize("case", WRITTEN, ids=lambda case: case.name)


def made(case: LayerCase, batch: int = 3) -> tuple[nn.Layer, list[Any]]:
    """Return a layer in evaluation mode, and inputs of float32 for it."""
    inputs = case.inputs(np.random.default_rng(0), batch)
    floats = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in inputs]
    return case.make().eval(), floats


def write(layer: nn.Layer, inputs: list[Any], path: Path) -> None:
    nn.to_onnx(layer, path, [x.shape[1:] for x in inputs])


def run(path: Path, inputs: list[Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))  # type: ignore[no-any-return]


# ---- writing ----


@every_layer
def test_a_file_gives_the_same_outputs_in_onnxruntime_for_batches_of_any_size(
    case: LayerCase, tmp_path: Path
) -> None:
    layer, inputs = made(case)
    write(layer, inputs, tmp_path / "a.onnx")
    for batch in (1, 3, 5):
        _, inputs = made(case, batch)
        (output,) = run(tmp_path / "a.onnx", inputs)
        expected = layer(*inputs)
        assert output.shape == expected.shape
        assert_allclose(output, expected, **TOLERANCE)


# The reference implementation does not pad sequences for a stride of 1, does not pool a whole
# sequence, and has neither groups in a transposed convolution nor relu in a recurrent layer.
NOT_IN_THE_REFERENCE = (
    "RNNCell of relu without bias",
    "MaxPool1d that overlaps",
    "GlobalMaxPool1d",
    "ConvTranspose2d in groups with all options",
)
IN_THE_REFERENCE = [case for case in WRITTEN if case.name not in NOT_IN_THE_REFERENCE]


@pytest.mark.parametrize("case", IN_THE_REFERENCE, ids=lambda case: case.name)
def test_a_file_gives_the_same_outputs_in_the_reference_implementation(
    case: LayerCase, tmp_path: Path
) -> None:
    layer, inputs = made(case)
    write(layer, inputs, tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    names = [each.name for each in model.graph.input]
    (output,) = reference.ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))
    assert_allclose(output, layer(*inputs), **TOLERANCE)


@every_layer
def test_initializers_are_the_state_dict_and_the_batch_axis_is_dynamic(
    case: LayerCase, tmp_path: Path
) -> None:
    layer, inputs = made(case)
    write(layer, inputs, tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    found = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    expected = {
        name: value
        for name, value in layer.state_dict().items()
        if not name.endswith("num_batches_tracked")  # which no output depends on
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_allclose(found[name], value, rtol=0, err_msg=name)
    assert all(each.type.tensor_type.shape.dim[0].dim_param == "N" for each in model.graph.input)


def test_names_of_a_graph_are_those_of_the_file(tmp_path: Path) -> None:
    graph = nn.Graph(
        {
            "encoder": (nn.Sequential(nn.Linear(3, 4), nn.Tanh()), "image"),
            "mean": (nn.Linear(4, 2), "encoder"),
            "scaled": (nn.Multiply(), "mean", 0.5),
            "sum": (nn.Add(), "scaled", "noise"),
        },
        inputs=("image", "noise"),
        outputs=("sum", "mean"),
    )
    nn.to_onnx(graph, tmp_path / "a.onnx", [(3,), (2,)])
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    assert [each.name for each in session.get_inputs()] == ["image", "noise"]
    assert [each.name for each in session.get_outputs()] == ["sum", "mean"]
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(5, size)).astype(np.float32) for size in (3, 2)]
    for output, expected in zip(run(tmp_path / "a.onnx", inputs), graph(*inputs), strict=True):
        assert_allclose(output, expected, **TOLERANCE)


def test_writing_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5, rng=0))
    x = np.ones((5, 3), np.float32)
    y = model(x)
    state = model.state_dict()
    nn.to_onnx(model, tmp_path / "a.onnx", 3)
    assert model.training
    assert all((value == state[name]).all() for name, value in model.state_dict().items())
    assert model.backward(np.ones_like(y)).shape == x.shape


def test_a_layer_without_a_form_is_named(tmp_path: Path) -> None:
    model = nn.Sequential(nn.ReLU(), nn.Lambda(np.sin, np.cos))
    with pytest.raises(ValueError, match=r"to_onnx: layer '1': Lambda\(sin, cos\) has no form"):
        nn.to_onnx(model, tmp_path / "a.onnx", 3)
    assert not list(tmp_path.iterdir())


def test_a_subclass_with_a_forward_of_its_own_has_no_form(tmp_path: Path) -> None:
    class Named(nn.Sequential):
        pass

    class Doubled(nn.ReLU):
        def forward(self, x: Any) -> Any:
            return 2 * super().forward(x)

    nn.to_onnx(Named(nn.ReLU()), tmp_path / "a.onnx", 3)
    with pytest.raises(ValueError, match="has no form in ONNX"):
        nn.to_onnx(Doubled(), tmp_path / "b.onnx", 3)


def test_a_shape_that_does_not_fit_is_the_error_of_the_layer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Linear\(3, 4\): expected input of shape"):
        nn.to_onnx(nn.Linear(3, 4), tmp_path / "a.onnx", 5)


# ---- round trip ----


def gradients(layer: nn.Layer, grad: Any) -> list[Any]:
    layer.zero_grad()
    found = layer.backward(grad)
    inputs = found if isinstance(found, tuple) else (found,)
    # A file has the parameters in the order in which they are used, and some of them in parts.
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    values, grads = (
        np.concatenate([np.zeros(0), *map(np.ravel, arrays)])
        for arrays in ([each.data for each in trained], [each.grad for each in trained])
    )
    return [*(x for x in inputs if x is not None), grads[np.argsort(values, kind="stable")]]


@every_layer
def test_a_round_trip_gives_the_same_outputs_and_gradients(case: LayerCase, tmp_path: Path) -> None:
    layer, inputs = made(case)
    rng = np.random.default_rng(2)
    for parameter in layer.parameters():  # so that no two of them are alike
        parameter.data += rng.uniform(0, 0.1, parameter.shape)
    write(layer, inputs, tmp_path / "a.onnx")
    again = nn.from_onnx(tmp_path / "a.onnx")
    # Dropout draws anew; running statistics of instances are written as those of a batch.
    in_evaluation = any(text in repr(layer) for text in ("Dropout", "track_running_stats=True"))
    for mode in (False,) if in_evaluation else (False, True):
        y = layer.train(mode)(*inputs)
        assert_allclose(again.train(mode)(*inputs), y, **TOLERANCE)
        grad = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
        expected = gradients(layer, grad)
        for found, value in zip(gradients(again, grad), expected, strict=True):
            assert_allclose(found, value, **TOLERANCE)


def test_a_sequential_comes_back_as_it_was(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding="same"),
        nn.BatchNorm2d(2, momentum=0.3),
        nn.SiLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.3),
        nn.GlobalAvgPool2d(),
        nn.Linear(2, 3),
        nn.Softplus(0.5),
    )
    nn.to_onnx(model, tmp_path / "a.onnx", (1, 8, 8))
    again = nn.from_onnx(tmp_path / "a.onnx")
    assert repr(again).replace("padding=1", "padding='same'") == repr(model)
    assert list(again.state_dict()) == list(model.state_dict())
    assert again.training
    nn.to_onnx(model.eval(), tmp_path / "a.onnx", (1, 8, 8))
    assert not nn.from_onnx(tmp_path / "a.onnx").training


def test_containers_and_names_come_back(tmp_path: Path) -> None:
    encoder = nn.Sequential(OrderedDict(hidden=nn.Linear(6, 4), act=nn.Tanh(), drop=nn.Dropout()))
    model = nn.Sequential({"flat": nn.Flatten(), "encoder": encoder, "head": nn.Linear(4, 2)})
    for each in (model, nn.Sequential(nn.Sequential(*model[:2]), nn.ReLU())):
        nn.to_onnx(each, tmp_path / "a.onnx", (2, 3))
        again = nn.from_onnx(tmp_path / "a.onnx")
        assert repr(again) == repr(each)
        assert list(again.state_dict()) == list(each.state_dict())
    nn.to_onnx(nn.Linear(3, 2), tmp_path / "a.onnx", 3)
    assert repr(nn.from_onnx(tmp_path / "a.onnx")) == repr(nn.Sequential(nn.Linear(3, 2)))
    # Where one layer is read as two, no name is left that both could have.
    deep = nn.Sequential({"cell": nn.RNN(2, 3, num_layers=2), "act": nn.Tanh()})
    nn.to_onnx(deep, tmp_path / "a.onnx", (5, 2))
    again = nn.from_onnx(tmp_path / "a.onnx")
    x = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    assert_allclose(again(x), deep(x), **TOLERANCE)


def test_what_is_tied_and_what_is_frozen_stays_so(tmp_path: Path) -> None:
    first = nn.Linear(3, 3)
    model = nn.Sequential(first, nn.Tanh(), first.tied(), nn.Linear(3, 2))
    model[3].weight.requires_grad = False  # type: ignore[attr-defined]
    nn.to_onnx(model, tmp_path / "a.onnx", 3)
    again = nn.from_onnx(tmp_path / "a.onnx")
    assert [p.requires_grad for p in again.parameters()] == [True, True, False, True]


def test_float64_stays_float64(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh()).astype(np.float64)
    nn.to_onnx(model, tmp_path / "a.onnx", 3)
    again = nn.from_onnx(tmp_path / "a.onnx")
    x = np.random.default_rng(0).normal(size=(5, 3))
    assert again(x).dtype == np.float64
    assert_allclose(again(x), model(x), rtol=1e-12)


# ---- files of PyTorch ----

RECORDED = sorted(DATA.glob("*.onnx"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_files_of_pytorchs_exporters_give_its_outputs_and_gradients(path: Path) -> None:
    figures = np.load(DATA / f"{path.name.split('.')[0]}.npz")
    model = nn.from_onnx(path)
    assert not model.training
    assert_allclose(model(figures["x"]), figures["y"], **TOLERANCE)
    x_grad = model.backward(figures["grad"])
    if "x_grad" in figures:
        assert_allclose(x_grad, figures["x_grad"], **TOLERANCE)
    # It trains on.
    parameters = list(model.parameters())
    if parameters:
        optimizer = nn.SGD(parameters, lr=0.01)
        loss, target = nn.MeanSquaredError(), figures["y"][::-1]
        model.train()
        before = loss(model(figures["x"]), target)
        for _ in range(10):
            loss(model(figures["x"]), target)
            optimizer.zero_grad()
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()
        assert loss(model(figures["x"]), target) < before


# `to_onnx` has the batch in the first axis, and this network in the second.
EXPORTED = [path for path in RECORDED if not path.name.startswith("encoder_time_first")]
# Of these, a node becomes several layers, or several share a parameter; their names are made anew.
RENAMED = (
    *("attention", "encoder", "gru_cell", "language", "lstm_cell", "normalized", "rnn_cell"),
    "rnn_last.export",
)


@pytest.mark.parametrize("path", EXPORTED, ids=lambda path: path.stem)
def test_models_of_other_programs_can_be_saved_and_exported(path: Path, tmp_path: Path) -> None:
    figures = np.load(DATA / f"{path.name.split('.')[0]}.npz")
    x, grad = figures["x"], figures["grad"]
    model = nn.from_onnx(path)
    assert not any(isinstance(layer, nn.Lambda) for layer in model.layers())
    nn.save_model(model, tmp_path / "model.npz")
    nn.to_onnx(model, tmp_path / "model.onnx", x.shape[1:], x.dtype)
    for again in (nn.load_model(tmp_path / "model.npz"), nn.from_onnx(tmp_path / "model.onnx")):
        if not path.name.startswith(RENAMED):
            assert list(again.state_dict()) == list(model.state_dict())
        assert_allclose(again(x), model(x), **TOLERANCE)
        x_grad, expected = again.backward(grad), model.backward(grad)
        if "x_grad" in figures:
            assert_allclose(x_grad, expected, **TOLERANCE)
        sizes, others = (
            sorted(float(np.sum(p.grad**2)) for p in each.parameters() if p.requires_grad)
            for each in (again, model)
        )
        assert_allclose(sizes, others, rtol=1e-4)
        model.zero_grad()


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("perceptron.script", ["1", "4"]),
        ("perceptron.export", ["1", "4"]),
        ("images.script", ["0", "4", "7"]),
        ("modules.script", ["features.0", "features.2.0", "classifier.1", "classifier.3"]),
        ("modules.export", ["features.0", "features.2.0", "classifier.1", "classifier.3"]),
        ("shapes.script", ["first", "last"]),
        ("shapes.export", ["first", "last"]),
    ],
)
def test_keys_of_a_state_dict_are_those_of_the_module_in_pytorch(
    name: str, layers: list[str]
) -> None:
    model = nn.from_onnx(DATA / f"{name}.onnx")
    expected = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert list(model.state_dict()) == expected


def test_layers_that_are_not_beside_each_other_are_in_no_container(tmp_path: Path) -> None:
    names = ["/a/a.0/Relu", "/b/Tanh", "/a/a.1/Sigmoid"]
    values = ["x", "p", "q", "y"]
    nodes = [
        helper.make_node(name.rpartition("/")[2], [before], [after], name=name)
        for name, before, after in zip(names, values, values[1:], strict=False)
    ]
    model = nn.from_onnx(saved(tmp_path / "a.onnx", nodes))
    assert [type(layer) for layer in model] == [nn.ReLU, nn.Tanh, nn.Sigmoid]


# ---- layers for operators that change shapes ----

SHAPES: dict[str, tuple[list[tuple[str, dict[str, Any]]], list[type[nn.Layer]]]] = {
    "Transpose": ([("Transpose", {"perm": [0, 2, 3, 1]})], [nn.Permute]),
    "Squeeze": ([("Squeeze", {"1": [0, -2]})], [nn.Squeeze, nn.Squeeze]),
    "Squeeze all": ([("Squeeze", {})], [nn.Squeeze, nn.Squeeze]),
    "Unsqueeze": ([("Unsqueeze", {"1": [-1, 1, 0]})], [nn.Unsqueeze] * 3),
    "Slice": ([("Slice", {"1": [1, 0], "2": [9, -1], "3": [1, -1], "4": [2, 1]})], [nn.Slice] * 2),
    "Gather one": ([("Gather", {"1": -1, "axis": 1})], [nn.Slice, nn.Squeeze]),
    "Gather all": ([("Gather", {"1": [1, 2, 3], "axis": 3})], [nn.Slice]),
    "Gather": (
        [("Gather", {"1": [[3, 0, 1], [-1, -2, 2]], "axis": 3})],
        [*[nn.Slice] * 5, nn.Concatenate, nn.Unflatten],
    ),
    "Reshape": ([("Reshape", {"1": [3, 2, -1]})], [nn.Flatten, nn.Unflatten]),
    "Reshape to one": ([("Reshape", {"1": [-1]})], [nn.Flatten]),
    "Flatten": ([("Flatten", {"axis": 2})], [nn.Flatten, nn.Flatten]),
    "Flatten all": ([("Flatten", {"axis": 0})], [nn.Flatten, nn.Unsqueeze]),
    "Split": (
        [("Split", {"1": [1, 2], "axis": 1, "outputs": 2})],
        [nn.Split, nn.Identity, nn.Identity],
    ),
    "uneven pool": (
        [("MaxPool", {"kernel_shape": [1, 2], "pads": [0, 0, 0, 1]})],
        [nn.ConstantPad2d, nn.MaxPool2d],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_operators_that_change_shapes_are_layers(name: str, tmp_path: Path) -> None:
    ((operator, options),), layers = SHAPES[name]
    constants = {key: value for key, value in options.items() if key.isdigit()}
    options = {key: value for key, value in options.items() if not key.isdigit()}
    outputs = [f"y{index}" for index in range(options.pop("outputs", 1))]
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", *constants], outputs, **options)],
        "test",
        [helper.make_tensor_value_info("x", floats, [1, 3, 1, 4])],
        [onnx.ValueInfoProto(name=output) for output in outputs],
        [onnx.numpy_helper.from_array(np.asarray(v, np.int64), k) for k, v in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    x = np.random.default_rng(0).normal(size=(1, 3, 1, 4))
    expected = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x.astype(np.float32)})
    for info, array in zip(proto.graph.output, expected, strict=True):
        info.CopyFrom(helper.make_tensor_value_info(info.name, floats, array.shape))
    onnx.save(proto, tmp_path / "a.onnx")
    model = nn.from_onnx(tmp_path / "a.onnx")
    assert [type(each) for each in model.layers() if not list(each.children())] == layers
    found = model(x.astype(np.float32))
    for one, other in zip(found if len(outputs) > 1 else [found], expected, strict=True):
        assert_allclose(one, other)
    assert nn.gradcheck(model, x).passed


# ---- functions ----


def test_gradients_of_functions_that_are_no_layers() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 1, 4))
    for function in (
        functions.Slice({1: slice(None, None, -2), -1: slice(1, 3)}),
        functions.Max((1, -1), keepdims=False),
        functions.Max(None, keepdims=True),
        functions.Erf(),
    ):
        layer = functions.as_layer(function)
        assert nn.gradcheck(layer, x).passed, layer
        assert_allclose(pickle.loads(pickle.dumps(layer))(x), layer(x))


def test_equal_maxima_get_equal_parts_of_the_gradient() -> None:
    largest = functions.Max((1,), keepdims=False)
    x = np.array([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]])
    assert largest.vjp(x, np.array([1.0, 1.0])).tolist() == [[0, 0.5, 0.5], [1, 0, 0]]


# ---- errors ----


def saved(path: Path, nodes: list[Any], opset: int = 20, **initializers: Any) -> Path:
    """Write a file with an input x (N, 4), an output y, and these nodes and initializers."""
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", floats, ["N", 4])],
        [helper.make_tensor_value_info("y", floats, ["N", "M"])],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    path.write_bytes(model.SerializeToString())
    return path


def shapes_read(path: Path, target: list[int], shape: list[Any], value: Any) -> Any:
    """Return what a Reshape of an input makes of a value, with the model that was read."""
    node = helper.make_node("Reshape", ["x", "target"], ["y"])
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)]
    sizes = [f"size{axis}" for axis in range(len(target))]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, sizes)]
    constant = onnx.numpy_helper.from_array(np.array(target, np.int64), "target")
    graph = helper.make_graph([node], "reshape", inputs, outputs, [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return nn.from_onnx(path)(value)


@pytest.mark.parametrize(
    ("shape", "target", "batch"),
    [
        ([5, "n", 4], [5, -1, 2], 3),
        ([5, "n", 4], [-1, 4], 3),
        (["m", 5, 2], [-1, 2, 5, 2], 6),
        ([5, 2, "n", 2], [5, -1, 2], 3),
        ([5, 2, "n", 2], [-1, 2], 3),
        ([3, 4], [2, 6], None),
        ([3, 4, 2], [6, 4], None),
        ([2, 3], [1, 2, 3], None),
        ([2, 1, 3], [2, 3], None),
    ],
)
def test_a_reshape_that_moves_the_first_axis(
    shape: list[Any], target: list[int], batch: int | None, tmp_path: Path
) -> None:
    sizes = [batch if isinstance(size, str) else size for size in shape]
    value = np.arange(np.prod(sizes), dtype=np.float32).reshape(sizes)
    found = shapes_read(tmp_path / "a.onnx", target, shape, value)
    assert_array_equal(found, value.reshape(target))


def test_a_reshape_to_a_size_that_varies_moves_the_first_axis(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=2, end=3),
        helper.make_node("Concat", ["rest", "n", "two"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    floats = onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("x", floats, ["m", 2, "n", 2])]
    outputs = [helper.make_tensor_value_info("y", floats, ["k", "n", 2])]
    constants = [onnx.numpy_helper.from_array(np.array([size]), name)
                 for size, name in ((-1, "rest"), (2, "two"))]  # fmt: skip
    graph = helper.make_graph(nodes, "reshape", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, tmp_path / "a.onnx")
    x = np.arange(24, dtype=np.float32).reshape(2, 2, 3, 2)
    assert_array_equal(nn.from_onnx(tmp_path / "a.onnx")(x), x.reshape(4, 3, 2))


def filled(path: Path, *nodes: Any, **initializers: Any) -> Path:
    """Save a file in which "zeros" has the shape (batch, 4) of the input "x"."""
    first = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
    ]
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4])]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["P", "Q"])]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in initializers.items()]
    graph = helper.make_graph([*first, *nodes], "filled", inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def test_a_value_is_repeated_along_an_axis_but_not_along_the_batch(tmp_path: Path) -> None:
    def nodes(target: str) -> list[Any]:
        return [
            helper.make_node("ReduceL2", ["x", "axes"], ["n"]),
            helper.make_node("Expand", ["n", target], ["e"]),
            helper.make_node("Mul", ["e", "e"], ["y"]),
        ]

    targets = {"axes": np.array([1]), "three": np.array([1, 3]), "many": np.array([7, 1])}
    model = nn.from_onnx(filled(tmp_path / "a.onnx", *nodes("three"), **targets))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    squares = np.sum(x**2, axis=1, keepdims=True)
    assert_allclose(model(x), np.broadcast_to(squares, (5, 3)), **TOLERANCE)
    assert_allclose(model.backward(np.ones((5, 3), np.float32)), 6 * x, **TOLERANCE)
    with pytest.raises(ValueError, match="repeats a value along the batch"):
        nn.from_onnx(filled(tmp_path / "b.onnx", *nodes("many"), **targets))


def test_zeros_of_the_shape_of_a_batch_take_part_in_sums_and_products(tmp_path: Path) -> None:
    weight = np.arange(12, dtype=np.float32).reshape(4, 3)
    path = filled(
        tmp_path / "a.onnx",
        helper.make_node("Add", ["zeros", "one"], ["ones"]),
        helper.make_node("MatMul", ["ones", "w"], ["h"]),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Add", ["h", "z"], ["y"]),
        w=weight, one=np.float32(1),
    )  # fmt: skip
    model = nn.from_onnx(path)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert_allclose(model(x), (x + 1) @ weight, **TOLERANCE)
    grad = np.ones((5, 3), np.float32)
    assert_allclose(model.backward(grad), grad @ weight.T, **TOLERANCE)
    (parameter,) = (p for p in model.parameters() if p.requires_grad)
    assert_allclose(parameter.grad, ((x + 1).T @ grad).T, **TOLERANCE)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Concat", ["zeros", "x"], ["y"], axis=1)],
        [helper.make_node("Exp", ["zeros"], ["y"])],
        [helper.make_node("ReduceSum", ["zeros"], ["s"]),
         helper.make_node("Add", ["s", "x"], ["y"])],
        [helper.make_node("Softmax", ["zeros"], ["s"], axis=0),
         helper.make_node("Add", ["s", "x"], ["y"])],
    ],
    ids=["Concat", "output", "Sum", "Softmax"],
)  # fmt: skip
def test_zeros_of_the_shape_of_a_batch_are_refused_elsewhere(nodes: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the size of a batch"):
        nn.from_onnx(filled(tmp_path / "a.onnx", *nodes))


def test_a_constant_chooses_between_values(tmp_path: Path) -> None:
    condition = np.array([[True, False, False, True]])
    path = filled(
        tmp_path / "a.onnx",
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Where", ["c", "x", "e"], ["a"]),
        helper.make_node("Where", ["c", "two", "a"], ["b"]),
        helper.make_node("Where", ["c", "b", "low"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=-1),
        c=condition, two=np.float32(2), low=np.float32(-np.inf),
    )  # fmt: skip
    model = nn.from_onnx(path)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert_allclose(model(x), np.broadcast_to(condition / 2, (5, 4)), **TOLERANCE)
    assert_array_equal(model.backward(np.ones((5, 4), np.float32)), np.zeros((5, 4)))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([helper.make_node("ConstantOfShape", ["huge"], ["a"]),
          helper.make_node("Add", ["a", "x"], ["y"])], "its shape is not known|too large"),
        ([helper.make_node("Range", ["zero", "huge0", "one"], ["a"]),
          helper.make_node("Add", ["a", "x"], ["y"])], "too many numbers"),
        ([helper.make_node("Equal", ["column", "row"], ["a"]),
          helper.make_node("Where", ["a", "x", "x"], ["y"])], "too large for a constant"),
    ],
    ids=["ConstantOfShape", "Range", "Equal"],
)  # fmt: skip
def test_a_small_file_takes_no_large_memory(nodes: Any, message: str, tmp_path: Path) -> None:
    path = filled(
        tmp_path / "a.onnx", *nodes, huge=np.array([1 << 20, 1 << 20]), huge0=np.int64(1 << 60),
        zero=np.int64(0), one=np.int64(1), column=np.zeros((1 << 14, 1), np.int64),
        row=np.zeros((1, 1 << 14), np.int64),
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        nn.from_onnx(path)


def test_an_operator_that_is_missing_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Sin", ["x"], ["y"], name="wave")
    with pytest.raises(ValueError, match=r"a.onnx: node 'wave' \(Sin\): nnlite has no layer for"):
        nn.from_onnx(saved(tmp_path / "a.onnx", [node]))


@pytest.mark.parametrize("opset", [8, 99])
def test_an_opset_that_is_not_read_is_named(tmp_path: Path, opset: int) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    with pytest.raises(ValueError, match=rf"the file is of opset {opset}, but 9 to \d\d are read"):
        nn.from_onnx(saved(tmp_path / "a.onnx", [node], opset))


def test_external_data_are_read_in_the_folder_and_refused_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    weight = np.arange(8, dtype=np.float32).reshape(4, 2)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = onnx.load(saved(folder / "a.onnx", [node], w=weight))
    for place in (folder / "w.bin", tmp_path / "w.bin"):
        place.write_bytes(weight.tobytes())

    def written(**entries: str) -> Path:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        (folder / "b.onnx").write_bytes(model.SerializeToString())
        return folder / "b.onnx"

    assert_allclose(nn.from_onnx(written(location="w.bin"))(np.eye(4)), weight)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    for location in ("../w.bin", str(tmp_path / "w.bin"), "link.bin"):
        with pytest.raises(ValueError, match="outside of the folder of the file"):
            nn.from_onnx(written(location=location))
    with pytest.raises(ValueError, match="there is no such file"):
        nn.from_onnx(written(location="none.bin"))
    for entries in ({"offset": "4"}, {"offset": "-4"}, {"length": "1000000000000"}):
        with pytest.raises(ValueError, match="tensor 'w' should have 32 bytes"):
            nn.from_onnx(written(location="w.bin", **entries))


def test_truncated_and_altered_files_are_an_error_that_names_them(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    content = (DATA / "images.script.onnx").read_bytes()
    rng = np.random.default_rng(0)
    for length in rng.integers(0, len(content), 60):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="a.onnx: "):
            nn.from_onnx(path)
    for _ in range(150):
        altered = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            altered[place] = rng.integers(256)
        path.write_bytes(altered)
        message = message_of(path)
        assert message is None or message.startswith(f"{path}: ")
        assert len(message or "") < len(str(path)) + 600


def message_of(path: Path) -> str | None:
    """Return the message of the error that a file is, or None if it can be read."""
    try:
        nn.from_onnx(path)
    except ValueError as error:
        return str(error)
    return None


def test_files_of_other_kinds(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(3))
    for content in (b"", b"hello", stream.getvalue()):
        (tmp_path / "a.onnx").write_bytes(content)
        with pytest.raises(ValueError, match="no ONNX file"):
            nn.from_onnx(tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="no regular file"):
        nn.from_onnx(tmp_path)
    with pytest.raises(FileNotFoundError):
        nn.from_onnx(tmp_path / "none.onnx")
