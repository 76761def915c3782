"""Files: round trips, crashes while saving, and damaged files."""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
import socket
import stat
import struct
import subprocess
import sys
import time
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
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

import nnlite as nn
from nnlite.files import npz
from nnlite.files.atomic import replacing

from ..interrupts import interrupt_on_each_line
from ..registry import Array

MIB = 1 << 20

STATE = {
    "0.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "0.bias": np.array([1.0, -2.0, np.nan]),
    "1.running_mean": np.zeros(3, np.float16),
    "1.num_batches_tracked": np.array(7),
    "größe": np.zeros((0, 3)),
    "mask": np.array([True, False]),
}
SMALL = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "größe": np.array(7)}
Contents = dict[str, bytes]

names = st.text(min_size=1, max_size=20).filter(
    lambda name: "\0" not in name and name.encode("utf-8", "ignore").decode() == name
)
arrays = hnp.arrays(
    st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(endianness="?"),
        hnp.unsigned_integer_dtypes(endianness="?"),
        hnp.floating_dtypes(endianness="?"),
        hnp.complex_number_dtypes(endianness="?"),
    ),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


def assert_same(actual: dict[str, Array], expected: dict[str, Array]) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype
        assert actual[name].shape == value.shape
        assert_array_equal(actual[name], value)


@contextmanager
def peak_memory_below(limit: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit


def listing(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def read_or_reason(path: Path) -> dict[str, Array] | str:
    """Return what is read from a file, or the message of the ValueError."""
    try:
        return nn.load_state(path)
    except ValueError as error:
        return str(error)


def npy(header: str, data: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    """Write a .npy file by the words of NumPy's format description, with any header."""
    text = header.encode("latin-1")
    size = len(text) if length is None else length
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", size)
        + (text + data)
    )


def described(descr: str = "'<f4'", shape: str = "(2,)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def write_zip(path: Path, contents: Contents, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.npz"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that the examples of a property overwrite."""
    return tmp_path_factory.mktemp("files") / "state.npz"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "state.npz"
    nn.save(SMALL, path)
    return path.read_bytes()


# ---- there and back ----


@given(state=st.dictionaries(names, arrays, max_size=4))
def test_any_arrays_of_numbers_come_back_as_they_were(
    scratch: Path, state: dict[str, Array]
) -> None:
    nn.save(state, scratch)
    assert_same(nn.load_state(scratch), state)


def test_the_memory_order_of_an_array_does_not_matter(path: Path) -> None:
    base = np.arange(24.0).reshape(4, 6)
    state = {"fortran": np.asfortranarray(base), "strided": base[::2, ::-3], "transposed": base.T}
    nn.save(state, path)
    assert_same(nn.load_state(path), state)


def test_what_is_loaded_can_be_written_to(path: Path) -> None:
    nn.save(STATE, path)
    for array in nn.load_state(path).values():
        array[...] = 0


def test_a_model_goes_into_another_one_of_its_kind(path: Path) -> None:
    def model(seed: int) -> nn.Layer:
        return nn.Sequential(nn.Linear(3, 5, rng=seed), nn.Tanh(), nn.Linear(5, 2, rng=seed))

    first, second = model(0), model(1)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    nn.save(first, path)
    state = nn.load_state(path)
    assert {name: array.shape for name, array in state.items()} == {
        "0.weight": (5, 3),
        "0.bias": (5,),
        "2.weight": (2, 5),
        "2.bias": (2,),
    }
    second.load_state_dict(state)
    assert_array_equal(second(x), first(x))


def test_the_wrong_model_is_an_error_and_unchanged(path: Path) -> None:
    nn.save(nn.Linear(3, 5), path)
    other = nn.Linear(3, 4)
    before = other.state_dict()
    with pytest.raises(ValueError, match=r"weight.*\(4, 3\).*\(5, 3\)"):
        other.load_state_dict(nn.load_state(path))
    assert_same(other.state_dict(), before)


def test_a_model_without_parameters_is_an_empty_file(path: Path) -> None:
    nn.save(nn.ReLU(), path)
    assert nn.load_state(path) == {}


def test_numpy_reads_the_file_without_pickle(path: Path) -> None:
    nn.save(STATE, path)
    with np.load(path, allow_pickle=False) as file:
        assert_same(dict(file), STATE)


@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
def test_files_of_numpy_are_read(path: Path, savez: Callable[..., None]) -> None:
    savez(path, **STATE)
    assert_same(nn.load_state(path), STATE)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n",
        "{'shape': (2,), 'fortran_order': False, 'descr': '<f4'}",
        '{"descr": "<f4", "fortran_order": True, "shape": (2, ), }    \n',
        "{'descr':'<f4','fortran_order':False,'shape':(2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }" + 50 * " " + "\n",
    ],
)
def test_headers_of_other_writers_are_read(path: Path, header: str, version: int) -> None:
    write_zip(path, {"x.npy": npy(header, struct.pack("<2f", 1, 2), version)})
    assert nn.load_state(path)["x"].tolist() == [1, 2]


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    nn.save(STATE, tmp_path / "first.npz")
    nn.save(STATE, tmp_path / "second.npz")
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


# ---- where it is written, and how ----


def test_the_file_is_at_the_path_and_nothing_else_is(tmp_path: Path) -> None:
    nn.save(STATE, str(tmp_path / "model.v1.NPZ"))
    assert listing(tmp_path) == ["model.v1.NPZ"]


@pytest.mark.parametrize("name", ["model", "model.pt", "model.npz.bak", ".npz"])
def test_another_ending_of_the_name_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"end in \.npz or \.safetensors, got '.*" + name):
        nn.save(STATE, tmp_path / name)
    assert listing(tmp_path) == []


class DiskFullError(OSError):
    pass


def fail(*args: Any, **options: Any) -> None:
    raise DiskFullError("no space left")


def interrupt(*args: Any, **options: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "function",
    [
        "numpy.lib.format.write_array",
        "os.fsync",
        "os.replace",
    ],
)
@pytest.mark.parametrize("failure", [fail, interrupt])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_at_any_stage_leaves_the_old_file_and_no_other(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    failure: Callable[..., None],
    exists: bool,
) -> None:
    if exists:
        nn.save({"old": np.ones(3)}, path)
    with monkeypatch.context() as patch:
        patch.setattr(function, failure)
        with pytest.raises((DiskFullError, KeyboardInterrupt)):
            nn.save(STATE, path)
    assert listing(path.parent) == ["state.npz"] * exists
    if exists:
        assert_same(nn.load_state(path), {"old": np.ones(3)})


# From Python 3.13 on, errors of the destructor of an incomplete entry are reported.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_on_any_line_of_the_writing_is_what_the_caller_sees() -> None:
    texts = {"text": "of an entry"}
    interrupt_on_each_line(lambda: npz.write(io.BytesIO(), SMALL, texts), npz, zipfile)


def test_a_failure_within_an_entry_leaves_the_old_file_and_no_other(path: Path) -> None:
    class Spoiled:
        """Fails when the second entry is asked for, as a broken array might."""

        def __array__(self, *args: Any, **options: Any) -> Any:
            raise DiskFullError("cannot be read")

    nn.save({"old": np.ones(3)}, path)
    with pytest.raises(DiskFullError):
        nn.save({"good": np.ones(2), "bad": Spoiled()}, path)  # type: ignore[dict-item]
    assert listing(path.parent) == ["state.npz"]
    assert_same(nn.load_state(path), {"old": np.ones(3)})


def test_the_data_are_on_the_disk_before_the_name_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        calls.append("folder" if stat.S_ISDIR(mode) else "file")
        fsync(descriptor)

    def record_replace(source: str, target: str) -> None:
        calls.append("rename")
        with zipfile.ZipFile(source) as archive:
            assert archive.testzip() is None
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    nn.save(STATE, path)
    assert calls == ["file", "rename"] + ["folder"] * (os.name == "posix")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: nn.save(STATE, p / "absent" / "x.npz"), FileNotFoundError, "absent"),
        (lambda p: nn.save(p / "x.npz", nn.ReLU()), TypeError, "model first"),
        (lambda p: nn.save([1.0], p / "x.npz"), TypeError, "state dict, got list"),
        (lambda p: nn.save({1: np.ones(2)}, p / "x.npz"), TypeError, "must be str"),
        (lambda p: nn.save({"": np.ones(2)}, p / "x.npz"), ValueError, "''"),
        (lambda p: nn.save({"a\0b": np.ones(2)}, p / "x.npz"), ValueError, "name of an entry"),
        (lambda p: nn.save({"\ud800": np.ones(2)}, p / "x.npz"), ValueError, "name of an entry"),
        (lambda p: nn.save({"a" * 65536: np.ones(2)}, p / "x.npz"), ValueError, "name of an"),
        (lambda p: nn.save({"a": "text"}, p / "x.npz"), TypeError, "'a'.*numbers"),
        (lambda p: nn.save({"a": None}, p / "x.npz"), TypeError, "'a'.*object"),
    ],
)
def test_bad_arguments_are_one_clear_sentence_and_write_nothing(
    tmp_path: Path, call: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(tmp_path)
    assert listing(tmp_path) == []


def test_a_read_only_file_is_not_replaced(path: Path) -> None:
    nn.save({"old": np.ones(3)}, path)
    path.chmod(0o444)
    with pytest.raises(PermissionError, match=r"state\.npz: this file is read-only"):
        nn.save(STATE, path)
    path.chmod(0o644)
    assert_same(nn.load_state(path), {"old": np.ones(3)})


def test_a_directory_is_not_overwritten(path: Path) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=r"state\.npz"):
        nn.save(STATE, path)
    assert listing(path.parent) == ["state.npz"]


if os.name == "posix":

    class TestPosix:
        """What only such systems have: a kill, modes, links and pipes."""

        def test_a_process_killed_at_any_moment_leaves_a_whole_file(self, path: Path) -> None:
            script = (
                "import sys, itertools, numpy, nnlite\n"
                "for number in itertools.count():\n"
                "    state = {str(i): numpy.full(5000, number) for i in range(20)}\n"
                "    nnlite.save(state, sys.argv[1])\n"
                "    print('saved', flush=True)\n"
            )
            for delay in (0.0, 0.003, 0.007, 0.02):
                with subprocess.Popen(
                    [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
                ) as process:
                    assert process.stdout is not None
                    process.stdout.readline()
                    time.sleep(delay)
                    process.kill()
                state = nn.load_state(path)
                assert len(state) == 20
                assert len({value for array in state.values() for value in array.tolist()}) == 1

        def test_the_mode_is_that_of_other_new_files_or_of_the_old_file(self, path: Path) -> None:
            other = path.with_name("other")
            other.touch()
            nn.save(STATE, path)
            assert path.stat().st_mode == other.stat().st_mode
            path.chmod(0o600)
            nn.save(STATE, path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

        def test_a_link_stays_a_link(self, tmp_path: Path) -> None:
            (tmp_path / "folder").mkdir()
            link, target = tmp_path / "latest.npz", tmp_path / "folder" / "run.npz"
            link.symlink_to(target)
            nn.save(STATE, link)
            assert link.is_symlink()
            assert_same(nn.load_state(target), STATE)

        def test_a_pipe_is_not_waited_for(self, path: Path) -> None:
            os.mkfifo(path)
            with pytest.raises(ValueError, match="no regular file"):
                nn.load_state(path)

        def test_pipes_sockets_and_devices_are_not_replaced(self, path: Path) -> None:
            os.mkfifo(path)
            name = path.with_name("socket.npz")
            device = path.with_name("device.npz")
            device.symlink_to(os.devnull)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(name))
                for file in (path, name, device):
                    kind = stat.S_IFMT(file.stat().st_mode)
                    with pytest.raises(OSError, match=rf"{file.name}: this is a pipe, socket or"):
                        nn.save(STATE, file)
                    assert stat.S_IFMT(file.stat().st_mode) == kind

        def test_what_killed_processes_have_left_is_deleted(self, path: Path) -> None:
            script = (
                "import os, sys, signal, numpy, nnlite\n"
                "os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
                "nnlite.save({'x': numpy.ones(3)}, sys.argv[1])\n"
            )
            subprocess.run([sys.executable, "-c", script, str(path)], check=False)
            (left,) = listing(path.parent)
            assert left.startswith(".nnlite-")
            nn.save(STATE, path)
            assert listing(path.parent) == ["state.npz"]

        def test_what_another_process_writes_is_not_deleted(self, path: Path) -> None:
            other = path.with_name("other.npz")
            with replacing(str(other)) as file:
                nn.save(STATE, path)
                file.write(b"content")
            assert other.read_bytes() == b"content"
            assert listing(path.parent) == ["other.npz", "state.npz"]


# ---- damaged files ----


@pytest.mark.parametrize("function", [nn.load_state, nn.load_model, nn.datasets.read_idx])
def test_arguments_that_are_no_paths_are_an_error_of_the_function(
    function: Callable[[Any], Any],
) -> None:
    name = function.__name__
    with pytest.raises(TypeError, match=f"^{name}: expected the path of a file .*, got 5$"):
        function(5)
    with pytest.raises(ValueError, match=f"^{name}: the path of a file has no null character"):
        function("a\0b.npz")


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"state\.npz"):
        nn.load_state(path)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="directory"):
        nn.load_state(tmp_path)


def of_pickle() -> bytes:
    return pickle.dumps({"weight": np.ones(2)})


def of_npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones(2))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"P", "begins with b'P'"),
        (b"<!DOCTYPE html><html>", "begins with b'<!DO"),
        (of_npy(), "single array"),
        (of_pickle(), "pickled objects"),
        (b"PK\3\4", "damaged or truncated"),
        (b"PK\3\4" + bytes(100), "damaged or truncated"),
    ],
)
def test_a_file_of_another_kind_is_named(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"state\.npz: .*{message}"):
        nn.load_state(path)


def test_a_file_cut_off_anywhere_is_refused(path: Path, saved: bytes) -> None:
    for length in range(len(saved)):
        path.write_bytes(saved[:length])
        with pytest.raises(ValueError, match=r"state\.npz"):
            nn.load_state(path)


def test_a_flipped_bit_is_found_or_changes_nothing(path: Path, saved: bytes) -> None:
    refused = 0
    for position in range(len(saved)):
        flipped = bytearray(saved)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        found = read_or_reason(path)
        if isinstance(found, str):
            assert "state.npz" in found
            refused += 1
        else:
            assert_same(found, SMALL)
    # What may change unnoticed are times, versions and attributes of the file system.
    assert refused > 0.6 * len(saved)


def test_a_directory_that_lists_less_than_the_file_has_is_refused(path: Path) -> None:
    nn.save(STATE, path)
    content = path.read_bytes()
    directory, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entries = [b"PK\1\2" + rest for rest in content[directory:end].split(b"PK\1\2")[1:]]

    def with_directory(listed: list[bytes], start: int = directory) -> bytes:
        count, size = len(listed), sum(map(len, listed))
        record = struct.pack("<4s4HIIH", b"PK\5\6", 0, 0, count, count, size, start, 0)
        return content[:directory] + b"".join(listed) + record

    path.write_bytes(with_directory(entries))
    assert_same(nn.load_state(path), STATE)
    damaged = [
        content[: end + 4] + bytes(18),  # the record at the end is zeroed
        content[:end] + b"PK\5\6" + bytes(18),
        with_directory([]),
        with_directory(entries[1:]),
        with_directory(entries[:-1]),
        with_directory(entries[:1] + entries[2:]),
    ]
    for each in damaged:
        path.write_bytes(each)
        with pytest.raises(ValueError, match=r"state\.npz: damaged or truncated"):
            nn.load_state(path)


def test_a_file_that_was_written_to_a_pipe_is_read(path: Path) -> None:
    class Pipe(io.RawIOBase):
        """A stream that cannot seek: the sizes of an entry are written behind it."""

        content = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.content += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        for name in ("first.npy", "second.npy"):
            archive.writestr(name, npy(described(), struct.pack("<2f", 1, 2)))
    path.write_bytes(pipe.content)
    assert {name: array.tolist() for name, array in nn.load_state(path).items()} == {
        "first": [1, 2],
        "second": [1, 2],
    }


def test_an_error_of_the_system_names_the_file(
    path: Path, saved: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(saved)

    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(npz, "read", fail)
    with pytest.raises(OSError, match=rf"Input/output error: '{re.escape(str(path))}'$"):
        nn.load_state(path)
    with pytest.raises(OSError, match=rf"Input/output error: '{re.escape(str(path))}'$"):
        nn.load_checkpoint(path, model=nn.ReLU())


def test_a_file_of_an_earlier_version_is_read() -> None:
    for name in ("state.npz", "state.safetensors"):
        state = nn.load_state(Path(__file__).parent / "data" / name)
        expected = {
            "0.weight": np.float32([[0, 1, 2], [3, 4, 5]]),
            "0.bias": np.array([0.5, -1.0]),
            "1.num_batches_tracked": np.array(7, np.int64),
            "mask": np.array([True, False]),
        }
        assert_same({key: state[key] for key in expected}, expected)
        assert len(state) == len(expected)


def test_surplus_bytes_are_refused(path: Path, saved: bytes) -> None:
    for content in (saved + b"\0", b"\0" + saved, saved + saved):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"state\.npz"):
            nn.load_state(path)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"w.npy": npy(described(shape="(3,)"), bytes(8))}, "claims 12 bytes.* it has 8"),
        ({"w.npy": npy(described(shape="(1,)"), bytes(8))}, "claims 4 bytes.* it has 8"),
        ({"w.npy": npy(described(shape="(99999999999,)"), bytes(8))}, "claims 399999999996 bytes"),
        ({"w.npy": npy(described(shape="(-1,)"))}, "header cannot be read"),
        ({"w.npy": npy(described(shape="(1.5,)"))}, "header cannot be read"),
        ({"w.npy": npy(described(shape="2"))}, "header cannot be read"),
        ({"w.npy": npy(described(shape="(2 2)"), bytes(8))}, "shape .* cannot be read"),
        ({"w.npy": npy(described(shape=f"({'9' * 50},)"))}, "shape .* cannot be read"),
        ({"w.npy": npy(described(shape=f"({'1, ' * 65})"), bytes(4))}, "shape .* cannot be read"),
        ({"w.npy": npy(described(shape="(" * 2000))}, "header cannot be read"),
        ({"w.npy": npy(described(shape="(0, 9999999999999999999)"))}, ""),
        ({"w.npy": npy(described("'|O'"), bytes(16))}, "objects, which are never loaded"),
        ({"w.npy": npy(described("[('a', '|O')]"), bytes(16))}, "objects, which are never loaded"),
        ({"w.npy": npy(described("'<U2'"), bytes(16))}, "numbers, it is of '<U2'"),
        ({"w.npy": npy(described("'<M8[s]'"), bytes(16))}, "numbers"),
        ({"w.npy": npy(described("'<f3'"), bytes(6))}, "dtype '<f3' is unknown"),
        ({"w.npy": npy(described(order="1"), bytes(8))}, "header cannot be read"),
        ({"w.npy": npy("__import__('os').abort()")}, "header cannot be read"),
        ({"w.npy": npy(described() + 5000 * " ", bytes(8))}, "header claims 50.. bytes"),
        ({"w.npy": npy(described(), bytes(8), length=4000)}, "ends too early"),
        ({"w.npy": npy(described(), bytes(8), version=2, length=2**32 - 1)}, "claims 4294967295"),
        ({"w.npy": npy(described(), bytes(8), version=4)}, "begins with"),
        ({"w.npy": npy(described("'|b1'"), b"\1\2")}, "is of flags, and has other values"),
        ({"w.npy": b""}, "ends too early"),
        ({"w.npy": b"\x93NUMPY\1\0v"}, "ends too early"),
        ({"w.npy": b"not an array"}, "begins with b'not an a'"),
        ({"w": npy(described(), bytes(8))}, r"no \.npy file"),
        ({"archive/data.pkl": b"\x80\2."}, "torch.save.*never loaded"),
    ],
)
def test_a_hostile_entry_is_named_and_takes_no_memory(
    path: Path, contents: Contents, message: str
) -> None:
    write_zip(path, {"good.npy": npy(described(), bytes(8)), **contents})
    name = next(iter(contents)).removesuffix(".npy")
    with (
        peak_memory_below(MIB),
        pytest.raises(ValueError, match=rf"state\.npz: entry '{name}': .*{message}"),
    ):
        nn.load_state(path)


def test_no_code_in_a_file_is_run(path: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "it ran",)

    content = np.array([Payload()], dtype=object)
    np.savez(path, weight=content)
    with pytest.raises(ValueError, match="entry 'weight': .*objects"):
        nn.load_state(path)
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="pickled"):
        nn.load_state(path)
    assert not (tmp_path / "it ran").exists()
    pickle.loads(path.read_bytes())  # the payload is live
    assert (tmp_path / "it ran").exists()


def test_a_name_that_occurs_twice_is_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", npy(described(), bytes(8)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("w.npy", npy(described(), bytes(8)))
    with pytest.raises(ValueError, match="entry 'w': the name occurs twice"):
        nn.load_state(path)


def test_an_encrypted_entry_is_refused(path: Path) -> None:
    write_zip(path, {"w.npy": npy(described(), bytes(8))})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="entry 'w': it is encrypted"):
        nn.load_state(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(path: Path, compression: int) -> None:
    write_zip(path, {"w.npy": npy(described(), bytes(8))}, compression)
    with pytest.raises(ValueError, match=r"entry 'w': .*compressed by method 1[24]"):
        nn.load_state(path)


def test_a_compressed_bomb_is_not_unpacked(path: Path) -> None:
    size = 16 * MIB
    bomb = npy(described("'|u1'", f"({size},)"), bytes(size))
    write_zip(path, {"w.npy": bomb}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < size / 500
    with peak_memory_below(MIB), pytest.raises(ValueError, match="claims to unpack from"):
        nn.load_state(path)


@pytest.mark.parametrize(("mebibytes", "accepted"), [(8, True), (12, False)])
def test_a_compressed_file_may_hold_a_hundred_times_its_size(
    path: Path, mebibytes: int, accepted: bool
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)
    np.savez_compressed(path, noise=noise, zeros=np.zeros(mebibytes * MIB, np.uint8))
    found = read_or_reason(path)
    assert ("zeros" in found) is accepted
    assert ("claims to unpack" in found) is not accepted


def test_entries_that_share_their_bytes_are_refused(path: Path) -> None:
    # Every entry of the directory points to the same data: small on the disk, large in memory.
    write_zip(path, {"w.npy": npy(described("'|u1'", "(100000,)"), bytes(100_000))})
    content = path.read_bytes()
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entry = content[start:end]
    count = 1000
    tail = struct.pack("<4s4HIIH", b"PK\5\6", 0, 0, count, count, count * len(entry), start, 0)
    path.write_bytes(content[:start] + entry * count + tail)
    with peak_memory_below(2 * MIB), pytest.raises(ValueError, match="claim more than the"):
        nn.load_state(path)


def test_reading_takes_little_more_memory_than_the_arrays(path: Path) -> None:
    nn.save({str(i): np.zeros(MIB) for i in range(4)}, path)  # 8 MiB each
    with peak_memory_below(32 * MIB + 4 * MIB):
        nn.load_state(path)


edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "delete", "insert", "copy"]),
        st.integers(0, 5000),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=400)
@given(compress=st.booleans(), edits=edits, from_end=st.booleans())
def test_a_mutated_file_is_read_or_refused_and_nothing_else(
    scratch: Path, compress: bool, edits: list[tuple[str, int, bytes]], from_end: bool
) -> None:
    stream = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(stream, **STATE)
    content = bytearray(stream.getvalue())
    for kind, offset, value in edits:
        place = offset % (len(content) + 1)
        if from_end:  # where the directory is
            place = len(content) - place % 400
        if kind == "set":
            content[place : place + len(value)] = value
        elif kind == "delete":
            del content[place : place + 16 * len(value)]
        elif kind == "insert":
            content[place:place] = value
        else:
            content[place:place] = content[place : place + 40]
    scratch.write_bytes(content)
    with peak_memory_below(MIB):
        found = read_or_reason(scratch)
    if isinstance(found, str):
        assert str(scratch) in found
        assert len(found) < len(str(scratch)) + 500
    else:
        assert all(isinstance(array, np.ndarray) for array in found.values())


@settings(max_examples=200)
@given(
    header=st.one_of(
        st.text(st.characters(max_codepoint=255), max_size=100),
        st.builds(
            described,
            st.sampled_from(["'<f4'", "'|O'", "'>i8'", "'|b1'", "None", "''", "'<f99'"]),
            st.text("(0123456789, )", max_size=30).map(lambda text: f"({text})"),
            st.sampled_from(["True", "False", "None", "0"]),
        ),
    ),
    data=st.binary(max_size=40),
)
def test_any_header_is_read_or_refused_and_nothing_else(
    scratch: Path, header: str, data: bytes
) -> None:
    write_zip(scratch, {"w.npy": npy(header, data)})
    with peak_memory_below(MIB):
        found = read_or_reason(scratch)
    if isinstance(found, str):
        assert "entry 'w'" in found
    else:
        assert found["w"].nbytes == len(data)
