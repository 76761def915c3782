"""Batches: ``DataLoader`` cuts arrays into the pieces that a training step takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import boolean, check_is_array, integer
from ..engine.arrays import Array
from ..processes import ALONE, Processes
from ..random import (
    RandomState,
    checked_generator_state,
    generator,
    generator_state,
    generators_within,
    load_generator_state,
)


class DataLoader:
    """Iterate over arrays in batches along their first axis.

    Parameters
    ----------
    *arrays : array_like
        One array or several of the same length, such as images and labels.
    batch_size : int, default 1
        Samples in a batch.
    shuffle : bool, default False
        Whether to draw a new order for each epoch.
    drop_last : bool, default False
        Whether to leave out the last batch where it is smaller than the others.
    transform : callable, optional
        Takes the arrays of each batch and returns the batch: with images and labels,
        ``transform(images, labels)`` returns a pair. It may write into its arguments if `shuffle`
        is True, since they are then copies. See the notes for the part of it that belongs to the
        loader's state.
    rng : int, numpy.random.Generator or None
        Source of the orders. An int gives the same orders in every run; the epochs of a run
        differ.
    shard : Processes, optional
        ``nnlite.interop.mpi.shard()``: this process takes its part of every batch of `batch_size`
        samples, and rank 0 draws the orders for all.

    Attributes
    ----------
    epoch : int
        Number of epochs that have ended, at their last batch or before it.
    shard : Processes
        The processes that share the batches; one alone by default.

    Raises
    ------
    ValueError
        If there are no arrays or no samples, if the lengths differ, or if there is no batch
        because of `drop_last`; if the loaders of several processes have different data or options.
    TypeError
        If something is not an array: also sparse matrices, masked arrays with masked elements, and
        a single list of arrays, which would be read as samples.

    Notes
    -----
    Each iteration over the loader is one epoch. Batches of a single array are arrays; of several,
    tuples of arrays. If a batch has fewer samples than there are processes, some of them get an
    empty tuple in its place; `fit` and `evaluate` know what that means. With `shuffle` a batch is a
    copy, otherwise a read-only view of the data.

    `state_dict`, taken within an epoch, has the order of that epoch and the position in it: after
    `load_state_dict` the next iteration begins with the very next batch. An epoch that was left
    with ``break`` has ended.

    The state includes the `numpy.random.Generator` objects that the transform keeps: as its own
    attributes or those of its parts; in lists, tuples and dicts; bound by ``functools.partial``; or
    in the object whose method it is. A generator in a closure, in a default value or in a global
    variable is not found, and its state is not restored. Draw from the package's generator instead,
    which is in every checkpoint, or give the transform a ``state_dict`` and a ``load_state_dict``,
    which then define its state.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> images, labels = np.zeros((10, 4), dtype=np.float32), np.arange(10)
    >>> loader = nn.DataLoader(images, labels, batch_size=4, shuffle=True, rng=0)
    >>> len(loader)
    3
    >>> for x, y in loader:
    ...     print(x.shape, y)
    (4, 4) [4 6 2 7]
    (4, 4) [3 5 9 0]
    (2, 4) [8 1]

    The state taken after the first batch of the next epoch leads to its second batch:

    >>> for x, y in loader:
    ...     state = loader.state_dict()
    ...     break
    >>> loader.load_state_dict(state)
    >>> len(list(loader))
    2
    """

    arrays: tuple[Array, ...]
    batch_size: int
    shuffle: bool
    drop_last: bool
    transform: Callable[..., Any] | None
    epoch: int
    shard: Processes

    def __init__(
        self,
        *arrays: ArrayLike,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        transform: Callable[..., Any] | None = None,
        rng: RandomState = None,
        shard: Processes | None = None,
    ) -> None:
        if not arrays:
            raise ValueError("DataLoader: expected at least one array")
        if len(arrays) == 1 and _is_list_of_arrays(arrays[0]):
            raise TypeError(
                "DataLoader: expected arrays, got a list of arrays; write DataLoader(*arrays), or "
                "numpy.stack(arrays) if each of them is a sample"
            )
        self.arrays = tuple(_as_samples(array) for array in arrays)
        self.batch_size = integer(batch_size, "DataLoader: batch_size")
        self.shuffle = boolean(shuffle, "DataLoader: shuffle")
        self.drop_last = boolean(drop_last, "DataLoader: drop_last")
        if transform is not None and not callable(transform):
            raise TypeError(f"DataLoader: transform must be callable, got {transform!r}")
        self.transform = transform
        # None stays None: the package's generator is looked up when an epoch begins, so that
        # nn.seed() also affects loaders that were made before it.
        self._rng = None if rng is None else generator(rng)
        self.epoch = 0
        self.shard = ALONE if shard is None else shard
        self._running: _Epoch | None = None  # the epoch that was begun last, until it ends
        self._next: _Epoch | None = None  # an epoch that was loaded, until it is continued
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) > 1:
            shapes = " and ".join(str(array.shape) for array in self.arrays)
            raise ValueError(
                f"DataLoader: all arrays need the same length, got the shapes {shapes}"
            )
        if not lengths[0]:
            raise ValueError("DataLoader: the arrays are empty; there is nothing to iterate over")
        if not len(self):
            raise ValueError(
                f"DataLoader: drop_last leaves no batch of {lengths[0]} samples with "
                f"batch_size={self.batch_size}; use a smaller batch_size"
            )
        kinds = [(array.shape, array.dtype.name) for array in self.arrays]
        self.shard.check_same(
            {"the shape and dtype of the arrays": kinds, **self._terms()},
            "DataLoader",
            "every process loads the whole data set",
        )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        samples = len(self.arrays[0])
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    @property
    def smallest_batch(self) -> int:
        """The number of samples in the last batch, or in any if `drop_last`."""
        rest = 0 if self.drop_last else len(self.arrays[0]) % self.batch_size
        return rest or self.batch_size

    def __iter__(self) -> Iterator[Any]:
        running = self._next or self._new_epoch()
        self._running, self._next = running, None
        order, size = running.order, self.batch_size
        # Slices of a read-only view are read-only: writing into a batch must not change the data.
        sources = [_read_only(array) for array in self.arrays] if order is None else self.arrays
        try:
            for start in range(running.batches * size, len(self) * size, size):
                part = self.shard.part(start, min(start + size, len(self.arrays[0])))
                picked = part if order is None else order[part]
                arrays = tuple([source[picked] for source in sources])
                batch: Any = arrays if len(arrays) > 1 else arrays[0]
                if part.start == part.stop:
                    batch = ()
                elif self.transform is not None:
                    batch = self.transform(*arrays)
                running.batches += 1
                yield batch
        finally:
            if self._running is running:
                self._running = None
                self.epoch += 1

    def _new_epoch(self) -> _Epoch:
        samples = len(self.arrays[0])
        return _Epoch(self.shard.permutation(self._rng, samples) if self.shuffle else None)

    def __getstate__(self) -> dict[str, Any]:
        # A loop that runs over this loader does not run over its copy.
        return {**vars(self), "_running": None}

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for `load_state_dict` to continue with the very next batch.

        Returns
        -------
        dict
            "samples", "batch_size", "shuffle" and "drop_last", which must be the same where it is
            loaded; "epoch"; "batches", the number of batches that the running epoch has given, or
            None between two epochs; "order", that of the running epoch; "rng", the state of a
            generator that was given as `rng`; "transform", the state of the transform, or of the
            object whose method it is, if it has a `state_dict` or keeps generators. The state of
            the package's generator is not included; `save_checkpoint` saves that.
        """
        running = self._next or self._running
        order = None if running is None else running.order
        return {
            **self._terms(),
            "epoch": self.epoch,
            "batches": None if running is None else running.batches,
            "order": None if order is None else order.astype(np.min_scalar_type(len(order))),
            "rng": None if self._rng is None else generator_state(self._rng),
            "transform": _transform_state(self.transform),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a state; the next iteration continues from it.

        Raises
        ------
        TypeError, ValueError
            If it is not the state of a loader with the same number of samples and the same batches.
            Nothing is changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"DataLoader: expected the state_dict of a loader, got {type(state_dict).__name__}"
            )
        missing = [name for name in self.state_dict() if name not in state_dict]
        if missing:
            raise ValueError(f"DataLoader: the state lacks {missing[0]!r}")
        for name, here in self._terms().items():
            if state_dict[name] != here:
                raise ValueError(
                    f"DataLoader: the state is of a loader with {name}={state_dict[name]!r:.80}, "
                    f"this one has {here!r}"
                )
        epoch = integer(state_dict["epoch"], "DataLoader: the epoch of the state", 0)
        resumed = self._checked_epoch(state_dict["batches"], state_dict["order"])
        if (self._rng is None) != (state_dict["rng"] is None):
            raise ValueError(
                "DataLoader: the state and the loader must both have an rng of their own, or both "
                "use the package's"
            )
        if self._rng is not None:
            checked_generator_state(self._rng, state_dict["rng"])
        _load_transform_state(self.transform, state_dict["transform"])
        if self._rng is not None:
            load_generator_state(self._rng, state_dict["rng"])
        self.epoch, self._next, self._running = epoch, resumed, None

    def _terms(self) -> dict[str, Any]:
        """Return the options that must be the same where a state is loaded."""
        return {
            "samples": len(self.arrays[0]),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def _checked_epoch(self, batches: Any, order: Any) -> _Epoch | None:
        if batches is None:
            return None
        batches = integer(batches, "DataLoader: the batches of the state", 0)
        if batches > len(self):
            raise ValueError(
                f"DataLoader: the state is {batches} batches into an epoch of {len(self)}"
            )
        if not self.shuffle:
            return _Epoch(None, batches)
        samples, order = len(self.arrays[0]), np.asarray(order)
        if (
            order.dtype.kind not in "iu"
            or order.shape != (samples,)
            or not np.array_equal(np.sort(order), np.arange(samples))
        ):
            raise ValueError(f"DataLoader: the state has no order of {samples} samples")
        return _Epoch(order.astype(np.intp), batches)


class _Epoch:
    """An epoch that has begun: its order, and the number of batches that it has given."""

    def __init__(self, order: Array | None, batches: int = 0) -> None:
        self.order = order
        self.batches = batches


def _transform_state(transform: Any) -> Any:
    owner = getattr(transform, "__self__", transform)  # of a bound method, its object
    if hasattr(owner, "state_dict"):
        return owner.state_dict()
    states = {name: generator_state(rng) for name, rng in generators_within(owner).items()}
    return states or None


def _load_transform_state(transform: Any, state: Any) -> None:
    owner = getattr(transform, "__self__", transform)
    if hasattr(owner, "load_state_dict"):
        owner.load_state_dict(state)
        return
    generators = generators_within(owner)
    states = {} if state is None else state
    if not isinstance(states, Mapping) or set(states) != set(generators):
        raise ValueError(
            f"DataLoader: the state is of another transform than {type(transform).__name__}"
        )
    for name, rng in generators.items():
        checked_generator_state(rng, states[name])
    for name, rng in generators.items():
        load_generator_state(rng, states[name])


def as_array(values: ArrayLike, who: str) -> Array:
    """Return `values` as an array, or raise an error that begins with the caller's name `who`."""
    check_is_array(values, who)
    try:
        array = np.asarray(values)
    except ValueError as error:  # nested lists of several lengths
        raise ValueError(f"{who}: an array is needed, not a ragged list: {error}") from None
    if array.ndim == 0 and array.dtype == object:
        raise TypeError(f"{who}: expected arrays, got {type(values).__name__}")
    return array


def _as_samples(values: ArrayLike) -> Array:
    if isinstance(values, tuple) and all(isinstance(item, np.ndarray) for item in values):
        raise TypeError(
            "DataLoader: expected arrays, got a tuple of arrays; write DataLoader(*arrays)"
        )
    array = as_array(values, "DataLoader")
    if array.ndim == 0:
        raise TypeError(f"DataLoader: expected arrays, got {type(values).__name__}")
    return array


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _is_list_of_arrays(values: Any) -> bool:
    return isinstance(values, list) and any(
        isinstance(item, np.ndarray) and item.ndim > 0 for item in values
    )
