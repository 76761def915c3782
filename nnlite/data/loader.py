"""Batches: ``DataLoader`` cuts arrays into the pieces that a training step takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ..checks import boolean, check_is_array, integer
from ..engine.arrays import Array
from ..random import (
    RandomState,
    checked_generator_state,
    generator,
    generator_state,
    generators_within,
    load_generator_state,
)


class Sampler(Protocol):
    """What gives the indices of the samples of an epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


class DataLoader:
    """Iterate over arrays in batches along their first axis.

    Parameters
    ----------
    *arrays : array_like
        One array or several of the same length, such as images and labels: also data frames and
        columns of pandas and polars, and memory maps, of which only the current batch is read.
    batch_size : int, default 1
        Samples in a batch.
    shuffle : bool, default False
        Whether to draw a new order for each epoch.
    sampler : iterable of int with a length, optional
        Gives the indices of the samples of an epoch, such as a `WeightedRandomSampler`. It takes
        the place of `shuffle`.
    drop_last : bool, default False
        Whether to leave out the last batch where it is smaller than the others.
    transform : callable, optional
        Takes the arrays of each batch and returns the batch: with images and labels,
        ``transform(images, labels)`` returns a pair. It may write into its arguments with `shuffle`
        or a `sampler`, since they are then copies. See the notes for the part of it that belongs to
        the loader's state.
    rng : int, numpy.random.Generator or None
        Source of the orders. An int gives the same orders in every run; the epochs of a run
        differ.

    Attributes
    ----------
    epoch : int
        Number of epochs that have ended, at their last batch or before it.

    Raises
    ------
    ValueError
        If there are no arrays or no samples, if the lengths differ, or if there is no batch
        because of `drop_last`.
    TypeError
        If something is not an array: also sparse matrices, masked arrays with masked elements, and
        a single list of arrays, which would be read as samples.

    Notes
    -----
    Each iteration over the loader is one epoch. Batches of a single array are arrays; of several,
    tuples of arrays. With `shuffle` or a `sampler` a batch is a copy, otherwise a read-only view of
    the data. The arrays themselves are never copied, unless they are lists or data frames that have
    to be.

    Data that come in batches already need no loader: `fit` and `evaluate` take any iterable of
    batches, and one of several epochs if it can be iterated over several times.

    `state_dict`, taken within an epoch, has the order of that epoch and the position in it: after
    `load_state_dict` the next iteration begins with the very next batch. An epoch that was left
    with ``break`` has ended.

    The state includes the `numpy.random.Generator` objects that the transform and the sampler keep:
    as their own attributes or those of their parts; in lists, tuples and dicts; bound by
    ``functools.partial``; or in the object whose method it is. A generator in a closure, in a
    default value or in a global variable is not found, and its state is not restored. Draw from the
    package's generator instead, which is in every checkpoint, or give the transform a
    ``state_dict`` and a ``load_state_dict``, which then define its state.

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
    sampler: Sampler | None
    drop_last: bool
    transform: Callable[..., Any] | None
    epoch: int

    def __init__(
        self,
        *arrays: ArrayLike,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        transform: Callable[..., Any] | None = None,
        sampler: Sampler | None = None,
        rng: RandomState = None,
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
        if sampler is not None and not (
            hasattr(sampler, "__iter__") and hasattr(sampler, "__len__")
        ):
            raise TypeError(
                f"DataLoader: sampler must be an iterable of indices with a length, got {sampler!r}"
            )
        if sampler is not None and self.shuffle:
            raise ValueError("DataLoader: a sampler gives the order itself; leave out shuffle=True")
        self.sampler = sampler
        # None stays None: the package's generator is looked up when an epoch begins, so that
        # nn.seed() also affects loaders that were made before it.
        self._rng = None if rng is None else generator(rng)
        self.epoch = 0
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
                f"DataLoader: drop_last leaves no batch of {self._drawn()} samples with "
                f"batch_size={self.batch_size}; use a smaller batch_size"
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        samples = self._drawn()
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def _drawn(self) -> int:
        """Return the number of samples in an epoch."""
        return len(self.arrays[0]) if self.sampler is None else len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        running = self._next or self._new_epoch()
        self._running, self._next = running, None
        order, size = running.order, self.batch_size
        # Slices of a read-only view are read-only: writing into a batch must not change the data.
        sources = [_read_only(array) for array in self.arrays] if order is None else self.arrays
        try:
            for start in range(running.batches * size, len(self) * size, size):
                stop = start + size
                picked = slice(start, stop) if order is None else order[start:stop]
                arrays = tuple([source[picked] for source in sources])
                batch = arrays if len(arrays) > 1 else arrays[0]
                if self.transform is not None:
                    batch = self.transform(*arrays)
                running.batches += 1
                yield batch
        finally:
            if self._running is running:
                self._running = None
                self.epoch += 1

    def _new_epoch(self) -> _Epoch:
        samples = len(self.arrays[0])
        if self.sampler is None:
            return _Epoch(generator(self._rng).permutation(samples) if self.shuffle else None)
        order = np.asarray(list(self.sampler))
        if not self._is_order(order):
            raise ValueError(
                f"DataLoader: the sampler must give {self._drawn()} indices from 0 to "
                f"{samples - 1}, got {order!r:.80}"
            )
        return _Epoch(order.astype(np.intp, copy=False))

    def _is_order(self, order: Array) -> bool:
        """Whether `order` is one that an epoch can have."""
        samples = len(self.arrays[0])
        if order.dtype.kind not in "iu" or order.shape != (self._drawn(),):
            return False
        if self.sampler is not None:
            return bool(((order >= 0) & (order < samples)).all())
        return np.array_equal(np.sort(order), np.arange(samples))

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
            the package's generator is not included; `save_checkpoint` saves that. With a sampler,
            also "sampler": the states of the generators that it keeps.
        """
        running = self._next or self._running
        order = None if running is None else running.order
        samples = len(self.arrays[0])
        state = {
            **self._terms(),
            "epoch": self.epoch,
            "batches": None if running is None else running.batches,
            "order": None if order is None else order.astype(np.min_scalar_type(samples)),
            "rng": None if self._rng is None else generator_state(self._rng),
            "transform": _transform_state(self.transform),
        }
        return (
            state if self.sampler is None else {**state, "sampler": _generator_states(self.sampler)}
        )

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
        if ("sampler" in state_dict) != (self.sampler is not None):
            raise ValueError(
                "DataLoader: the state and the loader must both have a sampler, or none"
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
        of_sampler = _matching_generators(self.sampler, state_dict.get("sampler"), "sampler")
        _load_transform_state(self.transform, state_dict["transform"])
        for rng, state in of_sampler:
            load_generator_state(rng, state)
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
        if not self.shuffle and self.sampler is None:
            return _Epoch(None, batches)
        order = np.asarray(order)
        if not self._is_order(order):
            raise ValueError(f"DataLoader: the state has no order of {self._drawn()} samples")
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
    return _generator_states(owner)


def _generator_states(owner: Any) -> Any:
    states = {name: generator_state(rng) for name, rng in generators_within(owner).items()}
    return states or None


def _load_transform_state(transform: Any, state: Any) -> None:
    owner = getattr(transform, "__self__", transform)
    if hasattr(owner, "load_state_dict"):
        owner.load_state_dict(state)
        return
    for rng, rng_state in _matching_generators(transform, state, "transform"):
        load_generator_state(rng, rng_state)


def _matching_generators(part: Any, state: Any, what: str) -> list[tuple[np.random.Generator, Any]]:
    """Return each generator of the transform or sampler with its state, having checked it."""
    generators = generators_within(getattr(part, "__self__", part))
    states = {} if state is None else state
    if not isinstance(states, Mapping) or set(states) != set(generators):
        raise ValueError(f"DataLoader: the state is of another {what} than {type(part).__name__}")
    pairs = [(rng, states[name]) for name, rng in generators.items()]
    for rng, rng_state in pairs:
        checked_generator_state(rng, rng_state)
    return pairs


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
