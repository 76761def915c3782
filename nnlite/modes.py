"""The modes of a thread: ``no_grad``, without caches, and evaluation."""

from __future__ import annotations

import contextlib
import threading


class _Mode(threading.local):
    """The contexts of `no_grad` and `evaluating` that a thread is inside, and their effect."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.caching: int | None = self.thread  # None if forward does not cache
        # Innermost last. `evaluating` has a list here, `no_grad` has None.
        self.contexts: list[tuple[no_grad, list[object] | None]] = []
        # The layers that were put into training mode within `evaluating`.
        self.trained: list[object] | None = None

    def enter(self, context: no_grad, trained: list[object] | None = None) -> None:
        self.contexts.append((context, trained))
        self._update()

    def leave(self, context: no_grad) -> None:
        # Contexts in generators may end in any order, even after the context around them.
        for index, (entered, trained) in reversed([*enumerate(self.contexts)]):
            if entered is context:
                # `evaluate` may abandon a generator inside a context of its own.
                del self.contexts[index : index + 1 if trained is None else None]
                break
        self._update()

    def _update(self) -> None:
        self.caching = None if self.contexts else self.thread
        lists = [trained for _, trained in self.contexts if trained is not None]
        self.trained = lists[-1] if lists else None


current = _Mode()


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

    def __enter__(self) -> None:
        current.enter(self)

    def __exit__(self, *error: object) -> None:
        current.leave(self)


class evaluating(no_grad):  # noqa: N801 - it is used as `no_grad` is
    """`no_grad`, with all layers in evaluation mode.

    It affects only the calling thread and does not visit the layers. Their own modes are unchanged
    and are valid again afterwards, even if `train` or `eval` was called in between.
    """

    def __enter__(self) -> None:
        current.enter(self, [])
