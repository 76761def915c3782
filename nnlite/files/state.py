"""Files of state dicts: ``.npz`` and ``.safetensors``, replaced in one step.

The format of a file is recognised by its content. The formats themselves are in ``npz`` and
``safetensors_files``, which are imported when the first file is written or read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..engine.arrays import Array
from ..layer import Layer
from .reading import as_path, reading

# The text entries of a checkpoint and of a model, and the prefix of the names of a model's arrays.
CHECKPOINT = "checkpoint.json"
MODEL_TEXT = "model.json"
MODEL = "model/"


def save(model_or_state: Layer | Mapping[str, ArrayLike], path: str | os.PathLike[str]) -> None:
    """Write the state dict of a model, or any state dict, to a file.

    The file at `path` is replaced in one step when the new one is complete and on the disk. After
    a crash there is the old file or the new one, never a part.

    Parameters
    ----------
    model_or_state : Layer, or mapping of str to array_like
        A model, whose `Layer.state_dict` is saved, or a state dict: arrays of numbers by name.
    path : str or path-like
        The file. Its name ends in ``.npz``, or in ``.safetensors`` for a file that PyTorch and
        others can read.

    Raises
    ------
    ValueError
        If the name of the file has another ending, or if an entry has an empty name or one that
        the format does not allow.
    TypeError
        If `model_or_state` is neither a model nor a state dict, or if the format does not have the
        dtype of an entry.
    ImportError
        If the package that ``.safetensors`` needs is missing: ``pip install safetensors``.
    OSError
        If the file cannot be written: the old file is read-only, or is a pipe, socket or device,
        or the disk is full. The old file is unchanged.

    See Also
    --------
    load_state : Reads the file.
    save_checkpoint : Saves a whole run.

    Notes
    -----
    The format ``.npz`` is that of `numpy.savez`: an uncompressed ZIP archive with a ``.npy`` file
    for each entry. `numpy.load` reads it too. The same state gives the same bytes. Files with many
    entries or of gigabytes are ZIP64.

    The new file is written to the same folder under a name that begins with ``.nnlite-``, and then
    renamed. A process that is killed while it writes leaves such a file behind; the next `save` to
    the folder deletes it, except on Windows.

    References
    ----------
    R. Kern, "A simple file format for NumPy arrays", NumPy Enhancement Proposal 1, 2007.
    Hugging Face, "Safetensors: a simple, safe way to store and distribute tensors", 2022.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import nnlite as nn
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nn.save(model, Path(folder, "model.npz"))
    ...     state = nn.load_state(Path(folder, "model.npz"))
    >>> list(state)
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> other.load_state_dict(state)
    IncompatibleKeys(missing_keys=[], unexpected_keys=[])
    >>> bool((other[0].weight.data == model[0].weight.data).all())
    True
    """
    if isinstance(path, (Layer, Mapping)):
        raise TypeError("save: expected the model first and the path after it")
    path = as_path(path, "save")
    if isinstance(model_or_state, Layer):
        state: Mapping[str, ArrayLike] = model_or_state.state_dict()
    elif isinstance(model_or_state, Mapping):
        state = model_or_state
    else:
        raise TypeError(
            f"save: expected a model or a state dict, got {type(model_or_state).__name__}"
        )
    from . import atomic as replacing
    from . import npz

    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".npz", ".safetensors"):
        raise ValueError(
            f"save: the name of the file has to end in .npz or .safetensors, got {path!r}"
        )
    arrays = {name: checked_array(value, repr(name)) for name, value in state.items()}
    if suffix == ".npz":
        _check_names(arrays, npz.fits)
        with replacing.replacing(path) as file:
            npz.write(file, arrays)
    else:
        from . import safetensors_files

        _check_names(arrays, safetensors_files.fits)
        with replacing.replacing(path) as file:
            safetensors_files.write(file, arrays)


def load_state(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read the arrays in a file, which need not be trusted.

    Parameters
    ----------
    path : str or path-like
        A file of `save`, of `numpy.savez` or `numpy.savez_compressed` without objects, of
        ``safetensors.torch.save_file``, or of `save_checkpoint` or `save_model`, from which the
        state of the model is read. The format is recognised by the content, not by the name.

    Returns
    -------
    dict of str to ndarray
        The entries in the order of the file, with their names, shapes and dtypes, for
        `Layer.load_state_dict`. The arrays are writeable. Arrays of bfloat16, which NumPy does not
        have, are converted to float32.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, altered or of another kind, if it has objects or a name twice, or
        if its sizes contradict each other. The message names the file and the entry.
    OSError
        If the file cannot be read.
    ImportError
        If the package that ``.safetensors`` needs is missing.

    See Also
    --------
    save : Writes the file.

    Notes
    -----
    No code in the file is run: pickled objects are refused, and headers are not evaluated. The
    memory taken is about the size of the file, or twice that for ``.safetensors``, up to three
    times for bfloat16. For a compressed ``.npz`` file it is at most 100 times the size plus 1 MiB.

    A changed byte in an array of a ``.npz`` file, or in its name, is found by the checksums of the
    format. They protect against accidents, not against attackers, who can change them too. The
    format ``.safetensors`` has none, and only a changed header is found.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import nnlite as nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "state.npz")
    ...     np.savez(path, weight=np.eye(2), steps=np.array(7))
    ...     nn.load_state(path)
    {'weight': array([[1., 0.],
           [0., 1.]]), 'steps': array(7)}
    """
    path = as_path(path, "load_state")
    with reading(path) as file:
        start = file.peek(9)
        if start[:4] in ZIP:
            from . import npz

            arrays, text = npz.read(file, CHECKPOINT, MODEL_TEXT)
            if text is None:
                return arrays
            return {
                name.removeprefix(MODEL): array
                for name, array in arrays.items()
                if name.startswith(MODEL)
            }
        if start[8:9] == b"{":
            from . import safetensors_files

            return safetensors_files.read(file)
        raise ValueError(f"expected a .npz or .safetensors file, {kind(start)}")


# How a .npz file begins: with its first entry, or with its end where there is none.
ZIP = (b"PK\3\4", b"PK\5\6")


def checked_path(path: str | os.PathLike[str], caller: str) -> str:
    """Return `path` as a string, or raise a ValueError if it does not end in ``.npz``."""
    path = as_path(path, caller)
    if os.path.splitext(path)[1].lower() != ".npz":
        raise ValueError(f"{caller}: the name of the file has to end in .npz, got {path!r}")
    return path


def kind(start: bytes) -> str:
    """Describe a file of another kind by its first bytes."""
    if not start:
        return "this one is empty"
    if start.startswith(b"\x93NUMPY"):
        return "this is a .npy file of a single array; write it with numpy.savez and a name"
    if start[0] == 0x80:
        return "this is a file of pickled objects, which are never loaded"
    return f"this one begins with {start[:9]!r}"


def checked_array(value: ArrayLike, what: str) -> Array:
    """Return `value` as an array of numbers, or raise a TypeError."""
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        cure = "; save_checkpoint saves several objects in a file" * isinstance(value, dict)
        raise TypeError(f"save: expected {what} to be an array of numbers, got {array.dtype}{cure}")
    return array


def _check_names(names: Iterable[Any], fits: Callable[[str], bool]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"save: the names of the entries must be str, got {name!r}")
        if not name or not fits(name):
            raise ValueError(f"save: {name[:80]!r} cannot be the name of an entry in a file")
