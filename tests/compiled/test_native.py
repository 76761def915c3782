"""Native code and its cache folder."""

import _thread
import contextlib
import functools
import gc
import inspect
import os
import signal
import stat
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiled import native
from nnlite.compiled.forms import form

SOURCE = '''"""A source."""

import numpy as np

real = np.float32


def twice(n, x):
    """Return 2 x."""
    return x + x
'''
X = np.arange(3, dtype=np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NNLITE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(native, "_warned", False)
    return tmp_path / "cache"


def call():
    native._shared.cache_clear()  # as in a new process
    return native.Native(SOURCE)["twice"](3, X).tolist()


def forget_routines():
    """Let routines be compiled, or loaded, again in this process."""
    native._functions.cache_clear()
    native._link.cache_clear()


def test_source_and_machine_code_are_kept(folder):
    assert call() == [0, 2, 4]
    assert [path.read_text() for path in folder.glob("nnlite_*.py")] == [SOURCE]
    kept = sorted(folder.rglob("*.nbc"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    assert call() == [0, 2, 4]
    assert kept[0].stat().st_mtime_ns == before
    assert not list(folder.glob("*.tmp"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("ending", ["*.nbc", "*.nbi", "*.py"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\x00 no text"])
def test_a_damaged_file_is_replaced(folder, ending, content):
    call()
    for path in folder.rglob(ending):
        path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call() == [0, 2, 4]
    assert all(path.read_bytes() != content for path in folder.rglob(ending))
    assert len(list(folder.rglob("*.nbc"))) == 1


def test_a_damaged_file_of_a_routine_is_replaced(folder):
    def compiled():
        forget_routines()
        native._shared.cache_clear()
        return nn.compile(nn.Linear(3, 2, rng=0))(X[None]).tolist()

    expected = compiled()
    for path in folder.rglob("*.dot_rows-*.nb?"):
        path.write_bytes(b"nonsense")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled() == expected
    assert all(path.read_bytes() != b"nonsense" for path in folder.rglob("*.nb?"))


def test_machine_code_of_another_version_is_replaced(folder, monkeypatch):
    numba = pytest.importorskip("numba")
    with monkeypatch.context() as older:
        older.setattr(numba, "__version__", "0.1")
        call()
    (index,) = folder.rglob("*.nbi")
    old = index.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call() == [0, 2, 4]
    assert index.read_bytes() != old


def test_arrays_of_another_order_or_dtype():
    nn.seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3)).astype(np.float64).eval()
    compiled, x = nn.compile(model), np.random.default_rng(0).normal(size=(4, 2, 5))
    assert np.allclose(compiled(x), model(x))
    model[0].weight.data = np.asfortranarray(2 * model[0].weight.data)
    for mean in (np.arange(6.0)[::2], np.arange(3, dtype=np.float32)):
        model[1].running_mean = mean
        assert np.allclose(compiled(x), model(x))
        assert np.allclose(nn.compile(model)(x), model(x))


def test_a_buffer_of_another_number_of_axes_is_no_array_of_the_same_machine_code():
    model = nn.BatchNorm1d(3).eval()
    compiled, x = nn.compile(model), X[None]
    compiled(x)
    model.running_mean = np.zeros((1, 3), np.float32)
    for call in (model, compiled):
        with pytest.raises(IndexError):
            call(x)


def test_a_buffer_of_another_size_is_an_error():
    """Machine code has the sizes in it, and would read behind the end."""
    model = nn.BatchNorm1d(3).eval()
    compiled, x = nn.compile(model), X[None]
    compiled(x)
    model.running_mean = np.zeros(2, np.float32)
    for call in (model, compiled):
        with pytest.raises(ValueError, match="could not be broadcast"):
            call(x)


@pytest.mark.parametrize("x", [X, np.arange(6), np.arange(12.0).reshape(3, 4)], ids=str)
def test_a_view_is_the_same_memory_in_another_shape(x):
    source = """
from nnlite.compiled.routines.functions import view


def views(n, x):
    return view(x, n), view(x, 3, n // 3), view(x, n // 3, 1, 3)
"""
    for functions in (native.Native(source), native.Plain(source)):
        for view in functions["views"](x.size, x):
            assert view.__array_interface__ == x.reshape(view.shape).__array_interface__
            assert view.strides == x.reshape(view.shape).strides
    numba = pytest.importorskip("numba")
    with pytest.raises(numba.core.errors.TypingError):
        native.Native(source)["views"](x.size, x[::2])


@pytest.mark.parametrize("x", [X, np.arange(6)], ids=str)
def test_a_part_is_the_same_memory_from_a_place_on(x):
    source = """
from nnlite.compiled.routines.functions import part


def parts(n, x):
    return part(x, 0, n), part(x, 1, 2), part(x, n - 3, 3, 1), part(x, n, 0)
"""
    expected = x, x[1:3], x[-3:].reshape(3, 1), x[:0]
    for functions in (native.Native(source), native.Plain(source)):
        for part, array in zip(functions["parts"](x.size, x), expected, strict=True):
            assert np.array_equal(part, array)
            assert np.shares_memory(part, x) == bool(part.size)
            assert part.strides == array.strides
    numba = pytest.importorskip("numba")
    with pytest.raises(numba.core.errors.TypingError):
        native.Native(source)["parts"](x.size, x[::2])


def test_equal_sources_share_machine_code_for_equal_types():
    calls = native.Native(SOURCE), native.Native(SOURCE)
    for functions in calls:
        assert functions["twice"](3, X).tolist() == [0, 2, 4]
    assert calls[0]["twice"] is calls[1]["twice"]
    assert native.Native(SOURCE)["twice"](3, X.astype(int)).dtype == int


def test_functions_that_several_models_call_are_compiled_once(folder):
    pytest.importorskip("numba")
    forget_routines()
    x = np.random.default_rng(0).normal(size=(2, 16, 5, 5)).astype(np.float32)
    for filters in (16, 17):
        model = nn.Conv2d(16, filters, 3, rng=0)
        compiled = nn.compile(model)
        assert "winograd(" in (compiled(x), compiled.source)[1]
        np.testing.assert_allclose(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    assert len(list(folder.rglob("*.winograd-*.nbc"))) == 1
    forget_routines()


@pytest.mark.parametrize("source", [SOURCE, SOURCE.replace("x + x", "x.unknown")])
def test_garbage_is_not_collected_while_machine_code_is_made_but_again_afterwards(folder, source):
    numba = pytest.importorskip("numba")
    seen = []
    listener = numba.core.event.RecordingListener()
    listener.on_start = lambda event: seen.append(gc.isenabled())
    with (
        numba.core.event.install_listener("numba:compile", listener),
        contextlib.suppress(numba.core.errors.TypingError),
    ):
        native.Native(source)["twice"](3, X)
    assert seen
    assert not any(seen)
    assert gc.isenabled()


def test_a_folder_that_cannot_be_made_is_said_once_and_worked_around(folder):
    folder.write_text("a file")
    with pytest.warns(UserWarning, match="cannot be kept in"):
        assert call() == [0, 2, 4]


def test_a_full_disk_is_said_once_and_worked_around(folder, monkeypatch):
    def no_space(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native.tempfile, "mkstemp", no_space)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert call() == [0, 2, 4]


def test_a_disk_that_is_full_when_the_machine_code_is_written_is_worked_around(folder, monkeypatch):
    replace = os.replace

    def no_space(source, target):
        if str(target).endswith((".nbi", ".nbc")):
            raise OSError(28, "No space left on device")
        replace(source, target)

    compiled, jitted = [], native._jitted
    monkeypatch.setattr(native, "_jitted", lambda *args: compiled.append(args) or jitted(*args))
    monkeypatch.setattr(os, "replace", no_space)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert call() == [0, 2, 4]
    assert len(compiled) == 1  # once is enough
    assert not list(folder.rglob("*.nb?"))
    monkeypatch.undo()
    monkeypatch.setenv("NNLITE_CACHE_DIR", str(folder))
    assert call() == [0, 2, 4]
    assert len(list(folder.rglob("*.nbc"))) == 1


def test_a_read_only_folder_is_said_once_and_worked_around(folder, monkeypatch):
    def read_only(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(native.tempfile, "mkstemp", read_only)
    with pytest.warns(UserWarning, match=r"cannot be kept in .*Read-only.*NNLITE_CACHE_DIR names"):
        assert call() == [0, 2, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call() == [0, 2, 4]


def test_a_folder_that_cannot_be_made_is_worked_around(folder):
    folder.write_text("a file")  # root may write to any folder, so permissions prove nothing
    with pytest.warns(UserWarning, match="File exists"):
        assert call() == [0, 2, 4]


class TimeIsUpError(OSError):
    """What a signal handler of a user's raises; TimeoutError is an OSError too."""


def out_of_time(*arguments):
    raise TimeIsUpError


class Clock:
    def __call__(self, *arguments):
        out_of_time()


@pytest.mark.parametrize(
    "handler",
    [out_of_time, Clock(), functools.partial(out_of_time, 1)],
    ids=["f", "object", "p"],
)
@pytest.mark.parametrize(
    ("module", "name"),
    [(native, "_jitted"), (native, "_module_of"), (native.tempfile, "mkstemp")],
    ids=["while compiling", "while loading", "while writing"],
)
def test_an_error_of_a_signal_handler_is_not_taken_for_one_of_the_cache(
    folder, monkeypatch, handler, module, name
):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with monkeypatch.context() as patched, warnings.catch_warnings():
            warnings.simplefilter("error")
            patched.setattr(module, name, lambda *_, **__: signal.raise_signal(signal.SIGINT))
            with pytest.raises(TimeIsUpError):
                call()
    finally:
        signal.signal(signal.SIGINT, before)
    assert call() == [0, 2, 4]
    assert len(list(folder.rglob("*.nbc"))) == 1


def test_an_interruption_behind_the_renaming_of_a_source_is_raised_as_it_is(folder, monkeypatch):
    replace = os.replace

    def interrupted(*paths):
        replace(*paths)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call()
    assert [path.read_text() for path in folder.glob("*")] == [SOURCE]
    assert call() == [0, 2, 4]


def test_what_killed_processes_have_left_is_deleted_after_an_hour(folder):
    old = folder / "nnlite_a.tmp", folder / "__pycache__" / "nnlite_0.nbi.tmp.0123456789abcdef"
    old[1].parent.mkdir(parents=True)
    folder.chmod(0o700)
    new = folder / "nnlite_b.tmp"
    of_user = folder / "page.tmpl", folder / "notes" / "nnlite_a.tmp"
    of_user[1].parent.mkdir()
    for path in (*old, new, *of_user):
        path.write_text("half")
    for path in (*old, *of_user):
        os.utime(path, (0, 0))
    call()
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in (new, *of_user))


def test_a_source_is_named_by_the_modules_that_were_imported(folder, monkeypatch):
    """Their files may be those of another version by now."""
    call()
    monkeypatch.setattr(inspect, "getsource", lambda module: "another version")
    call()
    assert len(list(folder.glob("nnlite_*.py"))) == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="of POSIX")
def test_a_folder_that_others_can_write_is_not_used(folder):
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.warns(UserWarning, match="can be written by other users"):
        assert call() == [0, 2, 4]
    assert not list(folder.iterdir())


def test_numba_is_imported_by_the_first_compile_alone():
    script = (
        "import sys, nnlite as nn; nn.Linear(2, 2); assert 'numba' not in sys.modules; "
        "nn.compile(nn.Linear(2, 2), native=False); assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_numba_can_be_imported_after_an_import_of_it_was_interrupted():
    pytest.importorskip("numba")
    script = """
import sys
import numpy as np
import nnlite as nn


class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "numba.core.typing":
            sys.meta_path.remove(self)
            raise KeyboardInterrupt


compiled, x = nn.compile(nn.Linear(2, 1, rng=0)), np.ones((1, 2), np.float32)
sys.meta_path.insert(0, Interrupting())
try:
    compiled(x)
except KeyboardInterrupt:
    pass
else:
    sys.exit("was not interrupted")
compiled(x)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("is_imported_before", [False, True])
def test_scipy_linalg_is_imported_by_the_first_product_of_blas(is_imported_before):
    """Its library is the same before and after it."""
    pytest.importorskip("scipy")
    script = f'''
import sys
import numpy as np
if {is_imported_before}:
    import scipy.linalg.cython_blas
from nnlite.compiled.native import functions_of
source = """
import numpy as np
def product(a, b, out, is_wanted):
    if is_wanted:
        np.dot(a, b, out)
"""
a, b, out = np.arange(6.0).reshape(2, 3), np.ones((3, 2)), np.empty((2, 2))
if not {is_imported_before}:
    functions_of("def one():\\n    return 1", True)["one"]()
    assert "scipy.linalg" not in sys.modules
product = functions_of(source, True)["product"]
product(a, b, out, True)
assert out.tolist() == [[3, 3], [12, 12]]
import scipy.linalg.cython_blas
np.testing.assert_allclose(scipy.linalg.inv([[2.0]]), 0.5)
assert "sgemm" in scipy.linalg.cython_blas.__pyx_capi__
'''
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_batch_size_is_free():
    model = nn.compile(nn.Sequential(nn.Linear(3, 2), nn.Softmax()))
    model(np.zeros((4, 3), np.float32))
    source = model.source
    for size in (1, 2, 100):
        assert model(np.zeros((size, 3), np.float32)).shape == (size, 2)
        assert model.source is source


# Fills the cache folder with the source of a model, unless it dies at the K-th renaming of a file.
FILLING = """
import os, signal, sys
import numpy as np, nnlite as nn

renamings, replace = 0, os.replace

def replace_or_die(*arguments, **options):
    global renamings
    renamings += 1
    if renamings == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*arguments, **options)

os.replace = replace_or_die
print(nn.compile(nn.Square())(np.arange(4, dtype=np.float32)[None]).tolist())
"""
FILLED = "[[0.0, 1.0, 4.0, 9.0]]\n"


def start_filling(last_renaming=0):
    command = [sys.executable, "-W", "error::UserWarning", "-c", FILLING, str(last_renaming)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_several_processes_fill_the_folder_at_once(folder):
    running = [start_filling() for _ in range(3)]
    assert [process.communicate()[0] for process in running] == [FILLED] * 3
    assert len(list(folder.glob("nnlite_*.py"))) == 1
    assert not list(folder.glob("*.tmp"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="of POSIX")
@pytest.mark.parametrize("renaming", [1, 2, 3])
def test_a_kill_while_the_folder_is_filled_leaves_nothing_half_written(folder, renaming):
    killed = start_filling(renaming)
    assert killed.communicate()[0] == ""
    assert killed.returncode == -signal.SIGKILL
    process = start_filling()
    assert process.communicate()[0] == FILLED
    assert process.returncode == 0


class Double(nn.Layer):
    """A layer of a user's own."""

    def forward(self, x):
        self.cache()
        return 2 * x

    def backward(self, grad, input_grad=True):
        return 2 * grad


@form(Double)
def double(layer, code, x):
    y = code.new(x.shape)
    code(f"""
        for i in range({x.size}):
            {y}[i] = real(2) * {x}[i]
    """)

    def backward(dy):
        with code.gradient(x) as dx:
            code(f"""
                for i in range({x.size}):
                    {dx}[i] = real(2) * {dy}[i]
            """)

    return y, backward


def test_a_form_of_a_users_own_becomes_machine_code():
    model = nn.compile(nn.Sequential(Double(), Double()))
    assert model(X[None]).tolist() == [[0, 4, 8]]
    assert model.backward(np.ones((1, 3), np.float32)).tolist() == [[4, 4, 4]]


def test_functions_of_two_modules_have_symbols_of_their_own():
    modules = map(native._module, native._PLACES)
    routines = {
        function
        for module in modules
        for _, function in inspect.getmembers(module, inspect.isfunction)
    }
    symbols = {native._symbol(routine, np.dtype(np.float32)) for routine in routines}
    assert len(symbols) == len(routines)


@pytest.mark.parametrize("which", ["forward", "predict", "gradients"])
def test_an_interruption_of_machine_code_is_raised_as_it_is(which):
    """Numba calls Python code while it returns arrays, and the signal is handled there."""
    model = nn.Sequential(nn.Linear(100, 500), nn.Tanh(), nn.Linear(500, 100))
    x = np.zeros((2000, 100), np.float32)
    compiled = nn.compile(model)
    gradients = nn.compile(model, nn.MeanSquaredError())
    calls = {
        "forward": lambda: compiled(x),
        "predict": nn.no_grad()(lambda: compiled(x)),
        "gradients": lambda: gradients(x, x),
    }
    call = calls[which]
    call()  # compiles

    def interrupt(number, frame):
        raise InterruptedError

    def call_until_interrupted():
        threading.Timer(0.01, _thread.interrupt_main).start()
        while True:
            call()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        for _ in range(5):
            with pytest.raises(InterruptedError):
                call_until_interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
