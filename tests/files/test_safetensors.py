"""`.safetensors`: exchange of weights with PyTorch, and damaged files."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn

from ..registry import Array

MIB = 1 << 20
ROOT = Path(__file__).parents[2]

# Written by PyTorch 2.13: the state dict of a Sequential of the layers below, after five batches.
FROM_PYTORCH = Path(__file__).parents[1] / "parity" / "recorded" / "sequential.safetensors"
INPUTS = np.float32([[1, -2, 0.5], [0, 3, -1]])
OUTPUTS_OF_PYTORCH = [[-0.20346764, 0.26406059], [-0.36313623, 0.13028812]]


def model(rng: int = 0) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 4, rng=rng), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2, rng=rng)
    )


def file_of(header: Any, data: bytes = b"") -> bytes:
    """Write a file by the words of the format: the length of the header, the header, the data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


# ---- PyTorch ----


def test_a_file_of_pytorch_gives_the_outputs_of_pytorch() -> None:
    mine = model()
    mine.load_state_dict(nn.load_state(FROM_PYTORCH))
    assert_allclose(mine.eval()(INPUTS), OUTPUTS_OF_PYTORCH, rtol=1e-6)


class TestWithPyTorch:
    """Both directions, live."""

    def modules(self, torch: Any) -> Any:
        linear, norm = torch.nn.Linear, torch.nn.BatchNorm1d
        return torch.nn.Sequential(linear(3, 4), norm(4), torch.nn.ReLU(), linear(4, 2))

    def test_the_recorded_figures_are_what_pytorch_gives_for_the_recorded_file(self) -> None:
        torch = pytest.importorskip("torch")
        module = self.modules(torch)
        module.load_state_dict(
            {
                name: torch.tensor(value)
                for name, value in safetensors.numpy.load_file(FROM_PYTORCH).items()
            }
        )
        assert_allclose(
            module.eval()(torch.tensor(INPUTS)).detach().numpy(), OUTPUTS_OF_PYTORCH, rtol=1e-6
        )

    def test_weights_of_pytorch_move_to_nnlite(self, path: Path) -> None:
        torch = pytest.importorskip("torch")
        from safetensors.torch import save_file

        module = self.modules(torch)
        module(torch.tensor(INPUTS))  # so that the running statistics are not the first ones
        save_file(module.state_dict(), path)
        mine = model()
        mine.load_state_dict(nn.load_state(path))
        assert_allclose(
            mine.eval()(INPUTS), module.eval()(torch.tensor(INPUTS)).detach(), rtol=1e-5, atol=1e-6
        )

    def test_weights_of_nnlite_move_to_pytorch(self, path: Path) -> None:
        torch = pytest.importorskip("torch")
        from safetensors.torch import load_file

        mine = model(rng=3)
        mine(INPUTS)
        nn.save(mine, path)
        module = self.modules(torch)
        module.load_state_dict(load_file(path))
        assert_allclose(
            module.eval()(torch.tensor(INPUTS)).detach(), mine.eval()(INPUTS), rtol=1e-5, atol=1e-6
        )

    def test_the_code_of_the_documentation_moves_the_same_numbers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch = pytest.importorskip("torch")
        page = (ROOT / "docs" / "saving.md").read_text(encoding="utf-8")
        code = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        there, back, *_ = code
        monkeypatch.chdir(tmp_path)
        names: dict[str, Any] = {}
        exec(there, names)
        module, mine = names["module"], names["model"]
        x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
        for _ in range(2):
            expected = module.eval()(torch.tensor(x)).detach()
            assert_allclose(mine.eval()(x), expected, rtol=1e-5, atol=1e-6)
            mine.train()(x)  # the weights stay, the running statistics do not
            exec(back, names)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_half_precision_comes_as_the_same_numbers(self, path: Path, dtype: str) -> None:
        torch = pytest.importorskip("torch")
        from safetensors.torch import save_file

        module = self.modules(torch).to(getattr(torch, dtype))
        save_file(module.state_dict(), path)
        state = nn.load_state(path)
        for name, value in module.state_dict().items():
            assert_array_equal(state[name], value.to(torch.float64))
        mine = model()
        mine.load_state_dict(state)
        assert mine[0].weight.dtype == np.float32
        assert_array_equal(mine[0].weight.data, module[0].weight.detach().to(torch.float32))


# ---- there and back ----

dtypes = ["<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "i1", "<u8", "<u4", "<u2", "u1", "?"]
arrays = st.builds(
    lambda dtype, shape: np.arange(np.prod(shape)).astype(dtype).reshape(shape),
    st.sampled_from(dtypes),
    st.lists(st.integers(0, 3), max_size=3),
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "state.safetensors"


@given(state=st.dictionaries(names, arrays, max_size=4))
def test_any_arrays_come_back_as_they_were(scratch: Path, state: dict[str, Array]) -> None:
    nn.save(state, scratch)
    found = nn.load_state(scratch)
    assert set(found) == set(state)
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert_array_equal(found[name], value)
    for name, value in safetensors.numpy.load_file(scratch).items():
        assert_array_equal(value, state[name])


def test_byte_order_and_memory_order_do_not_matter(path: Path) -> None:
    base = np.arange(6.0).reshape(2, 3)
    nn.save({"big": base.astype(">f4"), "fortran": np.asfortranarray(base), "view": base.T}, path)
    found = nn.load_state(path)
    assert_array_equal(found["big"], base)
    assert_array_equal(found["fortran"], base)
    assert_array_equal(found["view"], base.T)


def test_what_is_loaded_can_be_written_to(path: Path) -> None:
    path.write_bytes(
        file_of({"a": entry("F32", [1], 0, 4), "h": entry("BF16", [1], 4, 6)}, bytes(6))
    )
    for array in nn.load_state(path).values():
        array[...] = 0


def test_bfloat16_becomes_float32_bit_for_bit(path: Path) -> None:
    # Sign, eight bits of exponent and seven of mantissa: 1, -2.5, infinity, the smallest number.
    halves = struct.pack("<4H", 0x3F80, 0xC020, 0x7F80, 0x0001)
    path.write_bytes(file_of({"x": entry("BF16", [2, 2], 0, 8)}, halves))
    found = nn.load_state(path)["x"]
    assert found.dtype == np.float32
    assert_array_equal(found, [[1, -2.5], [np.inf, 2.0**-133]])


def test_the_name_of_the_file_is_of_no_account_when_it_is_read(tmp_path: Path) -> None:
    nn.save({"a": np.ones(3)}, tmp_path / "a.SafeTensors")
    (tmp_path / "a.SafeTensors").rename(tmp_path / "a.npz")
    assert_array_equal(nn.load_state(tmp_path / "a.npz")["a"], np.ones(3))


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        nn.save(model(), tmp_path / name)
    first, second = (tmp_path / name for name in ("a.safetensors", "b.safetensors"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("failing", ["os.fsync", "os.replace", "safetensors.numpy.save"])
def test_a_failure_leaves_the_old_file_and_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    nn.save({"old": np.ones(3)}, path)
    with monkeypatch.context() as patch:
        patch.setattr(failing, fail)
        with pytest.raises(KeyboardInterrupt):
            nn.save({"new": np.ones(2)}, path)
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]
    assert list(nn.load_state(path)) == ["old"]


if os.name == "posix":

    def test_others_may_read_the_file_as_they_may_any_new_file(path: Path) -> None:
        other = path.with_name("other")
        other.touch()
        nn.save({"a": np.ones(2)}, path)
        assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"a": np.zeros(2, np.complex128)}, TypeError, "entry 'a' is of complex128"),
        ({"a": np.array(["text"])}, TypeError, "'a' to be an array of numbers"),
        ({"__metadata__": np.ones(2)}, ValueError, "'__metadata__' cannot be the name"),
        ({"": np.ones(2)}, ValueError, "'' cannot be the name"),
        ({"\ud800": np.ones(2)}, ValueError, "cannot be the name"),
    ],
)
def test_what_the_format_has_not_is_an_error_and_nothing_is_written(
    path: Path, state: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        nn.save(state, path)
    assert list(path.parent.iterdir()) == []


def test_without_the_package_the_error_says_what_to_install(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nn.save({"a": np.ones(2)}, path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.delitem(sys.modules, "nnlite.files.safetensors_files")
    monkeypatch.delattr("nnlite.files.safetensors_files")
    for call in (lambda: nn.load_state(path), lambda: nn.save({"b": np.ones(2)}, path)):
        with pytest.raises(ImportError, match=r"pip install safetensors"):
            call()
    monkeypatch.undo()
    assert list(nn.load_state(path)) == ["a"]


# ---- damaged files ----


def test_a_file_cut_off_anywhere_is_refused(path: Path) -> None:
    nn.save(model(), path)
    saved = path.read_bytes()
    for length in range(len(saved)):
        path.write_bytes(saved[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors: "):
            nn.load_state(path)
    path.write_bytes(saved + b"\0")
    with pytest.raises(ValueError, match=r"model\.safetensors: "):
        nn.load_state(path)


FLOATS = {"w": entry("F32", [2], 0, 8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack("<Q", 2**62) + b"{}", "damaged or truncated: .*[Hh]eader"),
        (struct.pack("<Q", 50 * MIB) + b"{}", "damaged or truncated: .*[Hh]eader"),
        (file_of({"w": entry("F32", [2**40], 0, 2**42)}, bytes(8)), "damaged or truncated"),
        (file_of({"w": entry("F32", [2**62, 4], 0, 8)}, bytes(8)), "damaged or truncated"),
        (file_of({"w": entry("F32", [3], 0, 8)}, bytes(8)), "damaged or truncated.*"),
        (file_of({"w": entry("F32", [0, 2**63], 0, 0)}), "entry 'w': "),
        (file_of({"w": entry("F32", [1] * 100, 0, 4)}, bytes(4)), "entry 'w': "),
        (file_of({"w": entry("O", [2], 0, 8)}, bytes(8)), "damaged or truncated"),
        (
            file_of({"w": entry("F8_E4M3", [2], 0, 2)}, bytes(2)),
            "(entry 'w' is of F8_E4M3|damaged)",
        ),
        (file_of({"w": entry("BOOL", [2], 0, 2)}, b"\1\2"), "entry 'w' is of flags"),
        (
            file_of({**FLOATS, "v": entry("F32", [2], 0, 8)}, bytes(8)),
            "damaged or truncated: .*[Oo]ffset",
        ),
        (file_of({"w": entry("F32", [2], 4, 12)}, bytes(12)), "damaged or truncated: .*'?w"),
        (file_of(FLOATS, bytes(9)), "damaged or truncated"),
        (file_of(json.dumps(FLOATS)[:-1].encode(), bytes(8)), "damaged or truncated"),
        (file_of(b"{" * 200_000), "damaged or truncated"),
        (
            file_of((json.dumps(FLOATS)[:-1] + "," + json.dumps(FLOATS)[1:]).encode(), bytes(8)),
            "entry 'w': the name occurs twice",
        ),
    ],
    ids=lambda value: "file" if isinstance(value, bytes) else value,
)
def test_a_hostile_file_is_named_and_takes_no_memory(
    path: Path, content: bytes, message: str
) -> None:
    nn.load_state(FROM_PYTORCH)  # what is imported takes memory too
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"model\.safetensors: {message}"):
            nn.load_state(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MIB


def test_the_wrong_model_is_unchanged() -> None:
    other = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    before = other.state_dict()
    with pytest.raises(ValueError, match=r"'0.weight' is of shape \(5, 3\).*\(4, 3\)"):
        other.load_state_dict(nn.load_state(FROM_PYTORCH))
    for name, value in other.state_dict().items():
        assert_array_equal(value, before[name])


def test_bfloat16_takes_three_times_the_memory_of_the_file(path: Path) -> None:
    count = 2 * MIB
    size = 2 * count
    path.write_bytes(file_of({"w": entry("BF16", [count], 0, size)}, b"\x80\x3f" * count))
    tracemalloc.start()
    state = nn.load_state(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_array_equal(state["w"], np.ones(count, np.float32))
    assert peak < 3.1 * size
