"""Making the source native: Numba's compiler, and its cache on disk.

The source of each model is a file of the cache folder, named by its content. Numba keeps the
machine code beside it and finds it again in the next process. Several processes may fill the
folder at once: files appear under their names only when they are complete.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import glob
import hashlib
import importlib.machinery
import importlib.resources
import importlib.util
import inspect
import itertools
import os
import signal
import stat
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import numpy as np

from .routines import functions
from .routines.table import AXES, ROUTINES

Function = Callable[..., Any]

# Sums may be reordered, so that they become vector instructions, and products contracted; NaN
# and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz"}

# The modules whose functions a source may call.
_PLACES = tuple(dict.fromkeys(ROUTINES.values()))

# The texts of the modules that machine code depends on; this one gives routines their symbols. They
# are read on import: later, the files may be those of another version.
_ROUTINES = f"{__package__}.routines"
_TEXTS = {
    name: importlib.resources.files(package).joinpath(f"{name}.py").read_text("utf-8")
    for package, names in (
        (__package__, ("native", "lowering")),
        (_ROUTINES, ("table", "functions", "tiles", *_PLACES)),
    )
    for name in names
}

# Names of the files in the cache folder begin with `_PREFIX`. Those of files that are still being
# written also have `_TEMPORARY`; from the age of `_STALE` seconds on they count as abandoned.
_PREFIX, _TEMPORARY, _STALE = "nnlite_", ".tmp", 3600

# Parameters of glibc's mallopt: the freed memory that is kept, and the largest array within it.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

_warned = False


def cache_folder() -> str:
    """Return the folder of compiled models: ``$NNLITE_CACHE_DIR``, or one of the user's caches."""
    named = os.environ.get("NNLITE_CACHE_DIR")
    if named:
        return named
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", os.path.expanduser("~"))
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "nnlite")


def _plain(source: str, name: str = "compiled") -> types.ModuleType:
    """Return the source as a module of plain Python functions."""
    module = types.ModuleType(name)
    exec(compile(source, f"<nnlite {name}>", "exec"), vars(module))
    return module


class Plain:
    """The functions of a source as plain Python, by their names."""

    def __init__(self, source: str) -> None:
        self._module = _plain(source)

    def __getitem__(self, name: str) -> Function:
        return np.errstate(all="ignore")(getattr(self._module, name))  # as machine code does

    def is_compiled(self, name: str) -> bool:
        """Whether a call runs machine code alone, which no signal interrupts: never."""
        return False


class Native(dict[str, Function]):
    """The functions of a source by their names, compiled by Numba on their first call.

    All calls of a function take arguments of the same types as the first one. Numba checks that,
    unless the caller does and sets `checks` to False: another type is then undefined behaviour.

    Raises
    ------
    ImportError
        If Numba is not installed.
    """

    def __init__(self, source: str, checks: bool = True) -> None:
        _numba()  # better now than in the first call
        self._source = source
        self._checks = checks

    def __missing__(self, name: str) -> Function:
        return functools.partial(self._compile_and_call, name)

    def is_compiled(self, name: str) -> bool:
        """Whether a call runs machine code alone, which no signal interrupts."""
        return name in self

    def _compile_and_call(self, name: str, *arguments: Any) -> Any:
        types = tuple(map(_numba().typeof, arguments))
        dispatcher = _shared(self._source, cache_folder(), name, types)
        (compiled,) = dispatcher.overloads.values()
        function = self[name] = dispatcher if self._checks else compiled.entry_point
        return function(*arguments)


def functions_of(source: str, native: bool, checks: bool = True) -> Native | Plain:
    """Return the functions of a source: see `Native` for `checks`."""
    return Native(source, checks) if native else Plain(source)


def interruption_of(error: BaseException) -> BaseException:
    """Return what a signal handler has raised, such as KeyboardInterrupt; else the error itself.

    A signal that arrives while machine code runs is handled by the next Python code. That is a
    function which Numba calls for each array that it returns, without a look at what it raises;
    the interpreter then raises a SystemError because of it.
    """
    while isinstance(error, SystemError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def is_of_handler(error: BaseException | None) -> bool:
    """Whether a signal handler has raised the error: it says nothing about what it interrupted.

    Everything that is not an Exception counts as raised by one, such as KeyboardInterrupt.
    """
    if isinstance(error, BaseException) and not isinstance(error, Exception):
        return True
    codes = set()
    for handler in filter(callable, map(signal.getsignal, signal.valid_signals())):
        function = getattr(handler, "func", handler)  # of a functools.partial
        codes.add(getattr(function, "__code__", getattr(type(function).__call__, "__code__", None)))
    while error is not None:
        if any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__)):
            return True
        error = error.__cause__ or error.__context__
    return False


@functools.lru_cache(128)
def _shared(source: str, folder: str, name: str, types: tuple[Any, ...]) -> Any:
    """Compile a function, or load it from the folder; equal sources share the machine code."""
    file, failure = _cached_file(source), None
    if file is not None:
        try:
            return _compiled(_module_of(file), name, types, cache=True)
        except Exception as error:  # a damaged, read-only or full folder
            if is_of_handler(error):
                raise
            failure = error
    function = _compiled(_plain(source), name, types, cache=False)
    if failure is not None:
        _warn(failure)
    return function


def _compiled(module: types.ModuleType, name: str, types: tuple[Any, ...], cache: bool) -> Any:
    with _without_collection():
        for routine, place in ROUTINES.items():
            if hasattr(module, routine):
                _link(place, routine, np.dtype(module.real), cache)
        inlined = _numba().extending.register_jitable(error_model="numpy", fastmath=_FAST)
        for part, function in vars(module).items():
            if inspect.isfunction(function) and part[0] == "_":
                inlined(function)
        return _dispatcher(getattr(module, name), types, cache, is_routine=False)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Context in which no garbage is collected.

    Numba makes millions of objects that live until the end of a compilation. Looking through them
    again and again takes a tenth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _dispatcher(function: Function, types: tuple[Any, ...], cache: bool, is_routine: bool) -> Any:
    """Return a function that Numba has compiled, or loaded, for these types alone.

    Machine code that cannot be loaded is deleted, and compiled anew.
    """
    try:
        return _jitted(function, types, cache, is_routine)
    except OSError:
        raise
    except Exception as error:
        if not cache or is_of_handler(error) or not _forget(function):
            raise
    return _jitted(function, types, cache, is_routine)


def _forget(function: Function) -> bool:
    """Delete the machine code in the cache that is of the file of a function, if there is any."""
    folder, file = os.path.split(function.__code__.co_filename)
    stem = glob.escape(os.path.join(folder, "__pycache__", os.path.splitext(file)[0]))
    paths = glob.glob(f"{stem}.*.nb[ci]")
    for path in paths:
        os.unlink(path)
    return bool(paths)


def _jitted(function: Function, types: tuple[Any, ...], cache: bool, is_routine: bool) -> Any:
    jit = _numba().njit(
        cache=cache,
        nogil=True,
        fastmath=_FAST,
        error_model="numpy",
        # Routines are called from machine code alone, and no function is called from C.
        no_cpython_wrapper=is_routine,
        no_cfunc_wrapper=True,
    )
    dispatcher, failure = jit(function), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _numba().core.errors.NumbaPerformanceWarning)
        try:
            dispatcher.compile(types)
        except OSError as error:
            if not dispatcher.overloads or is_of_handler(error):
                raise
            failure = error  # compiled, but not kept: the disk may be full
    if failure is not None:
        _warn(failure)
    dispatcher.disable_compile()
    return dispatcher


# ---- routines ----


@functools.cache
def _link(place: str, name: str, real: np.dtype[Any], cache: bool) -> Any:
    """Compile a routine, and let the linker find it, and those that it calls, by their symbols.

    Return what must be kept for as long as its machine code is called.
    """
    import llvmlite.binding

    function = _functions(place, cache)[name]
    for called in _routines_of(function, vars(_module(place))):
        _link(_place_of(called), called.__name__, real, cache)
    dispatcher = _dispatcher(function, _argument_types(function, real), cache, is_routine=True)
    (compiled,) = dispatcher.overloads.values()
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    llvmlite.binding.add_symbol(_symbol(getattr(_module(place), name), real), address)
    return dispatcher


def _routines_of(function: Function, module: dict[str, Any]) -> Iterator[Function]:
    """Yield the routines that a function calls, itself or where it calls one of its module."""
    for called in map(module.get, function.__code__.co_names):
        if _is_routine(called):
            yield called
        elif inspect.isfunction(called) and called.__module__ == module["__name__"]:
            yield from _routines_of(called, module)


def _symbol(routine: Function, real: np.dtype[Any]) -> str:
    """Return the name for the linker; functions of two modules may have the same name."""
    return f"nnlite_{_place_of(routine)}_{routine.__name__}_{real.name}"


def _is_routine(value: object) -> TypeGuard[types.FunctionType]:
    """Whether a global of a module of routines is one of them, or of those of another module."""
    return (
        inspect.isfunction(value)
        and not value.__name__.startswith("_")
        and _place_of(value) in _PLACES
    )


def _place_of(routine: Function) -> str:
    return routine.__module__.rpartition(".")[2]


def _argument_types(function: Function, real: np.dtype[Any]) -> tuple[Any, ...]:
    """Return the types that the annotations of a routine stand for."""
    numba = _numba()
    element = numba.from_dtype(real)
    by_name = {name: numba.types.Array(element, axes, "C") for name, axes in AXES.items()}
    by_name |= {"Rows": numba.types.Array(element, 2, "A")}
    by_name |= {
        "bool": numba.boolean,
        "int": numba.intp,
        "Real": element,
        "Places": numba.int32[:, ::1],
    }
    by_name |= {"Doubles": numba.float64[::1], "Numbers": numba.int32[::1]}
    by_name["float"] = numba.float64
    annotations = inspect.get_annotations(function)
    return tuple(by_name[kind] for name, kind in annotations.items() if name != "return")


@functools.cache
def _functions(place: str, cache: bool) -> dict[str, Function]:
    """Return the functions of a module of this folder, as Numba is to compile them.

    They are of a copy of its file, so that the machine code is cached beside it. Those with an
    underscore are compiled into their callers, and the others are called by their symbols.
    """
    module, source = _module(place), _TEXTS[place]
    path = _cached_file(source) if cache else None
    copy = _module_of(path) if path is not None else _plain(source, place)
    functions: dict[str, Function] = {
        name: f
        for name, f in vars(copy).items()
        if inspect.isfunction(f) and f.__module__ == copy.__name__
    }
    inlined = _numba().extending.register_jitable(error_model="numpy")
    for name, function in functions.items():
        setattr(copy, name, inlined(function) if name[0] == "_" else getattr(module, name))
    return functions


def _module(place: str) -> types.ModuleType:
    return importlib.import_module(f".{place}", _ROUTINES)


def _let_numba_call(routine: Function) -> None:
    """Let Numba compile a call of the routine as a call of its symbol."""
    import numba
    from numba.core import funcdesc

    types: Any = numba.types
    extending: Any = numba.extending
    described: Any = funcdesc.ExternalFunctionDescriptor

    def real_of(arguments: Any) -> np.dtype[Any]:
        elements = [getattr(argument, "dtype", None) for argument in arguments]
        return np.dtype(next(e.name for e in elements if isinstance(e, types.Float)))

    def typed(*arguments: Any) -> Any:
        return types.none(*_argument_types(routine, real_of(arguments)))

    def lowered(context: Any, builder: Any, called: Any, arguments: Any) -> Any:
        symbol = _symbol(routine, real_of(called.args))
        return context.call_internal(
            builder, described(symbol, types.none, called.args), called, arguments
        )

    vars(typed)["pysig"] = inspect.signature(routine)
    extending.type_callable(routine)(lambda context: typed)
    extending.lower_builtin(routine, types.VarArg(types.Any))(lowered)


def _numba() -> Any:
    """Return Numba, which knows the functions that the source calls."""
    try:
        import numba
    except BaseException as error:
        # Of a package whose import was interrupted, some modules would be missing next time.
        for name in [name for name in sys.modules if name.partition(".")[0] == "numba"]:
            del sys.modules[name]
        if not isinstance(error, ModuleNotFoundError) or error.name != "numba":
            raise
        raise ImportError("compile: Numba is not installed; use: pip install numba") from error
    _register()
    return numba


_registered = False


def _register() -> None:
    global _registered
    if _registered:
        return
    from numba.extending import register_jitable

    from . import lowering

    for name in functions.HELPERS:
        # Not with reordered sums: the polynomials depend on their order.
        register_jitable(error_model="numpy", forceinline=True)(getattr(functions, name))
    for place in _PLACES:
        for routine in vars(_module(place)).values():
            if _is_routine(routine) and _place_of(routine) == place:
                _let_numba_call(routine)
    lowering.register()
    if importlib.util.find_spec("scipy") is not None:
        _show_blas()
    _keep_freed_memory()
    _registered = True


def _cached_file(source: str) -> str | None:
    """Return the path of the source in the cache folder, or None if it cannot be there."""
    folder = cache_folder()
    try:
        digest = hashlib.sha256("".join([source, *_TEXTS.values()]).encode()).hexdigest()
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _check_owner(folder)
        path = os.path.join(folder, f"{_PREFIX}{digest[:24]}.py")
        # Anything may stand in a damaged file.
        with (
            contextlib.suppress(FileNotFoundError),
            open(path, encoding="utf-8", errors="replace") as file,
        ):
            if file.read() == source:
                return path
        _sweep(folder)
        handle, temporary = tempfile.mkstemp(_TEMPORARY, _PREFIX, folder)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(source)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # it has its name already
                os.unlink(temporary)
            raise
        return path
    except OSError as error:
        if is_of_handler(error):
            raise
        _warn(error)
        return None


def _sweep(folder: str) -> None:
    """Delete the temporary files of processes that were killed, of Numba's own too."""
    folders = glob.escape(folder), os.path.join(glob.escape(folder), "__pycache__")
    names = [os.path.join(each, f"{_PREFIX}*{_TEMPORARY}*") for each in folders]
    for path in itertools.chain(*map(glob.iglob, names)):
        with contextlib.suppress(OSError):  # another process may sweep too
            if time.time() - os.path.getmtime(path) > _STALE:
                os.unlink(path)


def _check_owner(folder: str) -> None:
    """Raise a PermissionError if another user could put code into the folder."""
    if not hasattr(os, "getuid"):
        return
    status = os.stat(folder)
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"the folder {folder} can be written by other users")


def _module_of(path: str) -> types.ModuleType:
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Numba looks the module of a function up
    spec.loader.exec_module(module)
    return module


def _warn(error: Exception) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"compile: compiled models cannot be kept in {cache_folder()}: {error}; each process "
            f"compiles anew (NNLITE_CACHE_DIR names another folder)",
            UserWarning,
            stacklevel=2,
        )


def _show_blas() -> None:
    """Let Numba find the BLAS of SciPy, if it is installed, without its package.

    Numba imports `scipy.linalg` to find out whether there is a BLAS, which takes as long as the
    import of Numba. nnlite needs none. The first function that does imports the package.
    """
    import scipy

    blas = "scipy.linalg.cython_blas"
    folders = [os.path.join(folder, "linalg") for folder in scipy.__path__]
    spec = importlib.machinery.PathFinder.find_spec(blas, folders)
    if blas in sys.modules or spec is None or spec.loader is None:
        return
    module = sys.modules[blas] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        importlib.import_module("numba.np.arraymath")
    finally:
        sys.modules.pop(blas, None)  # an import is to find its package first


def _keep_freed_memory() -> None:
    """Let the C library keep the memory of a step's arrays for the next step, if it is glibc.

    Else it returns the memory to the system, and the page faults of new memory take longer than
    the arithmetic of many layers.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, 1 << 30)
        mallopt(_MMAP_THRESHOLD, 1 << 25)
