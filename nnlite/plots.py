"""Plots of a model and its training: reports, mistakes, weights, gradients, histograms, heat maps.

They need matplotlib, which is imported when the first plot is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .checks import integer
from .engine.arrays import Array
from .figures import new_figure
from .layer import Layer
from .training.evaluation import predict
from .training.history import History
from .training.metrics import accuracy, confusion_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

    from .debug.histograms import Histograms

_RIGHT, _WRONG, _QUIET = "#2a6f97", "#c0392b", "#8a8f98"

# Names of the blocks of rows in a recurrent layer's weights, by their number.
_GATES = {
    1: ("state",),
    3: ("reset gate", "update gate", "new state"),
    4: ("input gate", "forget gate", "new cell", "output gate"),
}


def plot_report(
    model: Layer,
    history: History,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw a one-page report on a trained image classifier.

    It has the curves of `history`, the confusion matrix, the worst mistakes and the weights of the
    first layer.

    Parameters
    ----------
    model : Layer
        Its outputs are logits.
    history : History
        The result of `fit`. Without epochs, the curves are omitted.
    images : array_like of floats, shape (N, C, H, W)
        Test images, not used in training.
    labels : array_like of int, shape (N,)
    names : sequence of str, optional
        Names of the classes; their indices by default.

    Returns
    -------
    matplotlib.figure.Figure
        ``savefig("report.png")`` writes it to a file.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the shapes do not fit, or if `model` has no weights.

    See Also
    --------
    plot_confusion_matrix, plot_mistakes, plot_weights : The parts of the report.

    Examples
    --------
    >>> import nnlite as nn
    >>> _, (images, labels) = nn.datasets.mnist()
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    >>> figure = nn.plot_report(model, nn.History(), images[:100], labels[:100])
    """
    images, labels = _as_images(images, "plot_report"), np.asarray(labels)
    logits = predict(model, images)
    score = accuracy(logits, labels)
    heights = [2.9, 6.2, 3.2] if len(history.epochs) else [6.2, 3.2]
    figure = _figure(None, (13, sum(heights) + 0.6), "plot_report")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    rows = figure.subfigures(len(heights), 1, height_ratios=heights)
    if len(history.epochs):
        history.plot(rows[0])
    middle, bottom = rows[-2:]
    left, right = middle.subfigures(1, 2, width_ratios=(1, 1.08), squeeze=False)[0]
    wrong = round((1 - score) * len(labels))
    figure.suptitle(
        f"{score:.2%} of {len(labels):,} images classified correctly, {wrong:,} incorrectly",
        fontsize="xx-large",
    )
    plot_confusion_matrix(logits, labels, names=names, figure=left)
    plot_mistakes(images, logits, labels, names=names, figure=right)
    plot_weights(model, image_shape=images.shape[1:], figure=bottom)
    return figure


def plot_confusion_matrix(
    predictions: ArrayLike,
    labels: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    figure: FigureBase | None = None,
) -> FigureBase:
    """Draw the confusion matrix: how often each true class is predicted as each class.

    The counts are those of `confusion_matrix`. Frequent mistakes are darker; correct predictions
    do not affect the colours. The column at the right is the recall of each class, the fraction of
    its samples that are classified correctly.

    Parameters
    ----------
    predictions : array_like of shape (N, C)
        Logits or probabilities.
    labels : array_like of int, shape (N,)
    names : sequence of str, optional
        Names of the classes; their indices by default.
    figure : matplotlib.figure.Figure or SubFigure, optional
        Figure to draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the shapes do not fit, or if there are not as many names as classes.

    Examples
    --------
    >>> import nnlite as nn
    >>> scores = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    >>> figure = nn.plot_confusion_matrix(scores, [0, 1, 1], names=["cat", "dog"])
    """
    counts = confusion_matrix(predictions, labels)
    classes = len(counts)
    names = _as_names(names, classes, "plot_confusion_matrix")
    figure = _figure(figure, (6.5, 6.2), "plot_confusion_matrix")
    axes = figure.add_subplot()

    diagonal = np.eye(classes, dtype=bool)
    mistakes = np.where(diagonal, 0, counts)
    most = max(mistakes.max(), 1)
    axes.imshow(np.ma.array(mistakes, mask=diagonal), cmap="OrRd", vmin=0, vmax=1.25 * most)
    axes.imshow(np.ma.array(counts, mask=~diagonal), cmap="Blues", vmin=0, vmax=4 * counts.max())
    size = "medium" if classes <= 12 else "x-small"
    for (row, column), count in np.ndenumerate(counts):
        right = row == column
        axes.text(
            column, row, f"{count:,}" if count or right else "·",
            color=_RIGHT if right else "white" if count > 0.6 * most else "black" if count else
            _QUIET,
            horizontalalignment="center", verticalalignment="center",
            fontsize=size, fontweight="bold" if right else "normal",
        )  # fmt: skip
    totals = counts.sum(axis=1)
    for row in range(classes):
        found = f"{counts[row, row] / totals[row]:.1%}" if totals[row] else "–"
        axes.text(
            classes - 0.3, row, found, color=_RIGHT, verticalalignment="center", fontsize=size
        )
    axes.set_xticks(range(classes), names)
    axes.set_yticks(range(classes), names)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    # White lines between the cells.
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("confusion matrix", loc="left")
    axes.text(
        classes - 0.3, -0.75, "recall", color=_RIGHT, fontsize="small", verticalalignment="bottom"
    )
    return figure


def plot_mistakes(
    images: ArrayLike,
    predictions: ArrayLike,
    labels: ArrayLike,
    *,
    count: int = 20,
    names: Sequence[str] | None = None,
    from_logits: bool = True,
    figure: FigureBase | None = None,
) -> FigureBase:
    """Draw the misclassified images with the largest losses, largest first.

    The predicted class and its probability are above each image, the true class and its predicted
    probability below.

    Parameters
    ----------
    images : array_like of shape (N, C, H, W)
        One channel is drawn in black on white, three channels as red, green and blue.
    predictions : array_like of shape (N, classes)
        Logits.
    labels : array_like of int, shape (N,)
    count : int, default 20
        Maximum number of images.
    names : sequence of str, optional
        Names of the classes; their indices by default.
    from_logits : bool, default True
        False if `predictions` are probabilities.
    figure : matplotlib.figure.Figure or SubFigure, optional
        Figure to draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the shapes do not fit, or if there are not as many names as classes.

    Examples
    --------
    >>> import nnlite as nn
    >>> _, (images, labels) = nn.datasets.mnist()
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    >>> figure = nn.plot_mistakes(images, nn.predict(model, images), labels)
    """
    who = "plot_mistakes"
    count = integer(count, f"{who}: count")
    images, labels = _as_images(images, who), np.asarray(labels)
    confusion_matrix(predictions, labels)  # checks shapes and labels
    scores = np.asarray(predictions, np.float64)
    if scores.ndim != 2 or len(images) != len(scores):
        raise ValueError(
            f"{who}: expected predictions of shape ({len(images)}, classes) for {len(images)} "
            f"images, got shape {scores.shape}"
        )
    names = _as_names(names, scores.shape[1], who)
    if from_logits:
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    guesses, true = scores.argmax(axis=1), scores[np.arange(len(labels)), labels]
    worst = np.argsort(true, kind="stable")
    worst = worst[guesses[worst] != labels[worst]][:count]

    figure = _figure(figure, (7, 6.2), who)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_title("worst mistakes" if len(worst) else "no mistakes", loc="left")
    if not len(worst):
        return figure
    tiles = np.moveaxis(images[worst], 1, -1).astype(np.float64)
    columns = math.ceil(math.sqrt(len(tiles)))
    height, width = tiles.shape[1:3]
    mosaic, corners = _mosaic(_scaled(tiles), columns, round(0.68 * height), round(0.15 * width))
    if mosaic.shape[-1] == 1:
        axes.imshow(mosaic[..., 0], cmap="gray_r", vmin=0, vmax=1)
    else:
        axes.imshow(np.nan_to_num(mosaic, nan=1.0))
    for index, (top, left) in zip(worst, corners, strict=True):
        middle = left + (width - 1) / 2
        guess, label = guesses[index], labels[index]
        for y, align, colour, text in (
            (top - 0.06 * height, "bottom", _WRONG, f"{names[guess]}   {scores[index, guess]:.1%}"),
            (top + 0.98 * height, "top", _RIGHT, f"{names[label]}   {true[index]:.1%}"),
        ):
            axes.text(
                middle, y, text, color=colour, fontsize="small",
                horizontalalignment="center", verticalalignment=align,
            )  # fmt: skip
    axes.set_ylim(len(mosaic) + 0.35 * height, -0.4 * height)
    for x, colour, text in ((0.84, _WRONG, "predicted above"), (1.0, _RIGHT, "true below")):
        axes.text(
            x, 1.01, text, color=colour, fontsize="small", transform=axes.transAxes,
            horizontalalignment="right", verticalalignment="bottom",
        )  # fmt: skip
    return figure


def plot_weights(
    model: Layer,
    *,
    image_shape: Sequence[int] | None = None,
    count: int = 48,
    figure: FigureBase | None = None,
) -> FigureBase:
    """Draw the weights of the first layer that has any.

    Positive weights are red, negative weights blue. The units of a linear layer on the pixels of an
    image and the kernels of a convolution are drawn as images, each with its own scale, largest
    weights first. The weights of a recurrent layer are drawn as one matrix for each gate, with a
    row for each feature; its units are ordered by the features that they weight most.

    Parameters
    ----------
    model : Layer
    image_shape : sequence of int, optional
        The shape (C, H, W) of the images, for a linear layer. Without it, or if it does not match
        the layer, the weights are drawn as a matrix.
    count : int, default 48
        Maximum number of units or kernels.
    figure : matplotlib.figure.Figure or SubFigure, optional
        Figure to draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the model has no weights.

    Examples
    --------
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Conv2d(1, 16, kernel_size=5), nn.ReLU())
    >>> figure = nn.plot_weights(model)
    """
    who = "plot_weights"
    count = integer(count, f"{who}: count")
    matrices = {
        name: parameter.data
        for name, parameter in model.named_parameters()
        if parameter.data.ndim > 1
    }
    if not matrices:
        raise ValueError(f"{who}: {model.label} has no layer with weights to draw")
    name, weights = next(iter(matrices.items()))
    figure = _figure(figure, (12, 4.5), who)
    title = f"first layer with weights, {name}"
    if name.endswith("weight_ih_l0"):
        units = matrices[name.replace("_ih_", "_hh_")].shape[1]
        _plot_gates(figure, weights.reshape(-1, units, weights.shape[1]), title)
        return figure
    axes = figure.add_subplot()
    if weights.ndim == 2 and image_shape is not None and weights[0].size == math.prod(image_shape):
        weights = weights.reshape(-1, *image_shape)
    if weights.ndim == 3:  # kernels of a Conv1d
        weights = weights[:, :, np.newaxis]
    if weights.ndim != 4:
        _plot_matrix(axes, weights.reshape(len(weights), -1))
        axes.set_title(title, loc="left")
        return figure

    kernels = weights.reshape(-1, *weights.shape[2:])
    norms = np.linalg.norm(kernels.reshape(len(kernels), -1), axis=1)
    shown = kernels[np.argsort(-norms, kind="stable")[:count]].astype(np.float64)
    limits = np.abs(shown).max(axis=(1, 2), keepdims=True)
    shown /= np.where(limits > 0, limits, 1)
    height, width = shown.shape[1:]
    scale = max(1, 24 // max(height, width))  # thin gaps between small kernels
    shown = shown.repeat(scale, axis=1).repeat(scale, axis=2)
    columns = min(len(shown), 16 if len(shown) > 16 else 8)
    mosaic, _ = _mosaic(shown[..., np.newaxis], columns, 3, 3)
    axes.imshow(mosaic[..., 0], cmap="RdBu_r", vmin=-1.3, vmax=1.3)
    axes.set_axis_off()
    if len(shown) < len(kernels):
        title += f": the {len(shown)} largest of {len(kernels):,}"
    axes.set_title(title, loc="left")
    return figure


def plot_gradients(model: Layer, *, figure: FigureBase | None = None) -> FigureBase:
    """Draw the size of the gradient of each parameter, beside that of its values.

    The size is the root mean square, on a logarithmic scale. Gradients that shrink from the last
    layer to the first vanish, those that grow explode.

    Parameters
    ----------
    model : Layer
        After a `backward`, and before the next `zero_grad`.
    figure : matplotlib.figure.Figure or SubFigure, optional
        Figure to draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If no parameter has a gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model, loss = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), nn.CrossEntropy()
    >>> value = loss(model(np.ones((5, 4), np.float32)), np.arange(5) % 3)
    >>> gradient = model.backward(loss.backward())
    >>> figure = nn.plot_gradients(model)
    """
    who = "plot_gradients"
    parameters = dict(model.named_parameters())
    if all(parameter.grad is None for parameter in parameters.values()):
        raise ValueError(
            f"{who}: no parameter of {model.label} has a gradient; call backward first"
        )
    figure = _figure(figure, (7, 0.28 * len(parameters) + 1.2), who)
    axes = figure.add_subplot()
    rows = np.arange(len(parameters))
    values = [_rms(parameter.data) for parameter in parameters.values()]
    grads = [_rms(parameter.grad) for parameter in parameters.values()]
    axes.plot(values, rows, "o", color=_QUIET, markersize=5, label="values")
    axes.plot(grads, rows, "o", color=_RIGHT, label="gradient")
    axes.set_xscale("log", nonpositive="mask")
    for row, (parameter, size) in enumerate(zip(parameters.values(), grads, strict=True)):
        if not size > 0:
            what = "no gradient" if parameter.grad is None else f"gradient {size:g}"
            axes.text(
                0.01, row, what, color=_WRONG, transform=axes.get_yaxis_transform(),
                verticalalignment="center",
            )  # fmt: skip
    axes.set_yticks(rows, parameters)
    axes.set_ylim(len(parameters) - 0.5, -0.5)
    axes.set_xlabel("root mean square")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def _rms(array: Array | None) -> float:
    """Return the root mean square; NaN for None."""
    return math.nan if array is None else float(np.sqrt(np.mean(np.square(array, dtype=float))))


def plot_histograms(histograms: Histograms, *, figure: FigureBase | None = None) -> FigureBase:
    """Draw the distributions of weights and activations over training.

    Each panel has a column for each epoch; the darker, the more values lie there.

    Parameters
    ----------
    histograms : Histograms
        The callback, after `fit`.
    figure : matplotlib.figure.Figure or SubFigure, optional
        Figure to draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If nothing is recorded yet.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> histograms = nn.Histograms(x)
    >>> history = nn.fit(
    ...     model, nn.MeanSquaredError(), nn.SGD(model.parameters(), lr=0.1), [(x, x[:, :1])],
    ...     epochs=3, callbacks=[histograms], progress=False,
    ... )
    >>> figure = nn.plot_histograms(histograms)
    """
    who = "plot_histograms"
    recorded = {**histograms.weights}
    recorded.update((f"output of {name}", pairs) for name, pairs in histograms.activations.items())
    if not recorded:
        raise ValueError(f"{who}: nothing is recorded; give the callback to fit first")
    columns = min(len(recorded), 4)
    rows = -(-len(recorded) // columns)
    figure = _figure(figure, (3.2 * columns, 2.2 * rows + 0.3), who)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes in grid.flat[len(recorded) :]:
        axes.set_axis_off()
    for axes, (name, pairs) in zip(grid.flat, recorded.items(), strict=False):
        for epoch, (counts, edges) in zip(histograms.epochs, pairs, strict=True):
            density = counts / max(counts.max(), 1)
            axes.pcolormesh(
                [epoch - 0.5, epoch + 0.5], edges, density[:, np.newaxis], cmap="Blues",
                vmin=0, vmax=1,
            )  # fmt: skip
        axes.set_title(name, loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    return figure


def plot_heatmaps(
    images: ArrayLike,
    maps: ArrayLike,
    *,
    titles: Sequence[str] | None = None,
    figure: FigureBase | None = None,
) -> FigureBase:
    """Draw images with heat maps over them, such as those of `saliency` and `grad_cam`.

    Parameters
    ----------
    images : array_like of shape (N, C, H, W)
        With one or three channels.
    maps : array_like of shape (N, H, W)
        Not negative; each has its own scale.
    titles : sequence of str, optional
        A title for each image.
    figure : matplotlib.figure.Figure or SubFigure, optional
        Figure to draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> import nnlite as nn
    >>> _, (images, labels) = nn.datasets.mnist()
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    >>> figure = nn.plot_heatmaps(images[:4], nn.saliency(model, images[:4]))
    """
    who = "plot_heatmaps"
    pictures, heat = _as_images(images, who), np.asarray(maps, np.float64)
    if heat.shape != (len(pictures), *pictures.shape[2:]):
        raise ValueError(
            f"{who}: expected maps of shape {(len(pictures), *pictures.shape[2:])} for these "
            f"images, got {heat.shape}"
        )
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{who}: expected {len(pictures)} titles, got {len(titles)}")
    columns = min(len(pictures), 8)
    rows = -(-len(pictures) // columns)
    figure = _figure(figure, (1.6 * columns, 1.6 * rows + 0.4), who)
    grid = figure.subplots(rows, columns, squeeze=False)
    tiles = _scaled(np.moveaxis(pictures, 1, -1).astype(np.float64))
    for index, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if index >= len(tiles):
            continue
        grey = tiles[index].mean(axis=-1)
        axes.imshow(grey, cmap="gray_r", vmin=0, vmax=1.6)
        strength = heat[index] / (heat[index].max() or 1.0)
        axes.imshow(strength, cmap="autumn_r", alpha=0.85 * strength, vmin=0, vmax=1)
        if titles is not None:
            axes.set_title(str(titles[index]), fontsize="medium")
    return figure


def _plot_gates(figure: FigureBase, gates: Array, title: str) -> None:
    """Draw the input weights (gates, units, features) of a recurrent layer."""
    # Sort units by the centre of their weights, so that units of the same features are neighbours.
    strength = (gates**2).sum(axis=0)
    middle = strength @ np.arange(gates.shape[2]) / np.maximum(strength.sum(axis=1), 1e-12)
    order = np.argsort(middle, kind="stable")
    grid = figure.subplots(1, len(gates), squeeze=False, sharey=True)
    names = _GATES.get(len(gates), tuple(f"block {i}" for i in range(len(gates))))
    for axes, weights, name in zip(grid[0], gates, names, strict=True):
        _plot_matrix(axes, weights[order].T)
        axes.set(title=name, xlabel="unit")
    grid[0, 0].set_ylabel("feature of a step")
    figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize="large")


def _plot_matrix(axes: Axes, weights: Array) -> None:
    limit = np.quantile(np.abs(weights), 0.995) or 1.0
    axes.imshow(
        weights, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
    )
    axes.spines[:].set_visible(False)


def _mosaic(tiles: Array, columns: int, gap: int, side: int) -> tuple[Array, list[tuple[int, int]]]:
    """Return tiles (N, H, W, C) as one image with NaN between them, and their positions in it."""
    count, height, width, channels = tiles.shape
    rows = -(-count // columns)
    shape = (rows * (height + gap) - gap, columns * (width + side) - side, channels)
    mosaic = np.full(shape, np.nan)
    corners = []
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + side)
        mosaic[top : top + height, left : left + width] = tile
        corners.append((top, left))
    return mosaic, corners


def _scaled(tiles: Array) -> Array:
    """Return the tiles, each scaled to [0, 1]."""
    tiles = tiles - tiles.min(axis=(1, 2, 3), keepdims=True)
    highest = tiles.max(axis=(1, 2, 3), keepdims=True)
    return np.asarray(tiles / np.where(highest > 0, highest, 1))


def _figure(figure: Any, size: tuple[float, float], who: str) -> Any:
    """Return `figure`, or a new one."""
    return new_figure(size, who) if figure is None else figure


def _as_images(images: ArrayLike, who: str) -> Array:
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise ValueError(
            f"{who}: expected images of shape (N, C, H, W) with 1 or 3 channels, "
            f"got shape {array.shape}"
        )
    return array


def _as_names(names: Sequence[str] | None, classes: int, who: str) -> list[str]:
    if names is None:
        return [str(index) for index in range(classes)]
    if len(names) != classes:
        raise ValueError(f"{who}: expected {classes} names of classes, got {len(names)}")
    return [str(name) for name in names]
