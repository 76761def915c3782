"""Checkpoints: one file from which a run continues as if it had never been interrupted.

A checkpoint is a ``.npz`` file with the arrays of all states and a text entry with everything else.
It is replaced in one step, and it is loaded as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from ..engine.arrays import Array
from ..layer import Layer
from ..random import (
    checked_generator_state,
    generator,
    generator_state,
    load_generator_state,
    own_generators,
)
from .reading import as_path, reading
from .state import CHECKPOINT, ZIP, checked_path, kind

_VERSION = 1

# The beginning of the text. The version is first, so that it can be read in any later format.
_HEAD = re.compile(r'\{"format": "nnlite checkpoint", "version": (\d{1,9}), "parts": \{')

# Parts that no keyword can name.
_RANDOM, _GENERATORS, _CLASSES = _OWN = ("nnlite.random", "nnlite.generators", "nnlite.classes")


class Stateful(Protocol):
    """An object whose state can be saved and loaded."""

    def state_dict(self) -> Any:
        """Return the state: nested dicts and lists of arrays, numbers, strings and None."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Continue from such a state."""


def save_checkpoint(
    path: str | os.PathLike[str],
    *,
    model: Layer,
    optimizer: Stateful | None = None,
    schedule: Stateful | None = None,
    loader: Stateful | None = None,
    **others: Stateful | np.random.Generator,
) -> None:
    """Write the state of a whole run to one file.

    The file is replaced in one step: after a crash there is the old file or the new one.

    Parameters
    ----------
    path : str or path-like
        The file. Its name ends in ``.npz``.
    model : Layer
        Its parameters and buffers are saved, and the random generators of its layers, for example
        of ``Dropout(rng=3)``.
    optimizer : Optimizer, optional
    schedule : Schedule, optional
    loader : DataLoader, optional
        Its order and the position in it are saved too, for a checkpoint within an epoch.
    **others : object with state_dict and load_state_dict, or numpy.random.Generator
        Further objects of the run. Their states are nested dicts, lists and tuples of arrays of
        numbers, numbers, strings, booleans and None.

    Raises
    ------
    ValueError
        If the name of the file does not end in ``.npz``.
    TypeError
        If an object has no state, or if a state has a value of another type.
    OSError
        If the file cannot be written: see `save`. The old file is unchanged.

    See Also
    --------
    load_checkpoint : Continues the run.
    load_state : Reads the state of the model alone.

    Notes
    -----
    The file also has the state of the package's random generator and the class names of all parts,
    so that the state of an `Adam` is not loaded into an `AdamW`. It has no gradients: save after a
    step of the optimizer.

    The file is a ``.npz`` file as `save` writes it, with entries such as ``model/0.weight`` and
    ``optimizer/state/0/exp_avg``, and one more entry, the JSON text ``checkpoint.json``.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import nnlite as nn
    >>> def run(path, epochs):
    ...     nn.seed(0)
    ...     model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
    ...     optimizer = nn.Adam(model.parameters(), lr=0.01)
    ...     loss = nn.MeanSquaredError()
    ...     x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    ...     loader = nn.DataLoader(x, x.prod(axis=1, keepdims=True), batch_size=8, shuffle=True)
    ...     if path.exists():
    ...         nn.load_checkpoint(path, model=model, optimizer=optimizer, loader=loader)
    ...     while loader.epoch < epochs:
    ...         for inputs, targets in loader:
    ...             loss(model(inputs), targets)
    ...             optimizer.zero_grad()
    ...             model.backward(loss.backward(), input_grad=False)
    ...             optimizer.step()
    ...             nn.save_checkpoint(path, model=model, optimizer=optimizer, loader=loader)
    ...     return model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     whole = run(Path(folder, "a.npz"), epochs=4)
    ...     _ = run(Path(folder, "b.npz"), epochs=2)
    ...     resumed = run(Path(folder, "b.npz"), epochs=4)
    >>> bool((whole[0].weight.data == resumed[0].weight.data).all())
    True
    """
    from . import npz
    from . import tree as state_tree
    from .atomic import replacing

    path = checked_path(path, "save_checkpoint")
    parts = _named("save_checkpoint", model, optimizer, schedule, loader, others)
    states = {name: _state(part) for name, part in parts.items()}
    states[_RANDOM] = generator_state(generator())
    states[_GENERATORS] = {
        name: generator_state(rng) for name, rng in _layer_generators(parts).items()
    }
    states[_CLASSES] = _classes(parts)
    try:
        text, arrays = state_tree.pack(states, npz.fits)
    except (TypeError, ValueError) as error:
        raise type(error)(f"save_checkpoint: {error}") from None
    head = f'{{"format": "nnlite checkpoint", "version": {_VERSION}, "parts": {text}}}\n'
    with replacing(path) as file:
        npz.write(file, arrays, {CHECKPOINT: head})


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    model: Layer,
    optimizer: Stateful | None = None,
    schedule: Stateful | None = None,
    loader: Stateful | None = None,
    **others: Stateful | np.random.Generator,
) -> None:
    """Continue a run from a file of `save_checkpoint`.

    Parameters
    ----------
    path : str or path-like
        The file. It need not be trusted.
    model, optimizer, schedule, loader, **others
        The same parts as in the file, under the same names, created in the same way.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or no checkpoint, or if it has other parts than those that are given.
        The message names the file and the part. All parts and the package's generator are then
        unchanged.
    OSError
        If the file cannot be read.
    TypeError
        If a part has no state.

    See Also
    --------
    save_checkpoint : Writes the file, with an example.
    load_state : Reads the state of the model alone.

    Notes
    -----
    No code in the file is run, and the memory taken is proportional to its size.

    The optimizer is loaded before the schedule, so that a schedule with other options, such as a
    larger number of steps, sets its own learning rates; the loader is loaded last. If a part fails
    to load, the parts before it get their old states back through `load_state_dict`. A `loader` of
    your own must be unchanged when its own `load_state_dict` fails, as `DataLoader` is.
    """
    path = as_path(path, "load_checkpoint")
    given = _named("load_checkpoint", model, optimizer, schedule, loader, others)
    states = _read(path)
    missing = [name for name in given if name not in states]
    if missing:
        raise ValueError(
            f"{path}: the checkpoint has no {missing[0]!r}, which this run has; a run goes on with "
            f"what it was saved with"
        )
    foreign = [name for name in states if name not in (*given, *_OWN)]
    if foreign:
        raise ValueError(
            f"{path}: the checkpoint has {foreign[0]!r}, which this run has not; a run goes on "
            f"with what it was saved with, and load_state reads the model alone"
        )
    _check_classes(path, given, states[_CLASSES])
    with _naming(path, "the state of the random generators"):
        generators = _checked_generators(given, states)
    with contextlib.ExitStack() as undo:
        for rng, _ in generators:
            undo.callback(load_generator_state, rng, generator_state(rng))
        for name in sorted(given, key=_turn):
            part = given[name]
            if name != "loader":
                undo.callback(_way_back(part))
            with _naming(path, name):
                _load(part, states[name])
        undo.pop_all()  # nothing failed, and nothing is undone
    for rng, state in generators:
        load_generator_state(rng, state)


def _named(
    caller: str, model: Any, optimizer: Any, schedule: Any, loader: Any, others: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the parts of a run by name, having checked that each has a state."""
    if not isinstance(model, Layer):
        raise TypeError(f"{caller}: expected model to be a layer, got {type(model).__name__}")
    optional = {"optimizer": optimizer, "schedule": schedule, "loader": loader}
    named = {"model": model}
    named |= {name: part for name, part in optional.items() if part is not None}
    taken = [name for name in _OWN if name in others]
    if taken:
        raise ValueError(f"{caller}: the name {taken[0]!r} is reserved")
    named |= others
    for name, part in named.items():
        stateful = hasattr(part, "state_dict") and hasattr(part, "load_state_dict")
        if not stateful and not isinstance(part, np.random.Generator):
            raise TypeError(
                f"{caller}: {name} must have state_dict and load_state_dict, or be a "
                f"numpy.random.Generator; got {type(part).__name__}"
            )
    return named


def _classes(parts: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the classes, without their modules, which may be ``__main__``."""
    return {name: type(part).__name__ for name, part in parts.items()}


def _check_classes(path: str, parts: Mapping[str, Any], saved: Any) -> None:
    """Check that the states belong to objects of the classes that are given."""
    for name, here in _classes(parts).items():
        there = saved.get(name) if isinstance(saved, Mapping) else saved
        if not (isinstance(there, str) and there == here):
            raise ValueError(
                f"{path}: {name}: the checkpoint has the state of {there!s:.80}, this run has "
                f"{here}; a run goes on with what it was saved with"
            )


def _turn(name: str) -> int:
    """Return when a part is loaded: after the parts that it depends on and those that may fail."""
    return {"model": 0, "optimizer": 1, "schedule": 3, "loader": 4}.get(name, 2)


def _state(part: Any) -> Any:
    return generator_state(part) if isinstance(part, np.random.Generator) else part.state_dict()


def _load(part: Any, state: Any) -> None:
    if isinstance(part, np.random.Generator):
        load_generator_state(part, state)
    else:
        part.load_state_dict(state)


def _way_back(part: Any) -> Callable[[], None]:
    """Return a function that restores the current state of `part`."""
    before = copy.deepcopy(_state(part))
    # Loading a schedule may set learning rates.
    groups = getattr(getattr(part, "optimizer", None), "param_groups", [])
    options = [dict(group) for group in groups]

    def put_back() -> None:
        _load(part, before)
        for group, values in zip(groups, options, strict=True):
            group.update(values)

    return put_back


@contextlib.contextmanager
def _naming(path: str, name: str) -> Iterator[None]:
    """Turn any error within the context into a ValueError that names the file and the part."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path}: {name}: {error}") from error


def _layer_generators(parts: Mapping[str, Any]) -> dict[str, np.random.Generator]:
    """Return the generators that layers keep as attributes, by path."""
    return {
        f"{path}.{attribute}": rng
        for name, part in parts.items()
        if isinstance(part, Layer)
        for path, layer in part.named_layers(name)
        for attribute, rng in own_generators(layer).items()
    }


def _checked_generators(
    parts: Mapping[str, Any], states: Mapping[str, Any]
) -> list[tuple[np.random.Generator, dict[str, Any]]]:
    """Return the package's generator and those of the layers, each with the state to load."""
    own, saved = _layer_generators(parts), states[_GENERATORS]
    if not isinstance(saved, Mapping) or set(saved) != set(own):
        listed = sorted(map(str, saved)) if isinstance(saved, Mapping) else saved
        raise ValueError(
            f"the layers have generators of their own at {sorted(own)}, "
            f"those of the checkpoint at {listed!s:.200}"
        )
    pairs = [(generator(), states[_RANDOM]), *((own[name], saved[name]) for name in own)]
    return [(rng, checked_generator_state(rng, state)) for rng, state in pairs]


def _read(path: str) -> dict[str, Any]:
    """Return the states in a checkpoint by the names of the parts."""
    from . import npz

    with reading(path) as file:
        start = file.peek(9)
        if start[:4] not in ZIP:
            raise ValueError(f"expected a checkpoint, {kind(start)}")
        arrays, text = npz.read(file, CHECKPOINT)
        if text is None:
            raise ValueError("this file has arrays, but is no checkpoint; read it with load_state")
        return _checked_parts(text, arrays)


def _checked_parts(text: str, arrays: dict[str, Array]) -> dict[str, Any]:
    from . import tree as state_tree

    head = _HEAD.match(text)
    if head is None:
        raise ValueError(f"entry {CHECKPOINT!r}: this is no checkpoint of nnlite")
    if int(head[1]) != _VERSION:
        raise ValueError(
            f"this is a checkpoint of version {head[1]}; this nnlite reads version {_VERSION}"
        )
    try:
        parts = state_tree.unpack(text, arrays)["parts"]
    except ValueError as error:
        raise ValueError(f"entry {CHECKPOINT!r}: {error}") from None
    lacking = [name for name in _OWN if name not in parts] if isinstance(parts, dict) else _OWN
    if lacking:
        raise ValueError(f"entry {CHECKPOINT!r}: it lacks {lacking[0]!r}")
    return parts
