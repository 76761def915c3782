"""The modes of a thread: ``no_grad``, in which layers keep no caches, and evaluation."""

from __future__ import annotations

import contextlib
import threading


class _Mode(threading.local):
    """The contexts of `no_grad` and `evaluating` that a thread is in, and their effect."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.caching: int | None = self.thread  # None where forward keeps no caches
        # The innermost is the last; a context of `no_grad` has None for a list.
        self.contexts: list[tuple[no_grad, list[object] | None]] = []
        # Within `evaluating`, the layers that are in training mode nevertheless.
        self.trained: list[object] | None = None

    def enter(self, context: no_grad, trained: list[object] | None = None) -> None:
        self.contexts.append((context, trained))
        self._update()

    def leave(self, context: no_grad) -> None:
        # Contexts in generators end in any order, and some after the context around them.
        for index, (entered, trained) in reversed([*enumerate(self.contexts)]):
            if entered is context:
                # `evaluate` may abandon a generator that is in a context of its own.
                del self.contexts[index : index + 1 if trained is None else None]
                break
        self._update()

    def _update(self) -> None:
        self.caching = None if self.contexts else self.thread
        lists = [trained for _, trained in self.contexts if trained is not None]
        self.trained = lists[-1] if lists else None


current = _Mode()


def is_grad_enabled() -> bool:
    """Whether layers cache for a backward: False within `no_grad`."""
    return current.caching is not None


class no_grad(contextlib.ContextDecorator):  # noqa: N801 - PyTorch's name
    """Context, or decorator, in which forward keeps no caches; a backward is then a RuntimeError.

    It holds for the calling thread: the caches of another thread's forward stay as they are.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> relu = nn.ReLU()
    >>> with nn.no_grad():
    ...     relu(np.array([-1.0, 1.0]))
    array([0., 1.])
    """

    def __enter__(self) -> None:
        current.enter(self)

    def __exit__(self, *error: object) -> None:
        current.leave(self)


class evaluating(no_grad):  # noqa: N801 - it is used as `no_grad` is
    """Context of `no_grad` that every layer enters in evaluation mode.

    It holds for the calling thread, and need not go through the layers: their own modes stay as
    they are, and hold again afterwards, whatever mode they are put into meanwhile.
    """

    def __enter__(self) -> None:
        current.enter(self, [])
