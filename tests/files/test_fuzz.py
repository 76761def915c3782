"""Whatever is in a file: it is read, or it is a ValueError that names it, and no more than that.

HYPOTHESIS_PROFILE=explore draws other files than the last time, and twenty times as many.
"""

from __future__ import annotations

import copy
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnlite as nn
from nnlite.files import tree as state_tree
from nnlite.random import generator

from .. import resumable

MIB = 1 << 20
FEW = settings().max_examples  # of the profile

edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "insert", "repeat"]),
        st.integers(0, 1 << 16),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=5,
)


def mutated(content: bytes, edits: list[tuple[str, int, bytes]], window: slice) -> bytes:
    """Return `content` with edits that all lie in one part of it."""
    before, inside = content[: window.start], bytearray(content[window])
    after = content[window.stop :]
    for kind, offset, value in edits:
        place = offset % (len(inside) + 1)
        if kind == "flip" and place < len(inside):
            inside[place] ^= value[0] or 1
        elif kind == "set":
            inside[place : place + len(value)] = value
        elif kind == "cut":
            del inside[place : place + 7 * len(value)]
        elif kind == "insert":
            inside[place:place] = value
        else:
            inside[place:place] = inside[place : place + 40]
    return before + bytes(inside) + after


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MIB


def is_read(path: Path, read: Callable[[], Any]) -> bool:
    """Read a file, and return whether it could be read: if not, the error has to name it."""
    try:
        read()
    except ValueError as error:
        message = str(error)
    else:
        return True
    assert message.startswith(f"{path}: ")
    assert len(message) < len(str(path)) + 600
    return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each kind, of which the examples overwrite another one."""
    folder = tmp_path_factory.mktemp("fuzz")
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    nn.save(model, folder / "state.npz")
    nn.save(model, folder / "state.safetensors")
    resumable.run(folder / "checkpoint.npz", stop_after=10)
    return folder


def windows(content: bytes) -> list[slice]:
    """Return the whole, the beginning and the end, where the formats keep what is most delicate."""
    return [slice(0, len(content)), slice(0, 800), slice(len(content) - 800, len(content))]


@settings(max_examples=25 * FEW)
@given(
    name=st.sampled_from(["state.npz", "state.safetensors"]), where=st.integers(0, 2), edits=edits
)
def test_mutated_bytes_of_a_state(
    folder: Path, name: str, where: int, edits: list[tuple[str, int, bytes]]
) -> None:
    content = (folder / name).read_bytes()
    path = folder / "mutated"
    path.write_bytes(mutated(content, edits, windows(content)[where]))
    with little_memory():
        is_read(path, lambda: nn.load_state(path))


class Run:
    """The parts of a run, which are to be unchanged by every file that is refused."""

    def __init__(self, content: bytes, path: Path) -> None:
        self.content, self.path = content, path
        self.parts = resumable.parts()

    def bits(self) -> tuple[str, list[bytes]]:
        """Return all states."""
        states = [
            part.bit_generator.state if isinstance(part, np.random.Generator) else part.state_dict()
            for part in self.parts.values()
        ]
        states += [rng.bit_generator.state for rng in (generator(), self.parts["model"][6]._rng)]
        text, arrays = state_tree.pack(states, lambda name: True)
        return text, [array.tobytes() for array in arrays.values()]

    def try_to_load(self, content: bytes) -> None:
        self.path.write_bytes(content)
        before = self.bits()
        if not is_read(self.path, lambda: nn.load_checkpoint(self.path, **self.parts)):
            assert self.bits() == before


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return Run((folder / "checkpoint.npz").read_bytes(), folder / "mutated.npz")


@settings(max_examples=14 * FEW)
@given(where=st.integers(0, 2), edits=edits)
def test_mutated_bytes_of_a_checkpoint(
    run: Run, where: int, edits: list[tuple[str, int, bytes]]
) -> None:
    run.try_to_load(mutated(run.content, edits, windows(run.content)[where]))


# ---- files whose checksums are right ----


def contents_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(contents: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return stream.getvalue()


@settings(max_examples=5 * FEW)
@given(edits=edits, entry=st.one_of(st.just(0), st.integers(0, 40)))
def test_mutated_entries_of_a_checkpoint(
    run: Run, entry: int, edits: list[tuple[str, int, bytes]]
) -> None:
    contents = contents_of(run.content)
    name = list(contents)[entry % len(contents)]
    contents[name] = mutated(contents[name], edits, slice(0, len(contents[name])))
    with little_memory():
        run.try_to_load(archive_of(contents))


junk = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.integers(-(2**130), 2**130),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["model/0.weight", "optimizer/state/0/exp_avg", "loader/order", "PCG64"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["$array", "$dict", "$tuple", "params", "state", "a"]),
            inner,
            max_size=2,
        ),
    ),
    max_leaves=5,
)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Return the container and the key of everything in a tree of JSON."""
    found = []
    if isinstance(tree, (dict, list)):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            found += [(tree, key), *places(tree[key])]
    return found


@settings(max_examples=16 * FEW)
@given(choice=st.integers(0, 1 << 16), value=junk, remove=st.booleans())
def test_mutated_values_of_a_checkpoint(run: Run, choice: int, value: Any, remove: bool) -> None:
    contents = contents_of(run.content)
    head = json.loads(contents["checkpoint.json"])
    found = places(head["parts"])
    container, key = found[choice % len(found)]
    if remove and isinstance(value, bool):
        del container[key]
    else:
        container[key] = copy.deepcopy(value)
    contents["checkpoint.json"] = json.dumps(head).encode()
    run.try_to_load(archive_of(contents))
