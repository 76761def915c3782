"""Pictures of models show every box and arrow, with the values of a trace."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import nnlite as nn

PRODUCT = {"s": (nn.Add(), "x", "y"), "p": (nn.Multiply(), "s", "y")}


def texts(drawing: object) -> list[str]:
    """Return the lines of text, having parsed the picture as XML."""
    root = ET.fromstring(str(drawing))
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def count(drawing: object, tag: str) -> int:
    return len(list(ET.fromstring(str(drawing)).iter(f"{{http://www.w3.org/2000/svg}}{tag}")))


def test_a_graph_has_a_box_for_each_node_and_an_arrow_for_each_use() -> None:
    drawing = nn.plot_model(nn.Graph(PRODUCT, ("x", "y")))
    assert sorted(texts(drawing)) == sorted(["x", "y", "s", "+", "p", "×"])
    assert count(drawing, "rect") == 4
    assert count(drawing, "polygon") == 4  # arrow heads: x, y to s, and s, y to p


def test_a_trace_adds_values_and_gradients() -> None:
    graph = nn.Graph(PRODUCT, ("x", "y"))
    found = texts(nn.plot_model(graph, nn.trace(graph, 2.0, 3.0)))
    # p = (x + y) y: dp/dx = y, dp/dy = (x + y) + y.
    assert {"15", "∂ 1", "∂ 3", "∂ 8"} <= set(found)


def test_a_sequential_is_a_row_with_its_parameters_below() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Sequential(nn.Linear(3, 1)))
    drawing = nn.plot_model(model, nn.trace(model, np.ones((4, 2), np.float32)))
    found = texts(drawing)
    assert {"Linear(2, 3)", "tanh", "Sequential", "4 × 3", "3 × 2", "weight", "bias"} <= set(found)
    boxes = [
        {name: float(box.attrib[name]) for name in ("x", "y", "width", "height")}
        for box in ET.fromstring(str(drawing)).iter("{http://www.w3.org/2000/svg}rect")
    ]
    row = [box for box in boxes if box["y"] < 0]
    assert len(row) == 4
    assert all(a["x"] + a["width"] < b["x"] for a, b in itertools.pairwise(row))


def test_named_layers_have_their_names() -> None:
    model = nn.Sequential({"input": nn.Tanh(), "last": nn.Linear(2, 1)})
    found = texts(nn.plot_model(model, nn.trace(model, np.ones((3, 2), np.float32))))
    assert {"input[0]", "input", "last", "3 × 1"} <= set(found)


def test_a_shared_parameter_is_one_box() -> None:
    layer = nn.Linear(2, 2, bias=False)
    assert texts(nn.plot_model(nn.Sequential(layer, layer.tied()))).count("weight") == 1


def test_boxes_of_a_large_graph_do_not_overlap() -> None:
    nodes = {"n0": (nn.Tanh(), "x")}
    for index in range(1, 12):
        nodes[f"n{index}"] = (nn.Add(), f"n{index - 1}", f"n{max(0, index - 3)}")
    root = ET.fromstring(str(nn.plot_model(nn.Graph(nodes, ("x",)))))
    boxes = [
        [float(box.attrib[name]) for name in ("x", "y", "width", "height")]
        for box in root.iter("{http://www.w3.org/2000/svg}rect")
    ]
    for i, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[:i]:
            apart = x >= other_x + other_width or other_x >= x + width
            assert apart or y >= other_y + other_height or other_y >= y + height


def test_names_never_become_code() -> None:
    evil = "</svg><script>alert(1)</script>\"'"
    drawing = nn.plot_model(nn.Graph({evil: (nn.ReLU(), "x")}), title=evil)
    assert evil in texts(drawing)
    assert "<script" not in str(drawing)


def test_a_file_has_plain_colours(tmp_path: Path) -> None:
    nn.plot_model(nn.Graph(PRODUCT, ("x", "y"))).save(tmp_path / "model.svg")
    text = (tmp_path / "model.svg").read_text("utf-8")
    ET.fromstring(text)
    assert not re.search("var|color-mix|currentColor", text)


def test_what_cannot_be_drawn_or_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"expected a Graph or Sequential, got Linear\(2, 3\)"):
        nn.plot_model(nn.Linear(2, 3))
    with pytest.raises(TypeError, match="expected a Graph or Sequential, got int"):
        nn.plot_model(3)
    drawing = nn.plot_model(nn.Sequential(nn.ReLU()))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        drawing.save(tmp_path / "nowhere" / "model.svg")
    assert list(tmp_path.iterdir()) == []
    assert texts(nn.plot_model(nn.Sequential())) == ["input"]
