"""Products of small matrices in registers, for kernels that numba compiles; a tile is 16 by 16 float32, 16 to a row.

Each element of a product is its first value plus one fused multiplication and addition after another, in the order of
the inner index, whatever the width of the processor's vectors: where it has fused operations, the bits are the same.

LLVM is given whole loops, with the sums of up to ROWS rows of 16 in registers: numba's own loops leave them in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.vectors import AVX512, vector

TILE = 16
BYTES = 4 * TILE  # of a row
ROWS = 16 if AVX512 else 4  # whose sums the registers hold

_INT, _LONG, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_ROW = ir.VectorType(_FLOAT, TILE)
_UNDEFINED = ir.Constant(_ROW, ir.Undefined)


def _at(builder: ir.IRBuilder, address: ir.Value, offset: int = 0) -> ir.Value:
    return builder.add(address, ir.Constant(_LONG, offset)) if offset else address


def _load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)


def _store(builder: ir.IRBuilder, address: ir.Value, value: ir.Value) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=4)


def _everywhere(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    one = builder.insert_element(_UNDEFINED, number, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, _UNDEFINED, ir.Constant(ir.VectorType(_INT, TILE), None))


def _fma(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    name = f"llvm.fmuladd.v{TILE}f32"
    known = builder.module.globals.get(name)
    return builder.call(known or ir.Function(builder.module, ir.FunctionType(_ROW, [_ROW] * 3), name), [a, b, c])


def _shuffled(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, lanes: list[int]) -> ir.Value:
    kind = ir.VectorType(_INT, len(lanes))
    return builder.shuffle_vector(a, b, ir.Constant(kind, [ir.Constant(_INT, i) for i in lanes]))


def _by_count(builder: ir.IRBuilder, count: ir.Value, most: int, emit: Any) -> None:
    """``emit(n)`` for the n in 1 to most that the count is."""
    end = builder.append_basic_block("end")
    switch = builder.switch(count, end)
    for n in range(1, most + 1):
        block = builder.append_basic_block(f"rows{n}")
        switch.add_case(ir.Constant(_LONG, n), block)
        builder.position_at_end(block)
        emit(n)
        builder.branch(end)
    builder.position_at_end(end)


def _sums(builder: ir.IRBuilder, first: list[ir.Value]) -> list[ir.Value]:
    """Variables, which LLVM keeps in registers."""
    found = [cgutils.alloca_once(builder, _ROW) for _ in first]
    for variable, value in zip(found, first, strict=True):
        builder.store(value, variable)
    return found


def _accumulate(builder: ir.IRBuilder, sums: list[ir.Value], a: ir.Value, step: int, b: ir.Value) -> None:
    """Add the product of the numbers at a, step bytes apart, and the row at b."""
    row = _load(builder, b, _ROW)
    for p, variable in enumerate(sums):
        number = _everywhere(builder, _load(builder, _at(builder, a, p * step), _FLOAT))
        builder.store(_fma(builder, number, row, builder.load(variable)), variable)


def _write(builder: ir.IRBuilder, sums: list[ir.Value], c: ir.Value, step: ir.Value) -> None:
    for variable in sums:
        _store(builder, c, builder.load(variable))
        c = builder.add(c, step)


def _product_of_rows(builder: ir.IRBuilder, first: Callable[[int], ir.Value], *args: ir.Value) -> None:
    """Rows of A, in panels of 16 columns, times B, beginning with ``first(p)`` for row p."""
    c, c_step, a, a_panel, b, b_step, inner, rows = args
    zero, one, tile, two = (ir.Constant(_LONG, n) for n in (0, 1, TILE, 2))

    def emit(count: int) -> None:
        sums = _sums(builder, [first(p) for p in range(count)])
        at_a, at_b = (cgutils.alloca_once_value(builder, value) for value in (a, b))
        with cgutils.for_range_slice(builder, zero, inner, tile, inc=True) as (k, _):
            left, panel = builder.sub(inner, k), builder.load(at_a)
            most = builder.select(builder.icmp_signed("<", left, tile), left, tile)
            with cgutils.for_range_slice(builder, zero, most, one, inc=True) as (j, _):
                row = builder.load(at_b)
                _accumulate(builder, sums, builder.add(panel, builder.shl(j, two)), BYTES, row)
                builder.store(builder.add(row, b_step), at_b)
            builder.store(builder.add(panel, a_panel), at_a)
        _write(builder, sums, c, c_step)

    _by_count(builder, rows, ROWS, emit)


@intrinsic
def rows_alone(typing, c, c_step, a, a_panel, b, b_step, inner, rows):  # type: ignore[no-untyped-def]
    """c = A B, for up to ROWS rows of A, ``inner`` numbers each in panels of 16, and rows of B: 16 columns."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        _product_of_rows(builder, lambda p: ir.Constant(_ROW, None), *args)
        return context.get_dummy_value()

    return types.none(*[types.int64] * 8), generate


@intrinsic
def rows_plus_row(typing, c, c_step, a, a_panel, b, b_step, inner, rows, bias):  # type: ignore[no-untyped-def]
    """c = A B plus the row at ``bias``."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        *args, bias = args
        row = _load(builder, bias, _ROW)
        _product_of_rows(builder, lambda p: row, *args)
        return context.get_dummy_value()

    return types.none(*[types.int64] * 9), generate


@intrinsic
def rows_added(typing, c, c_step, a, a_panel, b, b_step, inner, rows):  # type: ignore[no-untyped-def]
    """c + A B in the place of c."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        c, c_step = args[:2]

        def first(p: int) -> ir.Value:
            return _load(builder, builder.add(c, builder.mul(c_step, ir.Constant(_LONG, p))), _ROW)

        _product_of_rows(builder, first, *args)
        return context.get_dummy_value()

    return types.none(*[types.int64] * 8), generate


@intrinsic
def rows_plus_column(typing, c, c_step, a, a_panel, b, b_step, inner, rows, bias):  # type: ignore[no-untyped-def]
    """c = A B, plus in row p the number p at ``bias``."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        *args, bias = args

        def first(p: int) -> ir.Value:
            return _everywhere(builder, _load(builder, _at(builder, bias, 4 * p), _FLOAT))

        _product_of_rows(builder, first, *args)
        return context.get_dummy_value()

    return types.none(*[types.int64] * 9), generate


@intrinsic
def columns(typing, c, c_step, a, a_step, b, b_step, inner, rows):  # type: ignore[no-untyped-def]
    """c = A^T B, for up to ROWS adjacent columns of A, ``inner`` numbers each, a_step bytes apart."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        c, c_step, a, a_step, b, b_step, inner, rows = args
        zero, one = (ir.Constant(_LONG, n) for n in (0, 1))

        def emit(count: int) -> None:
            sums = _sums(builder, [ir.Constant(_ROW, None)] * count)
            at_a, at_b = (cgutils.alloca_once_value(builder, value) for value in (a, b))
            with cgutils.for_range_slice(builder, zero, inner, one, inc=True) as (_, _):
                number, row = builder.load(at_a), builder.load(at_b)
                _accumulate(builder, sums, number, 4, row)
                builder.store(builder.add(number, a_step), at_a)
                builder.store(builder.add(row, b_step), at_b)
            _write(builder, sums, c, c_step)

        _by_count(builder, rows, ROWS, emit)
        return context.get_dummy_value()

    return types.none(*[types.int64] * 8), generate


@intrinsic
def transpose(typing, c, c_step, a, a_step):  # type: ignore[no-untyped-def]
    """Write the tile at a, its rows a_step bytes apart, turned to c."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        c, c_step, a, a_step = args
        rows = []
        for _ in range(TILE):
            rows.append(_load(builder, a, _ROW))
            a = builder.add(a, a_step)
        half = TILE // 2
        low, high = ([lane for i in range(start, start + half) for lane in (i, TILE + i)] for start in (0, half))
        for _ in range(TILE.bit_length() - 1):
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [_shuffled(builder, x, y, lanes) for x, y in pairs for lanes in (low, high)]
        for row in rows:
            _store(builder, c, row)
            c = builder.add(c, c_step)
        return context.get_dummy_value()

    return types.none(*[types.int64] * 4), generate


@intrinsic
def total(typing, a, step, count):  # type: ignore[no-untyped-def]
    """The sum of so many rows of 16, step bytes apart: float32, row by row, then as a tree."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        a, step, count = args
        (found,) = _sums(builder, [ir.Constant(_ROW, None)])
        at = cgutils.alloca_once_value(builder, a)
        with cgutils.for_range(builder, count):
            row = builder.load(at)
            builder.store(builder.fadd(builder.load(found), _load(builder, row, _ROW)), found)
            builder.store(builder.add(row, step), at)
        value, lanes = builder.load(found), TILE
        while lanes > 1:
            lanes //= 2
            low, high = (_shuffled(builder, value, value, [*range(start, start + lanes)]) for start in (0, lanes))
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.Constant(_INT, 0))

    return types.float32(*[types.int64] * 3), generate


@intrinsic
def clamp(typing, a, limit):  # type: ignore[no-untyped-def]
    """a, or the nearest of -limit and limit; NaN stays."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        a, limit = args
        a = builder.select(builder.fcmp_ordered(">", a, limit), limit, a)
        low = builder.fneg(limit)
        return builder.select(builder.fcmp_ordered("<", a, low), low, a)

    return vector(vector, vector), generate


@intrinsic
def divide(typing, a, b):  # type: ignore[no-untyped-def]
    """a / b."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fdiv(*args)

    return vector(vector, vector), generate


@intrinsic
def not_below(typing, a, b):  # type: ignore[no-untyped-def]
    """1 where a >= b, or one of them is no number, else 0."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.uitofp(builder.fcmp_unordered(">=", *args), args[0].type)

    return vector(vector, vector), generate


@intrinsic
def whole(typing, address):  # type: ignore[no-untyped-def]
    """The int64 at an address."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load(builder.inttoptr(args[0], _LONG.as_pointer()), align=8)

    return types.int64(types.int64), generate


@intrinsic
def put(typing, address, number):  # type: ignore[no-untyped-def]
    """Write a float32 to an address."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        _store(builder, *args)
        return context.get_dummy_value()

    return types.none(types.int64, types.float32), generate


@intrinsic
def put_whole(typing, address, number):  # type: ignore[no-untyped-def]
    """Write an int64 to an address."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.store(args[1], builder.inttoptr(args[0], _LONG.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), generate
