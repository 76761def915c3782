"""The modes of a thread: ``no_grad``, without caches, and evaluation."""

from __future__ import annotations

import contextlib
import threading
from typing import Any


class _Mode(threading.local):
    """The contexts of `no_grad` and `evaluating` that a thread is inside, and their effect.

    Attributes
    ----------
    evaluates : bool or None
        Whether all layers are in evaluation mode; None if some were put into training meanwhile.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.caching: int | None = self.thread  # None if forward does not cache
        # Innermost last. `evaluating` has a list here, `no_grad` has None.
        self.contexts: list[tuple[no_grad, list[object] | None]] = []
        # The layers that were put into training mode within `evaluating`.
        self.trained: list[object] | None = None
        self.evaluates: bool | None = False


current = _Mode()


def _enter(context: no_grad, trained: list[object] | None = None) -> None:
    context.entered_in = thread = vars(current)
    thread["contexts"].append((context, trained))
    thread["caching"] = None
    if trained is not None:
        thread["trained"], thread["evaluates"] = trained, True


def _leave(context: no_grad) -> None:
    thread = vars(current)
    contexts = thread["contexts"]
    if len(contexts) == 1 and contexts[0][0] is context:  # the usual case
        contexts.clear()
        thread["caching"], thread["trained"] = thread["thread"], None
        thread["evaluates"] = False
        return
    if all(entered is not context for entered, _ in contexts):
        thread = context.entered_in  # a generator may be closed in another thread
        contexts = thread["contexts"]
    # Contexts in generators may end in any order, even after the context around them.
    for index, (entered, trained) in reversed([*enumerate(contexts)]):
        if entered is context:
            # `evaluate` may abandon a generator inside a context of its own.
            del contexts[index : index + 1 if trained is None else None]
            break
    _update(thread)


def _update(thread: dict[str, Any]) -> None:
    """Set the effect of the contexts of a thread, given by its attributes of `_Mode`."""
    thread["caching"] = None if thread["contexts"] else thread["thread"]
    thread["trained"] = None
    for _, trained in thread["contexts"]:
        if trained is not None:
            thread["trained"] = trained
    innermost = thread["trained"]
    thread["evaluates"] = None if innermost else innermost is not None


def is_grad_enabled() -> bool:
    """Whether `forward` caches values for `backward`; False within `no_grad`."""
    return current.caching is not None


class no_grad(contextlib.ContextDecorator):  # noqa: N801 - PyTorch's name
    """Context or decorator in which `forward` caches nothing; `backward` is then a RuntimeError.

    It affects only the calling thread.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> relu = nn.ReLU()
    >>> with nn.no_grad():
    ...     relu(np.array([-1.0, 1.0]))
    array([0., 1.])
    """

    entered_in: dict[str, Any]  # the attributes of `current` in the thread that entered it last

    def __enter__(self) -> None:
        _enter(self)

    def __exit__(self, *error: object) -> None:
        _leave(self)


class evaluating(no_grad):  # noqa: N801 - it is used as `no_grad` is
    """`no_grad`, with all layers in evaluation mode.

    It affects only the calling thread and does not visit the layers. Their own modes are unchanged
    and are valid again afterwards, even if `train` or `eval` was called in between.
    """

    def __enter__(self) -> None:
        _enter(self, [])
