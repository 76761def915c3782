"""The machine code of the functions that Numba could not translate as well from their source.

Each of them is plain Python elsewhere, in `functions` and `tiles`. This module needs Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding
import numba
import numba.core.imputils
import numba.core.typing.templates
import numba.np.arrayobj
from llvmlite import ir
from numba.core import cgutils as _cgutils

from .routines import functions, tiles

_types: Any = numba.types
_extending: Any = numba.extending
_templates: Any = numba.core.typing.templates
_borrowed: Any = numba.core.imputils.impl_ret_borrowed
_fill: Any = numba.np.arrayobj.populate_array
_code: Any = _cgutils
_ir: Any = ir

_INT, _INDEX = _ir.IntType(32), _ir.IntType(64)

# The rows of a tile, and its columns: vectors in `multiply`, and rows of b in `multiply_rows`. The
# sums and what is multiplied just fit into sixteen registers; there are twice as many of 512 bits.
_TILE, _HIGH_TILE, _TILE_OF_ROW = (4, 3), (6, 2), (1, 12)
# The rows of a tile where one vector of columns is left, in place of four: a processor adds to
# eight sums at a time.
_ROWS_OF_VECTOR = 8
_DOTS, _DOTS_OF_512_BITS, _DOTS_OF_FIVE = (4, 3), (4, 4), (2, 5)
# Of b for a single row of `a`: where a vector is long, two rows keep up with the cache.
_DOTS_OF_ROW, _DOTS_OF_ROW_OF_512_BITS = (1, 4), (1, 2)


def register() -> None:
    """Let Numba compile calls of the functions that are lowered here."""
    _typed(functions.view, _type_of_view, _lower_view)
    _typed(functions.part, _type_of_part, _lower_part)
    _typed(tiles.strided, _type_of_strided, _lower_strided)
    _typed(tiles.multiply, _type_of_kernel, _lower_kernel(_multiply))
    _typed(tiles.multiply_rows, _type_of_kernel, _lower_kernel(_multiply_rows))
    _typed(tiles.transpose, _type_of_kernel, _lower_kernel(_transpose))
    _typed(tiles.lanes, _types.intp, _lower_lanes)


def _typed(function: Callable[..., Any], types: Callable[..., Any], lower: Any) -> None:
    @_templates.infer_global(function)
    class Typing(_templates.AbstractTemplate):  # type: ignore[misc]
        def generic(self, given: Any, by_keyword: Any) -> Any:
            return types(*given)

    _extending.lower_builtin(function, _types.VarArg(_types.Any))(lower)


# ---- views ----


def _type_of_view(array: Any, *sizes: Any) -> Any:
    if not isinstance(array, _types.Array) or array.layout != "C":
        return None
    return array.copy(ndim=len(sizes))(array, *(_types.intp for _ in sizes))


def _lower_view(context: Any, builder: Any, called: Any, arguments: Any) -> Any:
    """Write no more than the new shape and its strides.

    Numba's own ``reshape`` finds out at run time whether it can do without a copy, which takes
    longer to compile than anything else in many models.
    """
    array, *sizes = arguments
    return _part(context, builder, called, array, None, sizes)


def _type_of_part(array: Any, start: Any, *sizes: Any) -> Any:
    if not isinstance(array, _types.Array) or array.layout != "C" or array.ndim != 1:
        return None
    return array.copy(ndim=len(sizes))(array, *(_types.intp for _ in (start, *sizes)))


def _lower_part(context: Any, builder: Any, called: Any, arguments: Any) -> Any:
    array, start, *sizes = arguments
    return _part(context, builder, called, array, start, sizes)


def _part(context: Any, builder: Any, called: Any, array: Any, start: Any, sizes: Any) -> Any:
    strides = [context.make_array(called.args[0])(context, builder, array).itemsize]
    for size in reversed(sizes[1:]):
        strides.insert(0, builder.mul(strides[0], size))
    return _other_view(context, builder, called, array, sizes, strides, start)


def _type_of_strided(array: Any, shape: Any, strides: Any) -> Any:
    if not isinstance(array, _types.Array) or array.layout != "C":
        return None
    sizes = _types.UniTuple(_types.intp, len(shape))
    return array.copy(ndim=len(shape), layout="A")(array, sizes, sizes)


def _lower_strided(context: Any, builder: Any, called: Any, arguments: Any) -> Any:
    array, shape, strides = arguments
    size = context.make_array(called.args[0])(context, builder, array).itemsize
    distances = [builder.mul(size, each) for each in _code.unpack_tuple(builder, strides)]
    sizes = _code.unpack_tuple(builder, shape)
    return _other_view(context, builder, called, array, sizes, distances)


def _other_view(
    context: Any,
    builder: Any,
    called: Any,
    value: Any,
    sizes: Any,
    strides: Any,
    start: Any = None,
) -> Any:
    array = context.make_array(called.args[0])(context, builder, value)
    view = context.make_array(called.return_type)(context, builder)
    data = array.data if start is None else builder.gep(array.data, [start])
    _fill(view, data, sizes, strides, array.itemsize, array.meminfo, array.parent)
    return _borrowed(context, builder, called.return_type, view._getvalue())


# ---- tiles ----


def _type_of_kernel(*given: Any) -> Any:
    kinds = [each if isinstance(each, _types.Array) else _types.boolean for each in given]
    return _types.none(*kinds)


def _lower_kernel(write: Callable[..., None]) -> Callable[..., Any]:
    """Return the lowering of a call of a function that `write` writes.

    Its arguments are arrays, of which `write` gets the addresses, sizes and strides, and flags.
    """

    def lowered(context: Any, builder: Any, called: Any, arguments: Any) -> Any:
        pointers, sizes, strides, flags = [], [], [], []
        for kind, value in zip(called.args, arguments, strict=True):
            if not isinstance(kind, _types.Array):
                flag = context.cast(builder, value, kind, _types.boolean)
                flags.append(builder.icmp_unsigned("!=", flag, flag.type(0)))
                continue
            array = context.make_array(kind)(context, builder, value)
            pointers.append(array.data)
            sizes.append(_code.unpack_tuple(builder, array.shape))
            distances = _code.unpack_tuple(builder, array.strides)
            strides.append([builder.sdiv(each, array.itemsize) for each in distances])
        groups = [pointers, *sizes, *strides, flags]
        given = [each for group in groups for each in group]
        dtype, bits = called.args[0].dtype, _bits_of_registers()
        axes = "_".join(str(len(each)) for each in strides)
        name = f"nnlite{write.__name__}_{dtype}_{axes}_{bits}"
        function = builder.module.globals.get(name)
        if function is None:
            signature = _ir.FunctionType(_ir.VoidType(), [each.type for each in given])
            function = _ir.Function(builder.module, signature, name)
            function.linkage = "linkonce_odr"
            body = _ir.IRBuilder(function.append_basic_block())
            vectors = _Vectors(body, context.get_data_type(dtype), bits)
            first, *others, last = _split(function.args, [len(each) for each in groups])
            count = len(pointers)
            write(vectors, first, others[:count], others[count:], *last)
            body.ret_void()
        builder.call(function, given)
        return context.get_dummy_value()

    return lowered


def _lower_lanes(context: Any, builder: Any, called: Any, arguments: Any) -> Any:
    size = context.get_abi_sizeof(context.get_data_type(called.args[0].dtype))
    return _INDEX(_bits_of_registers() // 8 // size)


def _split(values: Any, lengths: list[int]) -> list[Any]:
    values = iter(values)
    return [[next(values) for _ in range(length)] for length in lengths]


class _Vectors:
    """Vector instructions for registers of this many bits."""

    def __init__(self, builder: Any, real: Any, bits: int) -> None:
        self.builder, self.bits = builder, bits
        self.size = 4 if real == _ir.FloatType() else 8
        self.lanes = bits // 8 // self.size
        self.real, self.type = real, _ir.VectorType(real, self.lanes)
        self.zero = _ir.Constant(self.type, [0.0] * self.lanes)
        self._suffix = f"v{self.lanes}f{8 * self.size}"

    def at(self, pointer: Any, *distances: Any) -> Any:
        """Return the address some elements further on."""
        for distance in distances:
            pointer = self.builder.gep(pointer, [distance])
        return pointer

    def splat(self, value: Any, kind: Any = None) -> Any:
        """Return a vector of equal elements."""
        kind = kind or self.type
        first = self.builder.insert_element(_ir.Constant(kind, _ir.Undefined), value, _INT(0))
        zeros = _ir.Constant(_ir.VectorType(_INT, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, first, zeros)

    def mask(self, count: Any) -> Any:
        """Return which elements are the first `count`."""
        kind = _ir.VectorType(_INT, self.lanes)
        places = _ir.Constant(kind, list(range(self.lanes)))
        counts = self.splat(self.builder.trunc(count, _INT), kind)
        return self.builder.icmp_signed("<", places, counts)

    def load(self, pointer: Any, mask: Any = None) -> Any:
        """Return the vector at an address; elements outside of the mask are 0."""
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            return self.builder.load(pointer, align=self.size)
        given = [pointer, _INT(self.size), mask, self.zero]
        return self._call(f"llvm.masked.load.{self._suffix}.p0", self.type, given)

    def store(self, vector: Any, pointer: Any, mask: Any = None) -> None:
        """Write a vector to an address, within the mask."""
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(vector, pointer, align=self.size)
            return
        given = [vector, pointer, _INT(self.size), mask]
        self._call(f"llvm.masked.store.{self._suffix}.p0", _ir.VoidType(), given)

    def add_product(self, a: Any, b: Any, total: Any) -> None:
        """Add a b to the vector at an address."""
        given = [a, b, self.builder.load(total)]
        self.builder.store(self._call(f"llvm.fmuladd.{self._suffix}", self.type, given), total)

    def sum(self, vector: Any) -> Any:
        """Return the sum of the elements, added in any order."""
        given = [_ir.Constant(self.real, -0.0), vector]
        name = f"llvm.vector.reduce.fadd.{self._suffix}"
        return self._call(name, self.real, given, fastmath=("reassoc",))

    def interleaved(self, one: Any, other: Any) -> list[Any]:
        """Return the interleaved first halves of two vectors, and the interleaved last halves."""
        places = [place for each in range(self.lanes) for place in (each, each + self.lanes)]
        halves = places[: self.lanes], places[self.lanes :]
        kind = _ir.VectorType(_INT, self.lanes)
        return [
            self.builder.shuffle_vector(one, other, _ir.Constant(kind, half)) for half in halves
        ]

    def variables(self, count: int) -> list[Any]:
        """Return addresses of vectors that stay in registers."""
        return [_code.alloca_once(self.builder, self.type) for _ in range(count)]

    def up_to(self, first: Any, count: int, end: Any) -> list[Any]:
        """Return `count` indices from `first` on; the last one stands for those behind the end."""
        last = self.builder.sub(end, _INDEX(1))
        indices = [self.builder.add(first, _INDEX(place)) for place in range(count)]
        return [
            self.builder.select(self.builder.icmp_signed("<", index, last), index, last)
            for index in indices
        ]

    def lines(self, pointer: Any, indices: Any, stride: Any) -> list[Any]:
        """Return the addresses of some rows, which are this far apart."""
        return [self.at(pointer, self.builder.mul(index, stride)) for index in indices]

    def whole(self, number: Any, step: int) -> Any:
        """Return the largest multiple of `step` up to a number."""
        return self.builder.mul(self.builder.sdiv(number, _INDEX(step)), _INDEX(step))

    @contextmanager
    def steps(self, start: Any, end: Any, step: int = 1) -> Iterator[Any]:
        """Write a loop; the context is its body, with the index.

        LLVM must not unroll it: it would load what is multiplied in several rounds at once, for
        which there are no registers.
        """
        builder = self.builder
        before = builder.block
        head, body, end_of_loop = (builder.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(_INDEX)
        index.add_incoming(start, before)
        builder.cbranch(builder.icmp_signed("<", index, end), body, end_of_loop)
        builder.position_at_end(body)
        yield index
        following = builder.add(index, _INDEX(step))
        index.add_incoming(following, builder.block)
        builder.branch(head).set_metadata("llvm.loop", self._as_it_is())
        builder.position_at_end(end_of_loop)

    def _as_it_is(self) -> Any:
        """Return the metadata of a loop that is not to be unrolled, whose first part is itself."""
        module = self.builder.module
        disable = module.add_metadata([_ir.MetaDataString(module, "llvm.loop.unroll.disable")])
        loop = _ir.MDValue(module, (), name=str(len(module.metadata)))
        loop.operands = (loop, disable)
        return loop

    def nest(self, ends: Any, body: Callable[..., None]) -> None:
        """Write loops from 0 to each of the ends, with a body that is given the indices."""
        if not ends:
            body([])
            return
        with self.steps(_INDEX(0), ends[0]) as index:
            self.nest(ends[1:], lambda inner: body([index, *inner]))

    def scaled(self, indices: Any, strides: Any) -> list[Any]:
        """Return the distances of some indices."""
        return [self.builder.mul(*each) for each in zip(indices, strides, strict=True)]

    def _call(self, name: str, result: Any, given: Any, **flags: Any) -> Any:
        kind = _ir.FunctionType(result, [each.type for each in given])
        function = _code.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, given, **flags)


def _multiply(vectors: _Vectors, pointers: Any, sizes: Any, strides: Any, add: Any) -> None:
    """Write `tiles.multiply`.

    The columns are gone through tile by tile, each for all rows: a tile's part of b stays in the
    first-level cache. A tile has rows of the last of their axes. The last tile has masks where it
    goes beyond the columns.
    """
    builder, (a, b, out) = vectors.builder, pointers
    columns, width = sizes[1][-1], vectors.lanes
    inner = len(sizes[2]) - 2  # the last axis of the rows
    outer, rows, terms = sizes[0][:inner], sizes[0][inner], sizes[0][inner + 1 :]

    def tile(j: Any, height: int, count: int, is_last: bool) -> None:
        """Write the loop over the rows, for `count` vectors of columns from j on."""
        rest = builder.sub(columns, j)
        places = [_INDEX(width * place) for place in range(count)]
        masks = [vectors.mask(builder.sub(rest, place)) if is_last else None for place in places]
        pairs = list(zip(places, masks, strict=True))

        def all_rows(at: Any) -> None:
            first = vectors.at(a, *vectors.scaled(at, strides[0][:inner]))
            other = vectors.at(out, *vectors.scaled(at, strides[2][:inner]), j)
            with vectors.steps(_INDEX(0), rows, height) as i:
                some_rows(i, first, other)

        def some_rows(i: Any, first: Any, other: Any) -> None:
            lines = vectors.up_to(i, height, rows)
            left = vectors.lines(first, lines, strides[0][inner])
            target = vectors.lines(other, lines, strides[2][inner])
            sums = [vectors.variables(count) for _ in lines]
            with builder.if_else(add) as (old, new):
                with old:
                    for line, row in zip(target, sums, strict=True):
                        for (place, mask), total in zip(pairs, row, strict=True):
                            builder.store(vectors.load(vectors.at(line, place), mask), total)
                with new:
                    for row in sums:
                        for total in row:
                            builder.store(vectors.zero, total)

            def add_term(k: Any) -> None:
                line = vectors.at(b, *vectors.scaled(k, strides[1][:-1]), j)
                right = [vectors.load(vectors.at(line, place), mask) for place, mask in pairs]
                distances = vectors.scaled(k, strides[0][inner + 1 :])
                for pointer, row in zip(left, sums, strict=True):
                    factor = vectors.splat(builder.load(vectors.at(pointer, *distances)))
                    for each, total in zip(right, row, strict=True):
                        vectors.add_product(factor, each, total)

            vectors.nest(terms, add_term)
            for line, row in zip(target, sums, strict=True):
                for (place, mask), total in zip(pairs, row, strict=True):
                    vectors.store(builder.load(total), vectors.at(line, place), mask)

        vectors.nest(outer, all_rows)

    def all_columns(height: int, count: int) -> None:
        step = width * count
        whole = vectors.whole(columns, step)
        rest = builder.sub(columns, whole)
        if count == 3:  # four vectors are two and two: a single one has too few sums at a time
            is_single = builder.and_(is_between(0, rest, 1), builder.icmp_signed(">", whole, rest))
            whole = builder.select(is_single, builder.sub(whole, _INDEX(step)), whole)
        with vectors.steps(_INDEX(0), whole, step) as j:
            tile(j, height, count, is_last=False)
        if count == 3:
            with builder.if_then(is_single):
                tile(whole, height, 2, is_last=False)
            whole = builder.select(is_single, builder.add(whole, _INDEX(2 * width)), whole)
        rest, less = builder.sub(columns, whole), 0
        for last in sorted({(count + 3) // 4, (count + 1) // 2, count}):
            rows_of_tile = _ROWS_OF_VECTOR if last == 1 and height == _TILE[0] else height
            with builder.if_then(is_between(less, rest, last)):
                tile(whole, rows_of_tile, last, is_last=True)
            less = last

    def is_between(less: int, number: Any, most: int) -> Any:
        """Whether a number is above `less` vectors, and at most that of `most`."""
        is_more = builder.icmp_signed(">", number, _INDEX(width * less))
        return builder.and_(is_more, builder.icmp_signed("<=", number, _INDEX(width * most)))

    def padded(height: int) -> Any:
        return vectors.whole(builder.add(rows, _INDEX(height - 1)), height)

    is_high = builder.icmp_signed("<", padded(_HIGH_TILE[0]), padded(_TILE[0]))
    with builder.if_else(builder.icmp_signed("==", rows, _INDEX(1))) as (one, more):
        with one:
            all_columns(*_TILE_OF_ROW)
        with more, builder.if_else(is_high) as (high, others):
            with high:
                all_columns(*_HIGH_TILE)
            with others:
                all_columns(*_TILE)


def _multiply_rows(vectors: _Vectors, pointers: Any, sizes: Any, strides: Any, add: Any) -> None:
    """Write `tiles.multiply_rows`.

    Each sum of a tile is a vector, whose elements are added at the end.
    """
    builder, (a, b, out) = vectors.builder, pointers
    rows, columns, terms, length = sizes[0][0], sizes[1][0], sizes[0][1:-1], sizes[0][-1]
    whole = vectors.whole(length, vectors.lanes)
    rest = builder.sub(length, whole)
    mask = vectors.mask(rest)

    def tile(i: Any, j: Any, height: int, count: int) -> None:
        lines, others = vectors.up_to(i, height, rows), vectors.up_to(j, count, columns)
        left = vectors.lines(a, lines, strides[0][0])
        right = vectors.lines(b, others, strides[1][0])
        sums = [vectors.variables(count) for _ in lines]
        for row in sums:
            for total in row:
                builder.store(vectors.zero, total)

        def add_line(k: Any) -> None:
            at_a, at_b = vectors.scaled(k, strides[0][1:-1]), vectors.scaled(k, strides[1][1:-1])

            def add_vectors(place: Any, mask: Any = None) -> None:
                factors = [vectors.load(vectors.at(each, *at_b, place), mask) for each in right]
                for pointer, row in zip(left, sums, strict=True):
                    factor = vectors.load(vectors.at(pointer, *at_a, place), mask)
                    for each, total in zip(factors, row, strict=True):
                        vectors.add_product(factor, each, total)

            with vectors.steps(_INDEX(0), whole, vectors.lanes) as place:
                add_vectors(place)
            with builder.if_then(builder.icmp_signed(">", rest, _INDEX(0))):
                add_vectors(whole, mask)

        vectors.nest(terms, add_line)
        results = []
        for line, row in zip(lines, sums, strict=True):
            for other, total in zip(others, row, strict=True):
                target = vectors.at(out, *vectors.scaled([line, other], strides[2]))
                before = builder.select(add, builder.load(target), vectors.real(0.0))
                value = builder.fadd(before, vectors.sum(builder.load(total)))
                results.append((value, target))
        for value, target in results:  # where the last row stands for others, after all are read
            builder.store(value, target)

    def all_tiles(height: int, count: int) -> None:
        with (
            vectors.steps(_INDEX(0), rows, height) as i,
            vectors.steps(_INDEX(0), columns, count) as j,
        ):
            tile(i, j, height, count)

    is_five = builder.icmp_signed("==", columns, _INDEX(5))
    with builder.if_else(builder.icmp_signed("==", rows, _INDEX(1))) as (one, more):
        with one:
            all_tiles(*(_DOTS_OF_ROW if vectors.bits < 512 else _DOTS_OF_ROW_OF_512_BITS))
        with more, builder.if_else(is_five) as (five, others):
            with five:
                all_tiles(*_DOTS_OF_FIVE)
            with others:
                all_tiles(*(_DOTS if vectors.bits < 512 else _DOTS_OF_512_BITS))


def _transpose(vectors: _Vectors, pointers: Any, sizes: Any, strides: Any) -> None:
    """Write `tiles.transpose`.

    Squares of as many rows as a vector has elements are transposed in registers. A round
    interleaves the vectors of the first half with those of the second, which rotates the binary
    digits of an element's index, row and column, by one. After log2(side) rounds the rows are
    columns.
    """
    builder, (a, out), (rows, columns) = vectors.builder, pointers, sizes[0]
    side = vectors.lanes

    def move(i: Any, j: Any, is_whole: bool) -> None:
        lines, others = vectors.up_to(i, side, rows), vectors.up_to(j, side, columns)
        sources = vectors.lines(vectors.at(a, j), lines, strides[0][0])
        targets = vectors.lines(vectors.at(out, i), others, strides[1][0])
        mask = None if is_whole else vectors.mask(builder.sub(columns, j))
        square = [vectors.load(line, mask) for line in sources]
        for _ in range(side.bit_length() - 1):
            pairs = zip(square[: side // 2], square[side // 2 :], strict=True)
            square = [each for pair in pairs for each in vectors.interleaved(*pair)]
        mask = None if is_whole else vectors.mask(builder.sub(rows, i))
        for column, line in reversed([*zip(square, targets, strict=True)]):
            vectors.store(column, line, mask)  # the last one after those that stand for it

    with (
        vectors.steps(_INDEX(0), rows, side) as i,
        vectors.steps(_INDEX(0), columns, side) as j,
    ):
        fits = [
            builder.icmp_signed("<=", builder.add(start, _INDEX(side)), end)
            for start, end in ((i, rows), (j, columns))
        ]
        with builder.if_else(builder.and_(*fits)) as (whole, last):
            with whole:
                move(i, j, is_whole=True)
            with last:
                move(i, j, is_whole=False)


def _bits_of_registers() -> int:
    features: Any = llvmlite.binding.get_host_cpu_features()
    return 512 if features.get("avx512f") else 256 if features.get("avx") else 128
