"""A limit on the memory for parameters whose sizes come from an untrusted file."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class _Left(threading.local):
    elements: int | None = None


_left = _Left()


@contextlib.contextmanager
def at_most(elements: int) -> Iterator[None]:
    """Context in which this thread may `claim` at most this many elements in total."""
    before, _left.elements = _left.elements, elements
    try:
        yield
    finally:
        _left.elements = before


def claim(elements: int) -> None:
    """Count elements before memory is allocated for them.

    Raises
    ------
    ValueError
        If the total exceeds the limit. Outside of `at_most` there is no limit.
    """
    if _left.elements is not None:
        _left.elements -= elements
        if _left.elements < 0:
            raise ValueError("the layers have more parameters than there are numbers for them")
