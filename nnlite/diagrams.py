"""Pictures of models as SVG, for notebooks and web pages.

`plot_model` takes a `Graph` or a `Sequential`; with a trace of it, a picture has the values and the
gradients too.

The layout is the usual one for layered graphs: a column for each step of the computation, its boxes
sorted so that few arrows cross, and then moved as near to their neighbours as that order allows.
"""

from __future__ import annotations

import html
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .hints import explained
from .layer import Layer
from .layers.arithmetic import Weight
from .layers.containers import Sequential
from .layers.graph import Graph

# In pixels at full size; a figure that is wider than the page is scaled down.
SIZE, SMALL_SIZE = 14.0, 12.0
LINE_HEIGHT = 17.0
PADDING = 9.0
GAP_X, GAP_Y = 36.0, 16.0
ARROW = 6.0
MARGIN = 2.0

# The colours of the page (nnlite's documentation) or of the notebook (JupyterLab), so that figures
# follow a light and a dark mode; otherwise those of a light page.
TEXT = "var(--color-foreground-primary, var(--jp-content-font-color1, #1f2328))"
MUTED = "var(--color-foreground-muted, var(--jp-content-font-color2, #6b6f76))"
LINE = "var(--color-foreground-border, var(--jp-border-color1, #878787))"
PAPER = "var(--color-background-secondary, var(--jp-layout-color2, #f8f9fb))"
VALUE = "var(--color-brand-content, var(--jp-content-link-color, #2757dd))"
GRADIENT = f"color-mix(in srgb, #e8590c 82%, {TEXT})"

# How an operation is written; a layer that is not here is written as its constructor's call.
SIGNS = {
    "Add": "+",
    "Subtract": "−",
    "Multiply": "×",
    "Divide": "÷",
    "MatMul": "matrix product",
    "Reciprocal": "1 / ( )",
    "Square": "( )²",
    "Sqrt": "√( )",
    "Sum": "Σ",
    "Mean": "mean",
    "Sigmoid": "σ",
    "Tanh": "tanh",
    "Exp": "exp",
    "Log": "log",
    "Weight": "",
}

# Up to this many layers a notebook shows a model as a picture; longer ones are text.
_SMALL = 10

Edges = list[tuple[str, str]]
Links = list[tuple[Any, Any]]  # between items of neighbouring columns
Point = tuple[float, float]


class Diagram:
    """A picture that a notebook shows.

    Attributes
    ----------
    svg : str
    """

    def __init__(self, svg: str) -> None:
        self.svg = svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to an SVG file."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.svg)

    def __repr__(self) -> str:
        return f"<picture of {len(self.svg):,} characters of SVG; save it with .save(path)>"

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x: auto">{self.svg}</div>'


@dataclass
class Box:
    """A node of the figure: lines of text in a frame, around the point (x, y)."""

    title: str
    operation: str = ""
    is_given: bool = False  # an input or a parameter: nothing is computed there
    value: Any = None
    grad: Any = None
    x: float = 0.0
    y: float = 0.0

    @property
    def lines(self) -> list[tuple[str, float, str]]:
        """Each line of text with its size and colour."""
        lines = [(self.title, SIZE, TEXT)]
        if self.operation:
            lines.append((self.operation, SMALL_SIZE, MUTED))
        if np.size(self.value) > 1:
            lines.append((" × ".join(map(str, np.shape(self.value))), SMALL_SIZE, MUTED))
        elif self.value is not None:
            lines.append((_number(self.value), SMALL_SIZE, VALUE))
            if self.grad is not None:
                lines.append((f"∂ {_number(self.grad)}", SMALL_SIZE, GRADIENT))
        return lines

    @property
    def width(self) -> float:
        return max(_width(text, size) for text, size, _ in self.lines) + 2 * PADDING

    @property
    def height(self) -> float:
        return LINE_HEIGHT * len(self.lines) + PADDING


@explained
def plot_model(
    model: Graph | Sequential,
    trace: Mapping[str, Any] | None = None,
    names: Sequence[str] = (),
    title: str = "Computation graph",
) -> Diagram:
    """Draw a `Graph`, or a `Sequential` as a row of layers with their parameters below.

    Parameters
    ----------
    model : Graph or Sequential
    trace : mapping, optional
        The `trace` of the model, or a mapping of the names of inputs and nodes to what has their
        ``value`` and ``grad``. Of a number both are shown, of an array the shape.
    names : sequence of str, optional
        Names of the input and of the outputs of the layers of a `Sequential`.
    title : str
        Alternative text for a screen reader.

    Returns
    -------
    Diagram
        A notebook shows it; `save` writes it to an SVG file.

    Raises
    ------
    TypeError
        If the model is neither a `Graph` nor a `Sequential`.

    Examples
    --------
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    >>> nn.plot_model(model).svg[:4]
    '<svg'
    """
    if not isinstance(model, (Graph, Sequential)):
        raise TypeError(f"plot_model: expected a Graph or a Sequential, got {type(model).__name__}")
    boxes, edges = _graph(model) if isinstance(model, Graph) else _row(model, names)
    for name, box in boxes.items():
        if trace is not None and name in trace:
            box.value, box.grad = trace[name].value, trace[name].grad
    place = _place_in_columns if isinstance(model, Graph) else _place_in_a_row
    return Diagram(_svg(boxes, place(boxes, edges), title))


def picture(model: Layer, trace: Mapping[str, Any] | None = None) -> str | None:
    """Return the HTML of a picture of a small `Graph` or `Sequential`, otherwise None."""
    if isinstance(model, (Graph, Sequential)) and 0 < len(model) <= _SMALL:
        return plot_model(model, trace)._repr_html_()
    return None


# ---- what there is to draw ----


def _graph(graph: Graph) -> tuple[dict[str, Box], Edges]:
    """Return a box for each input and each node, and what each takes from which."""
    boxes = {name: Box(name, is_given=True) for name in graph.inputs}
    edges = []
    for name in graph:
        sources = graph.arguments[name]
        numbers = [f"{source:g}" for source in sources if isinstance(source, float)]
        operation = " ".join([_operation(graph[name]), *numbers])
        boxes[name] = Box(name, operation, is_given=isinstance(graph[name], Weight))
        edges += [(source.partition(".")[0], name) for source in sources if isinstance(source, str)]
    return boxes, list(dict.fromkeys(edges))  # one arrow also for a value that is used twice


def _row(model: Sequential, names: Sequence[str]) -> tuple[dict[str, Box], Edges]:
    """Return a box for the input, each layer and each parameter; for a shared parameter one."""
    ids = ["input", *map(str, range(len(model)))]
    titles = [*names, *ids[len(names) :]]
    boxes = {ids[0]: Box(titles[0], is_given=True)}
    edges = list(itertools.pairwise(ids))
    seen: dict[int, str] = {}
    for name, title, layer in zip(ids[1:], titles[1:], model, strict=True):
        boxes[name] = Box(title, _operation(layer))
        for key, parameter in layer.named_parameters():
            source = seen.setdefault(id(parameter), f"{name}.{key}")
            boxes[source] = Box(key, is_given=True)
            edges.append((source, name))
    return boxes, edges


def _operation(layer: Layer) -> str:
    return SIGNS.get(type(layer).__name__, layer.label)


def _number(value: Any) -> str:
    return f"{float(np.reshape(value, ())):.4g}".replace("-", "−")


def _width(text: str, size: float) -> float:
    """Estimate the width of a text; which font it will have is for the browser to say."""
    narrow = sum(character in " .,()[]/'|ijlt1" for character in text)
    return size * (0.62 * len(text) - 0.24 * narrow)


# ---- where it goes ----


def _place_in_a_row(boxes: dict[str, Box], edges: Edges) -> list[str]:
    """Set the place of each box: layers from left to right, parameters below. Return the arrows."""
    below = [name for name in boxes if "." in name]
    row = [box for name, box in boxes.items() if name not in below]
    x = 0.0
    for box in row:
        box.x = x + box.width / 2
        x += box.width + GAP_X
    if below:
        users = [[boxes[target].x for source, target in edges if source == name] for name in below]
        order = sorted(range(len(below)), key=lambda i: np.mean(users[i]))
        widths = [boxes[below[i]].width for i in order]
        places = _spread([float(np.mean(users[i])) for i in order], widths, GAP_Y)
        depth = max(box.height for box in row) / 2 + 2.5 * GAP_Y
        for i, place in zip(order, places, strict=True):
            box = boxes[below[i]]
            box.x, box.y = place, depth + box.height / 2
    arrows = []
    for source, target in edges:
        start, end = boxes[source], boxes[target]
        if source in below:
            top, bottom = start.y - start.height / 2, end.y + end.height / 2
            middle = (top + bottom) / 2
            path = (
                f"M{start.x:.1f},{top:.1f} C{start.x:.1f},{middle:.1f} {end.x:.1f},{middle:.1f} "
                f"{end.x:.1f},{bottom + ARROW:.1f}"
            )
            arrows.append(_line(path) + _head(end.x, bottom, upwards=True))
        else:
            arrows.append(_arrow([(start.x + start.width / 2, 0), (end.x - end.width / 2, 0)]))
    return arrows


def _place_in_columns(boxes: dict[str, Box], edges: Edges) -> list[str]:
    """Set the place of each box of a layered graph, and return the arrows."""
    rank = _ranks(boxes, edges)
    columns: list[list[Any]] = [[] for _ in range(max(rank.values()) + 1)]
    for name in boxes:
        columns[rank[name]].append(name)
    # An arrow that passes columns gets a place in each of them, so that it runs round the boxes.
    paths: list[list[Any]] = []
    for source, target in edges:
        passed = [(source, target, column) for column in range(rank[source] + 1, rank[target])]
        for waypoint in passed:
            columns[waypoint[2]].append(waypoint)
        paths.append([source, *passed, target])
    links = [link for path in paths for link in itertools.pairwise(path)]
    columns = _with_few_crossings(columns, links)
    y = _heights_of_rows(columns, links, {name: box.height for name, box in boxes.items()})

    left = 0.0
    sides = []
    for column in columns:
        width = max(boxes[item].width for item in column if item in boxes)
        for item in column:
            if item in boxes:
                boxes[item].x, boxes[item].y = left + width / 2, y[item]
        sides.append((left, left + width))
        left += width + GAP_X

    arrows = []
    for path in paths:
        start, end = boxes[path[0]], boxes[path[-1]]
        points = [(start.x + start.width / 2, start.y)]
        for waypoint in path[1:-1]:
            points += [(x, y[waypoint]) for x in sides[waypoint[2]]]
        arriving = sorted(y[other[-2]] for other in paths if other[-1] == path[-1])
        shift = arriving.index(y[path[-2]]) - (len(arriving) - 1) / 2
        points.append((end.x - end.width / 2, end.y + 10 * shift))
        arrows.append(_arrow(points))
    return arrows


def _ranks(boxes: dict[str, Box], edges: Edges) -> dict[str, int]:
    """Return the column of each box: one behind its sources, and what is given just before use."""
    rank = dict.fromkeys(boxes, 0)
    for _ in boxes:
        for source, target in edges:
            rank[target] = max(rank[target], rank[source] + 1)
    for name, box in boxes.items():
        if box.is_given:
            rank[name] = min(rank[target] for source, target in edges if source == name) - 1
    return rank


def _with_few_crossings(columns: list[list[Any]], links: Links) -> list[list[Any]]:
    """Sort each column by the mean place of its neighbours in the one before, to and fro."""
    best, fewest = columns, _crossings(columns, links)
    for sweep in range(8):
        columns = [list(column) for column in columns]
        one_way = columns if sweep % 2 == 0 else columns[::-1]
        for before, column in itertools.pairwise(one_way):
            place = {item: index for index, item in enumerate(before)}
            wanted = {}
            for item in column:
                near = [place[other] for other in _near(item, links) if other in place]
                wanted[item] = sum(near) / max(len(near), 1)
            column.sort(key=wanted.__getitem__)
        crossings = _crossings(columns, links)
        if crossings < fewest:
            best, fewest = columns, crossings
    return best


def _near(item: Any, links: Links) -> list[Any]:
    return [b if a == item else a for a, b in links if item in (a, b)]


def _crossings(columns: list[list[Any]], links: Links) -> int:
    place = {item: (x, y) for x, column in enumerate(columns) for y, item in enumerate(column)}
    count = 0
    for (a, b), (c, d) in itertools.combinations(links, 2):
        if place[a][0] == place[c][0]:
            count += (place[a][1] - place[c][1]) * (place[b][1] - place[d][1]) < 0
    return count


def _heights_of_rows(
    columns: list[list[Any]], links: Links, heights: dict[Any, float]
) -> dict[Any, float]:
    """Return the height at which each item lies: as near to its neighbours as its column allows."""
    y: dict[Any, float] = {}
    for column in columns:
        places = _spread([0.0] * len(column), [heights.get(item, 0.0) for item in column], GAP_Y)
        y.update(zip(column, places, strict=True))
    for _ in range(20):
        for column in [*columns, *reversed(columns)]:
            wanted = []
            for item in column:
                near = [y[other] for other in _near(item, links)]
                # The half draws everything to the middle line, or the graph would drift away.
                wanted.append(sum(near) / (len(near) + 0.5))
            places = _spread(wanted, [heights.get(item, 0.0) for item in column], GAP_Y)
            y.update(zip(column, places, strict=True))
    return y


def _spread(wanted: Sequence[float], sizes: Sequence[float], gap: float) -> list[float]:
    """Return the places nearest to those wanted, in that order, at which nothing overlaps.

    Without the sizes this is isotonic regression: neighbours in the wrong order are pooled.
    """
    ends = np.cumsum([size + gap for size in sizes])
    offsets = ends - np.array(sizes) / 2
    pools: list[tuple[float, int]] = []
    for place in np.array(wanted) - offsets:
        mean, count = float(place), 1
        while pools and pools[-1][0] > mean:
            previous, size = pools.pop()
            mean, count = (mean * count + previous * size) / (count + size), count + size
        pools.append((mean, count))
    places = [mean for mean, count in pools for _ in range(count)]
    return [float(place) for place in np.array(places) + offsets]


# ---- how it is written down ----


def _arrow(points: Sequence[Point]) -> str:
    """Return the path of an arrow from left to right through `points`."""
    (x, y), *rest = points
    path = f"M{x:.1f},{y:.1f}"
    for index, (to_x, to_y) in enumerate(rest):
        is_last = index == len(rest) - 1
        end = to_x - ARROW if is_last else to_x
        middle = (x + end) / 2
        path += f" C{middle:.1f},{y:.1f} {middle:.1f},{to_y:.1f} {end:.1f},{to_y:.1f}"
        x, y = to_x, to_y
    return _line(path) + _head(x, y)


def _line(path: str) -> str:
    return f'<path d="{path}" style="fill: none; stroke: {LINE}; stroke-width: 1.2"/>'


def _head(x: float, y: float, upwards: bool = False) -> str:
    half = ARROW / 2
    if upwards:
        corners = [(x - half, y + ARROW), (x, y), (x + half, y + ARROW)]
    else:
        corners = [(x - ARROW, y - half), (x, y), (x - ARROW, y + half)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polygon points="{points}" style="fill: {LINE}"/>'


def _svg(boxes: Mapping[str, Box], arrows: Sequence[str], title: str) -> str:
    left = min(box.x - box.width / 2 for box in boxes.values()) - MARGIN
    right = max(box.x + box.width / 2 for box in boxes.values()) + MARGIN
    top = min(box.y - box.height / 2 for box in boxes.values()) - MARGIN
    bottom = max(box.y + box.height / 2 for box in boxes.values()) + MARGIN
    width, height = right - left, bottom - top
    style = f"display: block; margin: 1rem auto; max-width: 100%; min-width: {0.7 * width:.0f}px"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(title)}" '
        f'viewBox="{left:.1f} {top:.1f} {width:.1f} {height:.1f}" width="{width:.0f}" '
        f'style="{style}">'
    ]
    parts += [*arrows, *map(_box, boxes.values()), "</svg>"]
    return "".join(parts)


def _box(box: Box) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    radius = LINE_HEIGHT * 0.75 if box.is_given else 4
    fill = "none" if box.is_given else PAPER
    parts = [
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'rx="{radius}" style="fill: {fill}; stroke: {LINE}"/>'
    ]
    for index, (text, size, colour) in enumerate(box.lines):
        baseline = top + PADDING / 2 + LINE_HEIGHT * (index + 0.73)
        weight = 600 if index == 0 else 400
        parts.append(
            f'<text x="{box.x:.1f}" y="{baseline:.1f}" text-anchor="middle" '
            f'style="font-size: {size}px; font-weight: {weight}; fill: {colour}">'
            f"{html.escape(text)}</text>"
        )
    return "".join(parts)
