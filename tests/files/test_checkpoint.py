"""Checkpoints: a resumed run has the same bits, and a failed load changes nothing."""

from __future__ import annotations

import copy
import errno
import io
import json
import math
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import nnlite as nn
from nnlite.files import tree as state_tree
from nnlite.files.atomic import check_target
from nnlite.random import generator

from .. import resumable

ROOT = Path(__file__).parents[2]


def states(parts: dict[str, Any]) -> dict[str, Any]:
    """Return copies of all states of a run, with those of the generators that it draws from."""
    dropout = [layer._rng for layer in parts["model"].layers() if getattr(layer, "_rng", None)]
    taken = {
        name: part.bit_generator.state
        if isinstance(part, np.random.Generator)
        else part.state_dict()
        for name, part in parts.items()
    }
    taken["generators"] = [rng.bit_generator.state for rng in (generator(), *dropout)]
    return copy.deepcopy(taken)


def assert_same(actual: Any, expected: Any) -> None:
    """Fail unless two states are of the same types, keys and bits."""
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_same(actual[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for mine, other in zip(actual, expected, strict=True):
            assert_same(mine, other)
    elif isinstance(expected, np.ndarray):
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape
        assert actual.tobytes() == expected.tobytes()
    else:
        assert actual == expected or (actual != actual and expected != expected)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("uninterrupted")
    resumable.run(folder / "run.npz")
    return (folder / "final.npz").read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.npz"


@pytest.fixture
def saved(path: Path) -> Path:
    """A checkpoint taken in the middle of an epoch, with much that has happened before."""
    resumable.run(path, stop_after=10)  # that of batch 9, the first of the second epoch
    return path


# ---- an interrupted run ----


@pytest.mark.parametrize("batches", range(1, resumable.EPOCHS * resumable.BATCHES))
def test_a_run_stopped_after_any_batch_ends_with_the_same_bits(
    path: Path, uninterrupted: bytes, batches: int
) -> None:
    resumable.run(path, stop_after=batches)
    assert path.exists() == (batches >= resumable.INTERVAL)
    nn.seed(99)
    resumable.run(path)
    # The file has the state of everything, and the same states give the same bytes.
    assert path.with_name("final.npz").read_bytes() == uninterrupted


def test_a_run_stopped_many_times_ends_with_the_same_bits(path: Path, uninterrupted: bytes) -> None:
    for batches in range(2, resumable.EPOCHS * resumable.BATCHES, 5):
        resumable.run(path, stop_after=batches)
    resumable.run(path)
    assert path.with_name("final.npz").read_bytes() == uninterrupted


if os.name == "posix":

    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_run_killed_at_random_moments_ends_with_the_same_bits(
        path: Path, uninterrupted: bytes, seed: int
    ) -> None:
        command = [sys.executable, "-m", "tests.resumable", str(path.parent), str(seed)]
        # A process of several threads is not one to fork.
        alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **alone},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > 0
        assert path.with_name("final.npz").read_bytes() == uninterrupted


def test_everything_is_as_it_was_when_it_was_saved(path: Path) -> None:
    parts = resumable.parts()
    for _ in parts["loader"]:
        parts["model"](np.ones((4, 6), np.float32))
        break
    parts["losses"].values = [0.1, math.inf, -0.0, math.nan]
    before = states(parts)
    nn.save_checkpoint(path, **parts)
    fresh = resumable.parts()
    nn.seed(123)
    nn.load_checkpoint(path, **fresh)
    assert_same(states(fresh), before)


def test_saving_changes_nothing(path: Path) -> None:
    parts = resumable.parts()
    before = states(parts)
    nn.save_checkpoint(path, **parts)
    assert_same(states(parts), before)


def test_the_dropout_of_every_layer_goes_on_from_its_own_generator(path: Path) -> None:
    def model() -> nn.Layer:
        shared = np.random.default_rng(1)
        return nn.Sequential(
            nn.Dropout(rng=shared), nn.Residual(nn.Dropout(rng=shared), nn.Dropout(rng=3))
        )

    x = np.ones((5, 50), np.float32)
    first, second = model(), model()
    first(x)
    nn.save_checkpoint(path, model=first)
    expected = first(x)
    nn.load_checkpoint(path, model=second)
    assert_array_equal(second(x), expected)


def test_layers_among_the_others_are_saved_with_their_generators(path: Path) -> None:
    x = np.ones((5, 50), np.float32)
    critic = nn.Sequential(nn.Dropout(rng=3))
    critic(x)
    nn.save_checkpoint(path, model=nn.Linear(2, 2), critic=critic)
    expected = critic(x)
    other = nn.Sequential(nn.Dropout(rng=3))
    nn.load_checkpoint(path, model=nn.Linear(2, 2), critic=other)
    assert_array_equal(other(x), expected)


@pytest.mark.parametrize(
    "kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64]
)
def test_a_generator_of_any_kind_goes_on(path: Path, kind: Any) -> None:
    rng, other = np.random.Generator(kind(1)), np.random.Generator(kind(2))
    rng.random(3, np.float32)
    nn.save_checkpoint(path, model=nn.ReLU(), rng=rng)
    expected = rng.random(100, np.float32)
    nn.load_checkpoint(path, model=nn.ReLU(), rng=other)
    assert_array_equal(other.random(100, np.float32), expected)


def test_the_learning_rate_is_that_of_the_optimizer(path: Path) -> None:
    def parts(lr: float) -> dict[str, Any]:
        optimizer = nn.SGD([nn.Parameter([1.0])], lr=lr)
        return {"optimizer": optimizer, "schedule": nn.ExponentialLR(optimizer, 0.5)}

    first, second = parts(0.8), parts(0.1)
    first["schedule"].step()
    first["optimizer"].lr *= 0.25  # by hand, of which the schedule knows nothing
    nn.save_checkpoint(path, model=nn.ReLU(), **first)
    nn.load_checkpoint(path, model=nn.ReLU(), **second)
    assert second["optimizer"].lr == 0.8 * 0.5 * 0.25


def test_load_state_reads_the_model_of_a_checkpoint(saved: Path) -> None:
    parts = resumable.parts()
    nn.load_checkpoint(saved, **parts)
    assert_same(nn.load_state(saved), parts["model"].state_dict())


# ---- valid states ----

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**200), 2**200), st.floats(), st.text()
)
arrays = st.sampled_from(
    [np.arange(3), np.array(1.5), np.zeros((2, 0)), np.array([True]), np.float16([[1, 2]])]
)
trees = st.recursive(
    st.one_of(scalars, arrays),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(
            st.one_of(st.text(max_size=5), st.integers(-3, 3), st.sampled_from(["$array", "a/b"])),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=12,
)


class Holder:
    """A thing with any state."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trees") / "run.npz"


@given(tree=trees)
def test_any_state_of_arrays_numbers_and_strings_comes_back(scratch: Path, tree: Any) -> None:
    nn.save_checkpoint(scratch, model=nn.ReLU(), holder=Holder(tree))
    holder = Holder()
    nn.load_checkpoint(scratch, model=nn.ReLU(), holder=holder)
    assert_same(holder.state, tree)


def test_numpys_numbers_become_numbers(path: Path) -> None:
    state = {"a": np.float64(0.1), "b": np.int8(3), "c": np.bool_(True), "d": np.float32(0.5)}
    nn.save_checkpoint(path, model=nn.ReLU(), holder=Holder(state))
    holder = Holder()
    nn.load_checkpoint(path, model=nn.ReLU(), holder=holder)
    assert_same(holder.state, {"a": 0.1, "b": 3, "c": True, "d": 0.5})


def test_arrays_whose_paths_are_the_same_are_both_kept(path: Path) -> None:
    state = {"a/b": np.ones(1), "a": {"b": np.zeros(1)}, 1: np.ones(2), "1": np.zeros(2)}
    nn.save_checkpoint(path, model=nn.ReLU(), holder=Holder(state))
    holder = Holder()
    nn.load_checkpoint(path, model=nn.ReLU(), holder=holder)
    assert_same(holder.state, state)


circular: list[Any] = []
circular.append(circular)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"a": {1, 2}}, TypeError, "holder/a: a state is made of arrays.*got set"),
        ({"a": [0, print]}, TypeError, "holder/a/1: .*got builtin_function"),
        (
            {"a": np.array(["x"])},
            TypeError,
            "holder/a: expected an array of numbers, got dtype <U1",
        ),
        ({"a": np.array([None])}, TypeError, "holder/a: expected an array of numbers.*object"),
        ({1.5: 1}, TypeError, "holder: a key must be a str or an int, got 1.5"),
        ({"a": np.datetime64("2020-01-01")}, TypeError, "holder/a: .*got date"),
        (circular, ValueError, "too deep, or contains itself"),
    ],
)
def test_a_state_that_cannot_be_saved_is_an_error_that_says_where(
    path: Path, state: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^save_checkpoint: .*{message}"):
        nn.save_checkpoint(path, model=nn.ReLU(), holder=Holder(state))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"model": [1]}, "expected model to be a layer, got list"),
        ({"model": nn.ReLU(), "optimizer": 3}, "optimizer must have state_dict .* got int"),
        ({"model": nn.ReLU(), "epoch": 3}, "epoch must have state_dict .* got int"),
    ],
)
def test_what_has_no_state_is_an_error(path: Path, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^save_checkpoint: {message}"):
        nn.save_checkpoint(path, **parts)
    with pytest.raises(TypeError, match=f"^load_checkpoint: {message}"):
        nn.load_checkpoint(path, **parts)
    assert list(path.parent.iterdir()) == []


def test_names_of_the_file_itself_are_refused(path: Path) -> None:
    for name in ("nnlite.random", "nnlite.generators", "nnlite.classes"):
        with pytest.raises(ValueError, match=f"^save_checkpoint: the name '{name}' is reserved"):
            nn.save_checkpoint(path, model=nn.ReLU(), **{name: Holder()})


@pytest.mark.parametrize("name", ["run", "run.pt", "run.safetensors"])
def test_another_ending_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^save_checkpoint: .*end in \.npz, got .*" + name):
        nn.save_checkpoint(tmp_path / name, model=nn.ReLU())


# ---- files that cannot be written ----


def test_an_error_of_the_system_names_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def denied(source: str, target: str) -> None:
        raise OSError(errno.EACCES, "Permission denied", source, None, target)

    for function, failure, kind in [
        ("os.fsync", full, OSError),
        ("os.replace", denied, PermissionError),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(function, failure)
            with pytest.raises(kind, match=rf"\w: '{re.escape(str(path))}'$"):
                nn.save_checkpoint(path, model=nn.ReLU())
    assert list(path.parent.iterdir()) == []


def test_a_file_that_can_be_written_is_checked_without_being_made(path: Path) -> None:
    assert check_target(str(path)) == str(path.resolve())
    assert list(path.parent.iterdir()) == []


def test_what_cannot_be_written_is_found_without_trying(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.run\.npz: there is no folder .*nowhere"):
        check_target(str(path.parent / "nowhere" / "run.npz"))
    # Somebody with all rights, as in a container, could write to any folder.
    monkeypatch.setattr("os.access", lambda folder, mode: Path(folder) != path.parent.resolve())
    with pytest.raises(PermissionError, match=r"run\.npz: no file can be written to the folder"):
        check_target(str(path))
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=r"run\.npz: this is a directory"):
        check_target(str(path))


# ---- files that do not fit ----


@pytest.mark.parametrize("epochs", ["1000000000", "-5", "0.0", "null"])
@pytest.mark.parametrize("figures", [{}, {"loss": 0.5}])
def test_a_history_cannot_claim_epochs_that_it_has_no_figures_of(
    path: Path, epochs: str, figures: dict[str, float]
) -> None:
    saved, history = nn.History(), nn.History()
    if figures:
        saved.append(figures)
    history.append({"loss": 1.0})
    nn.save_checkpoint(path, model=nn.ReLU(), history=saved)
    rewritten(path, replaced(f'"epochs": {len(figures)}', f'"epochs": {epochs}'))
    with pytest.raises(ValueError, match=r"run\.npz: history: History: "):
        nn.load_checkpoint(path, model=nn.ReLU(), history=history)
    assert history["loss"].tolist() == [1.0]


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda parts: parts.pop(name)


def put(name: str, part: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda parts: parts.update({name: part(parts)})


def loader(parts: dict[str, Any], **options: Any) -> nn.DataLoader:
    return nn.DataLoader(*parts["loader"].arrays, **{"batch_size": 8, "shuffle": True, **options})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("model", lambda _: nn.Sequential(nn.Linear(6, 3), nn.Dropout(rng=0))),
            "generators of their own at .'model.1._rng'., those of the checkpoint at .'model.6._rn",
        ),
        (lambda parts: parts["model"].append(nn.Linear(2, 2)), "model: .*lacks '8.weight'"),
        (put("model", lambda p: p["model"][:-1]), "model: .*unknown '7.weight'"),
        (without("optimizer"), "has 'optimizer', which this run has not"),
        (without("losses"), "has 'losses', which this run has not"),
        (put("more", lambda _: Holder()), "has no 'more', which this run has"),
        (
            put("optimizer", lambda p: nn.Adam(p["model"].parameters())),
            "optimizer: .*2 parameter g",
        ),
        (put("noise", lambda _: np.random.Generator(np.random.MT19937())), "noise: .*MT19937"),
        (
            put("losses", lambda _: nn.SGD([nn.Parameter([1.0])])),
            "losses: the checkpoint has the state of Losses, this run has SGD; a run goes on with",
        ),
        (
            put("optimizer", lambda p: nn.AdamW(p["optimizer"].param_groups)),
            "optimizer: the checkpoint has the state of Adam, this run has AdamW",
        ),
        (
            put("schedule", lambda p: nn.CosineAnnealingLR(p["optimizer"], T_max=32)),
            "schedule: the checkpoint has the state of OneCycleLR, this run has CosineAnnealingLR",
        ),
        (
            put("loader", lambda p: loader(p, batch_size=4)),
            "loader: .*batch_size=8, this one has 4",
        ),
        (put("loader", lambda p: loader(p, shuffle=False)), "loader: .*shuffle=True"),
        (put("loader", lambda p: loader(p, rng=3)), "loader: .*rng of their own"),
        (
            put("schedule", lambda p: nn.OneCycleLR(nn.SGD([nn.Parameter([1.0])]), 0.1, 32)),
            "schedule: .*2 par",
        ),
    ],
)
def test_other_parts_than_those_that_were_saved_are_an_error_and_nothing_is_loaded(
    saved: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    parts = resumable.parts()
    change(parts)
    before = states(parts)
    with pytest.raises(ValueError, match=rf"run\.npz: .*{message}"):
        nn.load_checkpoint(saved, **parts)
    assert_same(states(parts), before)


@pytest.mark.parametrize("failing", ["model", "schedule", "optimizer", "loader", "noise", "losses"])
def test_whichever_part_fails_all_are_as_they_were(saved: Path, failing: str) -> None:
    parts = resumable.parts()
    part = parts[failing]
    if failing == "noise":
        parts["noise"] = np.random.Generator(np.random.Philox(1))
    else:
        # A part that has changed when it fails; but for the loader, which must not.
        def fail(state: Any) -> None:
            del part.load_state_dict  # so that it can be put back
            if failing != "loader":
                part.load_state_dict(state)
            generator().random()
            raise KeyError("half")

        part.load_state_dict = fail
    parts["optimizer"].param_groups[0]["lr"] = 0.123
    before = states(parts)
    with pytest.raises(ValueError, match=rf"run\.npz: {failing}: "):
        nn.load_checkpoint(saved, **parts)
    assert_same(states(parts), before)


def test_a_part_that_hands_out_its_own_lists_is_put_back_too(path: Path) -> None:
    class Log(Holder):
        def load_state_dict(self, state: Any) -> None:
            self.state["values"][:] = state["values"]

    def parts(values: list[int], draws: Any) -> dict[str, Any]:
        return {"log": Log({"values": values}), "noise": np.random.Generator(draws)}

    nn.save_checkpoint(path, model=nn.ReLU(), **parts([1, 2], np.random.PCG64()))
    given = parts([3], np.random.MT19937())
    with pytest.raises(ValueError, match="noise: "):
        nn.load_checkpoint(path, model=nn.ReLU(), **given)
    assert given["log"].state == {"values": [3]}


def test_a_loop_that_is_running_goes_on_after_a_file_that_does_not_load(saved: Path) -> None:
    parts = resumable.parts()
    parts["loader"] = nn.DataLoader(np.arange(20), batch_size=3, shuffle=True, rng=2)
    twin = nn.DataLoader(np.arange(20), batch_size=3, shuffle=True, rng=2)
    for _ in range(2):
        for batch, expected in zip(parts["loader"], twin, strict=True):
            assert_array_equal(batch, expected)
            with pytest.raises(ValueError, match="loader: "):
                nn.load_checkpoint(saved, **parts)


def test_a_missing_checkpoint_is_named(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run\.npz"):
        nn.load_checkpoint(path, model=nn.ReLU())


def rewritten(path: Path, text: Callable[[str], str]) -> None:
    """Change the text of a checkpoint, and give it the right checksum."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["checkpoint.json"] = text(contents["checkpoint.json"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced('"version": 1', '"version": 2'), "version 2; this nnlite reads version 1"),
        (replaced("nnlite checkpoint", "other"), "'checkpoint.json': this is no checkpoint of"),
        (lambda _: "", "'checkpoint.json': this is no checkpoint of"),
        (lambda _: "null", "'checkpoint.json': this is no checkpoint of"),
        (lambda text: text[:-3], "'checkpoint.json': Expecting"),
        (lambda text: text[:55] + "[" * 100_000, "'checkpoint.json': "),
        (replaced('"nnlite.random"', '"other"'), "it lacks 'nnlite.random'"),
        (replaced('"nnlite.generators"', '"other"'), "it lacks 'nnlite.generators'"),
        (replaced('"nnlite.classes"', '"other"'), "it lacks 'nnlite.classes'"),
        (replaced('"model": "Sequential"', '"model": [1]'), r"model: .* the state of \[1\], this"),
        (
            lambda text: re.sub(r'("nnlite.classes": )\{.*?\}', r"\1 3", text),
            "model: the checkpoint has the state of 3, this run has Sequential",
        ),
        (replaced("model/0.weight", "model/9.weight"), "array 'model/9.weight' is missing"),
        (replaced("model/0.bias", "model/0.weight"), "array 'model/0.weight' is missing"),
        (replaced('{"$array": "model/0.weight"}', "1"), "'model/0.weight' belongs to nothing"),
        (replaced('"$array"', '"$object"'), r"'\$object' is unknown"),
        (replaced('"$dict": [[0,', '"$dict": [[[0],'), "a key is neither"),
        (replaced('"$dict": [[0,', '"$dict": [[1,'), "a key occurs twice"),
        (replaced('"0.weight"', '"0.bias"'), "a name occurs twice"),
        (replaced('{"$array": "model/0.weight"}', '{"$array": "model/0.weight", "a": 1}'), "alone"),
        (replaced('"step": 9', '"step": 1' + "0" * 5000), "digits"),
        (replaced('"step": 9', '"step": 9.5'), "optimizer: .*step must be a whole number"),
        (replaced('"step": 9', '"step": -1'), "optimizer: .*step must be at least 0"),
        (replaced('"lr": ', '"lr": -'), "optimizer: .*lr must be at least 0"),
        (replaced('"eps": 1e-08', '"eps": NaN'), "optimizer: .*eps must be finite"),
        (replaced('"count": 9', '"count": 10000'), "schedule: OneCycleLR: the cycle has total_st"),
        (replaced('"batches": 1', '"batches": 9'), "loader: .*9 batches into an epoch of 8"),
        (replaced('"PCG64"', '"PCG65"'), "noise: expected the state of a PCG64 generator"),
        (replaced('"PCG64"', '["PCG64"]'), "noise: expected the state of a PCG64 generator"),
        (replaced('"has_uint32"', '"has"'), "noise: this is no state of a PCG64 generator"),
    ],
)
def test_a_text_that_does_not_fit_is_an_error_and_nothing_is_loaded(
    saved: Path, change: Callable[[str], str], message: str
) -> None:
    rewritten(saved, change)
    parts = resumable.parts()
    before = states(parts)
    with pytest.raises(ValueError, match=rf"run\.npz: .*{message}"):
        nn.load_checkpoint(saved, **parts)
    assert_same(states(parts), before)


@pytest.mark.parametrize(
    ("kind", "place"), [(np.random.MT19937, '"pos": '), (np.random.Philox, '"buffer_pos": ')]
)
@pytest.mark.parametrize("value", ["-1", "1000000"])
def test_a_generator_is_not_sent_to_a_place_outside_of_its_buffer(
    path: Path, kind: Any, place: str, value: str
) -> None:
    rng = np.random.Generator(kind(1))
    nn.save_checkpoint(path, model=nn.ReLU(), rng=rng)
    rewritten(path, lambda text: replaced(place, f'{place}{value}, "was": ')(text))
    expected = copy.deepcopy(rng).random(5)
    # NumPy 2.5 refuses such a state itself, with a message of its own.
    with pytest.raises(ValueError, match=rf"rng: this is no state of a {kind.__name__} generator"):
        nn.load_checkpoint(path, model=nn.ReLU(), rng=rng)
    assert_array_equal(rng.random(5), expected)


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0]])
def test_classes_that_are_an_array_are_an_error_that_names_the_file(
    path: Path, values: list[float]
) -> None:
    nn.save_checkpoint(path, model=nn.Linear(2, 2))
    with zipfile.ZipFile(path, "a") as archive, archive.open("c.npy", "w") as stream:
        np.lib.format.write_array(stream, np.array(values))
    for old, new in [
        (r'("nnlite.classes": )\{.*?\}', r'\1{"$array": "c"}'),
        (r'("nnlite.classes": )\{.*?\}\}', r'\1{"model": {"$array": "c"}}}'),
    ]:
        rewritten(path, lambda text, old=old, new=new: re.sub(old, new, text))
        with pytest.raises(ValueError, match=r"run\.npz: model: the checkpoint has the state of"):
            nn.load_checkpoint(path, model=nn.Linear(2, 2))


def test_a_checkpoint_of_an_earlier_version_is_read() -> None:
    model = nn.Sequential(
        nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5, rng=5), nn.Linear(3, 2)
    )
    optimizer = nn.Adam(model.parameters(), lr=0.7)
    schedule = nn.StepLR(optimizer, step_size=2)
    loader = nn.DataLoader(np.zeros((8, 2)), np.zeros(8), batch_size=4, shuffle=True)
    nn.load_checkpoint(
        Path(__file__).parent / "data" / "checkpoint.npz",
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        loader=loader,
    )
    # As printed by the version that wrote the file, after three epochs of two batches.
    state = model.state_dict()
    assert_allclose(state["0.bias"], [-0.0331375, 0.56505597, 0.18401061], rtol=1e-6)
    assert_allclose(state["1.running_var"], [0.53357315, 0.61703, 0.6253532], rtol=1e-6)
    assert state["1.num_batches_tracked"] == 6
    assert loader.epoch == 3
    assert_allclose(optimizer.param_groups[0]["lr"], 0.01, rtol=1e-12)
    # The package's generator is at the same place too.
    assert generator().random() == 0.17565562060255901


def test_a_state_dict_is_no_checkpoint(path: Path) -> None:
    nn.save(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"run\.npz: .*no checkpoint; read it with load_state"):
        nn.load_checkpoint(path, model=nn.Linear(2, 2))


@pytest.mark.parametrize("content", [b"", b"\x80\4.", b"PK\3\4", b"12345678{}"])
def test_a_file_of_another_kind_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.npz: (expected a checkpoint|damaged)"):
        nn.load_checkpoint(path, model=nn.ReLU())


def test_a_compressed_text_is_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    saved.write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match="entry 'checkpoint.json': it is compressed"):
        nn.load_checkpoint(saved, **resumable.parts())


def test_a_second_text_is_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("checkpoint.json", "{}")
    with pytest.raises(ValueError, match="entry 'checkpoint.json': the name occurs twice"):
        nn.load_checkpoint(saved, **resumable.parts())


@pytest.mark.parametrize("costly", ["[],", "{},", '{"a":0},', "1.5,", '"\\u0800",'])
def test_a_text_takes_memory_in_proportion_to_its_size(saved: Path, costly: str) -> None:
    size = 300_000
    junk = f"[{costly * (size // len(costly))}0]"
    rewritten(saved, replaced('"parts": {', f'"parts": {{"junk": {junk}, '))
    parts = resumable.parts()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="has 'junk', which this run has not"):
            nn.load_checkpoint(saved, **parts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * saved.stat().st_size


def test_the_text_is_json_that_others_can_read(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        head = json.loads(archive.read("checkpoint.json"))
    assert head["version"] == 1
    assert head["parts"]["schedule"]["count"] == 9
    with np.load(saved, allow_pickle=False) as file:
        assert file["model/0.weight"].shape == (16, 6)


def test_unpacking_takes_each_array_once() -> None:
    text, arrays = state_tree.pack({"a": np.ones(2), "b": [np.zeros(3)]}, lambda name: True)
    assert list(arrays) == ["a", "b/0"]
    assert_same(state_tree.unpack(text, arrays), {"a": np.ones(2), "b": [np.zeros(3)]})
