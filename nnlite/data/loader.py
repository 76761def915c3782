"""``DataLoader``: iterate over arrays in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ..checks import boolean, check_is_array, integer
from ..engine.arrays import Array
from ..hints import Hinted
from ..processes import ALONE, Processes
from ..random import (
    RandomState,
    checked_generator_state,
    generator,
    generator_state,
    generators_within,
    load_generator_state,
)
from ..tables import options_table


class Sampler(Protocol):
    """An iterable of the indices of the samples of an epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


class DataLoader(Hinted):
    """Iterate over arrays in batches along their first axis.

    Parameters
    ----------
    *arrays : array_like
        One or more arrays of the same length, such as images and labels. The first of several may
        be a tuple of arrays, the inputs of a model with several; a batch has them as a tuple too.
    batch_size : int, default 1
        Number of samples in a batch.
    shuffle : bool, default False
        Whether to shuffle the samples in each epoch.
    sampler : iterable of int with a length, optional
        The indices of the samples of an epoch, such as a `WeightedRandomSampler`. It replaces
        `shuffle`.
    drop_last : bool, default False
        Whether to omit the last batch if it is smaller than the others.
    transform : callable, optional
        Called with the arrays of each batch; its result is the batch. With images and labels,
        ``transform(images, labels)`` returns a pair. It may modify its arguments with `shuffle` or
        a `sampler`, since they are then copies. For its part in the state of the loader, see the
        notes.
    rng : int, numpy.random.Generator or None
        Source of the random orders. With an int, each run has the same orders; within a run, each
        epoch has its own.
    shard : Processes, optional
        ``nnlite.interop.mpi.shard()``: this process takes its part of every batch of `batch_size`
        samples, and rank 0 draws the orders for all.

    Attributes
    ----------
    epoch : int
        Number of epochs that have ended, whether complete or left early.
    shard : Processes
        The processes that share the batches; one alone by default.

    Raises
    ------
    ValueError
        If there are no arrays or no samples, the lengths differ, or `drop_last` leaves no batch. If
        the loaders of several processes have different data or options.
    TypeError
        If an argument is not an array, for example a sparse matrix, a masked array with masked
        elements, or a single list of arrays, which would be read as samples.

    Notes
    -----
    Each iteration over the loader is one epoch. A batch is an array, or a tuple of arrays if there
    are several. With `shuffle` or a `sampler` a batch is a copy, otherwise a read-only view of the
    data. The arrays themselves are not copied, unless a list or data frame has to be converted. If
    a batch has fewer samples than there are processes, some of them get an empty tuple instead,
    which `fit` and `evaluate` accept.

    Data that is already in batches needs no loader: `fit` and `evaluate` accept any iterable of
    batches. For several epochs it must be possible to iterate over it several times.

    Within an epoch, `state_dict` includes the order of that epoch and the position in it. After
    `load_state_dict`, the next iteration starts with the next batch. An epoch that is left with
    ``break`` has ended.

    The state includes the `numpy.random.Generator` objects in the transform and the sampler: in
    their attributes or those of their parts; in lists, tuples and dicts; bound by
    ``functools.partial``; or in the object of a bound method. Generators in closures, default
    values and global variables are not found, and their state is not restored. Use the package's
    generator instead, whose state is in every checkpoint, or define ``state_dict`` and
    ``load_state_dict`` on the transform, which then determine its state.

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

    Save the state after the first batch of the next epoch, and continue with the second batch:

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
    shard: Processes

    def __init__(
        self,
        *arrays: ArrayLike,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        transform: Callable[..., Any] | None = None,
        sampler: Sampler | None = None,
        rng: RandomState = None,
        shard: Processes | None = None,
    ) -> None:
        if not arrays:
            raise ValueError("DataLoader: expected at least one array")
        if len(arrays) == 1 and _is_list_of_arrays(arrays[0]):
            check_is_array(arrays[0], "DataLoader")  # numpy.stack would lose the masks
            raise TypeError(
                "DataLoader: expected arrays, got a list of arrays; write DataLoader(*arrays), or "
                "numpy.stack(arrays) if each of them is a sample"
            )
        first: Any = arrays[0]
        is_group = len(arrays) > 1 and _is_tuple_of_arrays(first)
        self._inputs = len(first) if is_group else 0  # 0: no tuple
        flat = (*first, *arrays[1:]) if is_group else arrays
        self.arrays = tuple(_as_samples(array) for array in flat)
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
        # None is kept: the package's generator is looked up when an epoch starts, so that
        # nn.seed() also affects loaders that were made before it.
        self._rng = None if rng is None else generator(rng)
        self.epoch = 0
        self.shard = ALONE if shard is None else shard
        self._running: _Epoch | None = None  # the epoch that started last, until it ends
        self._next: _Epoch | None = None  # a loaded epoch, until it is continued
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
        kinds = [(array.shape, array.dtype.name) for array in self.arrays]
        self.shard.check_same(
            {"the shape and dtype of the arrays": kinds, **self._terms()},
            "DataLoader",
            "every process loads the whole data set",
        )

    def __repr__(self) -> str:
        shapes = " and ".join(f"{array.shape} of {array.dtype}" for array in self.arrays)
        options = f"batch_size={self.batch_size}" + ", shuffle=True" * self.shuffle
        return f"DataLoader({shapes}, {options}: {len(self)} batches)"

    def _repr_html_(self) -> str:
        shard = f"{self.shard.rank + 1} of {self.shard.size}" if self.shard.size > 1 else None
        return options_table(self, shard=shard, batches=len(self), epoch=self.epoch)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        samples = self._drawn()
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    @property
    def smallest_batch(self) -> int:
        """The number of samples in the last batch, or in any if `drop_last`."""
        rest = 0 if self.drop_last else self._drawn() % self.batch_size
        return rest or self.batch_size

    def _drawn(self) -> int:
        """Return the number of samples in an epoch."""
        return len(self.arrays[0]) if self.sampler is None else len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        running = self.begin()
        order, size = running.order, self.batch_size
        # Slices of a read-only view are read-only: writing into a batch must not change the data.
        sources = [_read_only(array) for array in self.arrays] if order is None else self.arrays
        try:
            for start in range(running.batches * size, len(self) * size, size):
                part = self.shard.part(start, min(start + size, self._drawn()))
                picked = part if order is None else order[part]
                arrays = tuple([source[picked] for source in sources])
                batch: Any = self.grouped(arrays)
                if part.start == part.stop:
                    batch = ()
                elif self.transform is not None:
                    batch = self.transform(*batch) if len(arrays) > 1 else self.transform(batch)
                running.batches += 1
                yield batch
        finally:
            self.leave(running)

    @property
    def inputs(self) -> int:
        """The number of arrays that are inputs of a model.

        :meta private:
        """
        return self._inputs or 1

    def begin(self) -> _Epoch:
        """Return the epoch of an iteration that begins: a loaded one, or a new one.

        :meta private:
        """
        epoch = self._next or self._new_epoch()
        self._running, self._next = epoch, None
        return epoch

    def leave(self, epoch: _Epoch) -> None:
        """End an epoch that has begun, unless another has begun within it.

        :meta private:
        """
        if self._running is epoch:
            self._running = None
            self.epoch += 1

    def hand_over(self, epoch: _Epoch) -> None:
        """Let the next iteration continue an epoch that has begun.

        :meta private:
        """
        self._running, self._next = None, epoch

    def order_of(self, epoch: _Epoch, batches: int) -> Array:
        """Return the samples of the next batches of an epoch.

        :meta private:
        """
        start = epoch.batches * self.batch_size
        stop = min(start + batches * self.batch_size, self._drawn())
        return np.arange(start, stop) if epoch.order is None else epoch.order[start:stop]

    def grouped(self, arrays: tuple[Array, ...]) -> Any:
        """Return arrays in the order of `arrays` as a batch has them.

        :meta private:
        """
        if self._inputs:
            return arrays[: self._inputs], *arrays[self._inputs :]
        return arrays if len(arrays) > 1 else arrays[0]

    def _new_epoch(self) -> _Epoch:
        samples = len(self.arrays[0])
        if self.sampler is None:
            return _Epoch(self.shard.permutation(self._rng, samples) if self.shuffle else None)
        order = self.shard.broadcast(np.asarray(list(self.sampler)))
        if not self._is_order(order):
            raise ValueError(
                f"DataLoader: the sampler must give {self._drawn()} indices from 0 to "
                f"{samples - 1}, got {order!r:.80}"
            )
        return _Epoch(order.astype(np.intp, copy=False))

    def _is_order(self, order: Array) -> bool:
        """Whether `order` is a possible order of an epoch."""
        samples = len(self.arrays[0])
        if order.dtype.kind not in "iu" or order.shape != (self._drawn(),):
            return False
        if self.sampler is not None:
            return bool(((order >= 0) & (order < samples)).all())
        return np.array_equal(np.sort(order), np.arange(samples))

    def __getstate__(self) -> dict[str, Any]:
        # A loop over this loader does not iterate over its copy.
        return {**vars(self), "_running": None}

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with which `load_state_dict` continues at the next batch.

        Returns
        -------
        dict
            "samples", "batch_size", "shuffle" and "drop_last", which must match the loader that
            loads it; "epoch"; "batches", the number of batches returned in the current epoch, or
            None between epochs; "order", the order of the current epoch; "rng", the state of the
            generator passed as `rng`; "transform", the state of the transform, or of the object of
            a bound method, if it has a `state_dict` or generators; with a sampler, "sampler", the
            states of its generators. The state of the package's generator is not included;
            `save_checkpoint` saves it.
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
            If it is not the state of a loader with the same number of samples and the same options.
            The loader is then unchanged.
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
        """Return the options that a loaded state must match."""
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
    """An epoch that has started: its order, and the number of batches returned so far."""

    def __init__(self, order: Array | None, batches: int = 0) -> None:
        self.order = order
        self.batches = batches


def _transform_state(transform: Any) -> Any:
    owner = getattr(transform, "__self__", transform)  # the object of a bound method
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
    """Check the states of the generators of the transform or sampler; return both in pairs."""
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
    if type(values) is np.ndarray and values.ndim:
        return values
    check_is_array(values, who)
    try:
        array = np.asarray(values)
    except ValueError as error:  # nested lists of several lengths
        raise ValueError(f"{who}: an array is needed, not a ragged list: {error}") from None
    if array.ndim == 0 and array.dtype == object:
        raise TypeError(f"{who}: expected arrays, got {type(values).__name__}")
    return array


def _as_samples(values: ArrayLike) -> Array:
    if _is_tuple_of_arrays(values):
        raise TypeError(
            "DataLoader: expected arrays, got a tuple of arrays; write DataLoader(*arrays)"
        )
    array = as_array(values, "DataLoader")
    if array.ndim == 0:
        raise TypeError(
            f"DataLoader: expected arrays, got {type(values).__name__}; options are given by name: "
            f"batch_size=32, shuffle=True"
        )
    return array


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _is_tuple_of_arrays(values: Any) -> bool:
    return isinstance(values, tuple) and all(isinstance(item, np.ndarray) for item in values)


def _is_list_of_arrays(values: Any) -> bool:
    return isinstance(values, list) and any(
        isinstance(item, np.ndarray) and item.ndim > 0 for item in values
    )
