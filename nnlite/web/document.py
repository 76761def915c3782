"""Web pages that are one file: everything inside, nothing loaded, nothing from data run as code."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import one_of
from ..files.atomic import replacing

_FOLDER = os.path.dirname(__file__)
DTYPES = ("float16", "float32")


class Document:
    """A self-contained HTML page.

    In a notebook it shows itself, in a frame. ``str(document)`` is its text.

    Parameters
    ----------
    template : str
        The name of the template in this folder.
    scripts : iterable of str
        The names of the scripts in this folder, in the order in which they run.
    data : dict
        What the scripts read: anything that JSON can hold.
    height : int
        Height of the frame in a notebook, in pixels.

    Notes
    -----
    The data are JSON in an element that browsers do not run, with ``<``, ``>`` and ``&`` escaped,
    so that nothing in them can end that element. A content security policy allows the scripts by
    their hashes and forbids everything else, the network included.
    """

    def __init__(
        self, template: str, scripts: Iterable[str], data: dict[str, Any], height: int
    ) -> None:
        style = _asset("style.css")
        script = "\n".join(_asset(name) for name in ("common.js", *scripts))
        policy = (
            f"default-src 'none'; img-src data: blob:; "
            f"script-src {_hash(script)}; style-src {_hash(style)}"
        )
        parts = {
            "policy": policy,
            "title": html.escape(str(data["title"])),
            "style": style,
            "script": script,
            "data": _as_json(data),
        }
        # All at once, so that braces within a part stay as they are.
        self._text = re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], _asset(template))
        self._height = height

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<HTML page of {len(self._text):,} characters; save it with .save(path)>"

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self._text)}" sandbox="allow-scripts" '
            f'width="100%" height="{self._height}" style="border: 0"></iframe>'
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, which is replaced in one step.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        with replacing(os.fspath(path)) as file:
            file.write(self._text.encode())


def packed(array: ArrayLike, dtype: str = "float32") -> dict[str, Any]:
    """Return an array as the scripts read it: shape, dtype and base64 of little-endian numbers.

    Raises
    ------
    ValueError
        If a finite number does not fit into the dtype.
    """
    values = np.asarray(array)
    kind = np.dtype(one_of(dtype, DTYPES, "dtype")).newbyteorder("<")
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(values, dtype=kind)
    if np.isinf(numbers).sum() > np.isinf(values).sum():
        raise ValueError(
            f"a number as large as {np.abs(values).max():.3g} does not fit into {dtype}; "
            f"use dtype='float32'"
        )
    return {
        "shape": values.shape,
        "dtype": dtype,
        "base64": base64.b64encode(numbers.tobytes()).decode(),
    }


def _asset(name: str) -> str:
    with open(os.path.join(_FOLDER, name), encoding="utf-8", newline="\n") as file:
        return file.read()


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _as_json(data: dict[str, Any]) -> str:
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
