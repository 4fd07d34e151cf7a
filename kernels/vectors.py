"""Vectors of float32 for kernels that numba compiles: a type, its operators, memory access, and exp.

numba vectorises no loop that calls exp, and runs a maximum one element at a time. Kernels here name their vectors
instead. ``load(address)`` gives a value of LANES float32, on which ``+ - *``, :func:`fma`, :func:`maximum` and
:func:`exp` act lane by lane. LANES is 16 with AVX-512 and 8 elsewhere; LLVM splits a vector that is wider than the
registers. Addresses are plain integers, ``tensor.data_ptr()``: numba passes them faster than arrays.

Requirements: every function propagates NaN, takes exp(-inf) as 0, and reads nothing beyond what it is asked for.
"""

from __future__ import annotations

import operator
import platform
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import config
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model


def _has(feature: str) -> bool:
    """Whether numba compiles for a processor with this feature: the host, unless NUMBA_CPU_FEATURES says otherwise."""
    if config.CPU_FEATURES is not None:  # type: ignore[attr-defined]
        return f"+{feature}" in config.CPU_FEATURES.split(",")  # type: ignore[attr-defined]
    return bool(llvmlite.binding.get_host_cpu_features().get(feature, False))


X86 = platform.machine().lower() in ("x86_64", "amd64")
AVX512 = X86 and _has("avx512f") and _has("avx512dq")
FMA = not X86 or _has("fma")  # without it (x86 before 2013) n LN2_HIGH is rounded, and errors reach 3e-5
LANES = 16 if AVX512 else 8
BYTES = 4 * LANES  # of one vector
STREAM_ALIGNMENT = BYTES  # of the addresses that `stream` takes

_INT, _BOOL, _FLOAT, _DOUBLE = ir.IntType(32), ir.IntType(1), ir.FloatType(), ir.DoubleType()
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(_INT, LANES)
_BOOLS = ir.VectorType(_BOOL, LANES)
_SUFFIX = f"v{LANES}f32"


class Vector(types.Type):
    """The numba type of LANES float32."""

    def __init__(self) -> None:
        super().__init__(name=f"Vector{LANES}")


vector = Vector()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _FLOATS)


def _filled(builder: ir.IRBuilder, scalar: ir.Value, lanes: ir.VectorType) -> ir.Value:
    one = builder.insert_element(ir.Constant(lanes, ir.Undefined), scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, ir.Constant(lanes, ir.Undefined), ir.Constant(ir.VectorType(_INT, LANES), None))


def _constant(lanes: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(lanes, [ir.Constant(lanes.element, value)] * LANES)


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
    signature = ir.FunctionType(result, [value.type for value in arguments])
    known = builder.module.globals.get(name)
    return builder.call(known or ir.Function(builder.module, signature, name), arguments)


def _pointer(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, _FLOATS.as_pointer())


def _first(builder: ir.IRBuilder, count: ir.Value) -> ir.Value:
    """The mask of the first ``count`` lanes."""
    lanes = ir.Constant(_INTS, [ir.Constant(_INT, i) for i in range(LANES)])
    return builder.icmp_signed("<", lanes, _filled(builder, builder.trunc(count, _INT), _INTS))


@intrinsic
def splat(typing, value):  # type: ignore[no-untyped-def]
    """The scalar in every lane, rounded to float32."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _filled(builder, context.cast(builder, args[0], signature.args[0], types.float32), _FLOATS)

    return vector(value), generate


@intrinsic
def load(typing, address):  # type: ignore[no-untyped-def]
    """The LANES float32 at an address of any alignment."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load(_pointer(builder, args[0]), align=4)

    return vector(types.int64), generate


@intrinsic
def load_first(typing, address, count, fill):  # type: ignore[no-untyped-def]
    """The first ``count`` float32 at an address, and ``fill`` in the other lanes, which are not read."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer, mask = _pointer(builder, args[0]), _first(builder, args[1])
        arguments = [pointer, ir.Constant(_INT, 4), mask, _filled(builder, args[2], _FLOATS)]
        return _call(builder, f"llvm.masked.load.{_SUFFIX}.p0", _FLOATS, arguments)

    return vector(types.int64, types.int64, types.float32), generate


@intrinsic
def store(typing, address, value):  # type: ignore[no-untyped-def]
    """Write LANES float32 to an address of any alignment."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.store(args[1], _pointer(builder, args[0]), align=4)
        return context.get_dummy_value()

    return types.none(types.int64, vector), generate


@intrinsic
def store_first(typing, address, value, count):  # type: ignore[no-untyped-def]
    """Write the first ``count`` lanes to an address."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer, mask = _pointer(builder, args[0]), _first(builder, args[2])
        arguments = [args[1], pointer, ir.Constant(_INT, 4), mask]
        _call(builder, f"llvm.masked.store.{_SUFFIX}.p0", ir.VoidType(), arguments)
        return context.get_dummy_value()

    return types.none(types.int64, vector, types.int64), generate


@intrinsic
def stream(typing, address, value):  # type: ignore[no-untyped-def]
    """Write LANES float32 past the caches, to a multiple of STREAM_ALIGNMENT; :func:`fence` before others read them.

    The line is not read first, which saves a third of the traffic of a write out of cache. In cache it is harmful.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        written = builder.store(args[1], _pointer(builder, args[0]), align=STREAM_ALIGNMENT)
        written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT, 1)]))
        return context.get_dummy_value()

    return types.none(types.int64, vector), generate


@intrinsic
def fence(typing):  # type: ignore[no-untyped-def]
    """Order what :func:`stream` wrote before whatever follows."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        if X86:
            _call(builder, "llvm.x86.sse.sfence", ir.VoidType(), [])
        else:
            builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def prefetch(typing, address):  # type: ignore[no-untyped-def]
    """Ask for the line at an address, which need not exist."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        how = [ir.Constant(_INT, 0), ir.Constant(_INT, 3), ir.Constant(_INT, 1)]  # read, keep, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *how])
        return context.get_dummy_value()

    return types.none(types.int64), generate


def _binary(emit: str) -> Any:
    """The intrinsic that emits one instruction of two vectors."""

    @intrinsic
    def operation(typing, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            return getattr(builder, emit)(*args)

        return vector(vector, vector), generate

    return operation


_add, _subtract, _multiply = _binary("fadd"), _binary("fsub"), _binary("fmul")


@overload(operator.add)
def _(a, b):  # type: ignore[no-untyped-def]
    if isinstance(a, Vector):
        return lambda a, b: _add(a, b)
    return None


@overload(operator.sub)
def _(a, b):  # type: ignore[no-untyped-def]
    if isinstance(a, Vector):
        return lambda a, b: _subtract(a, b)
    return None


@overload(operator.mul)
def _(a, b):  # type: ignore[no-untyped-def]
    if isinstance(a, Vector):
        return lambda a, b: _multiply(a, b)
    return None


@intrinsic
def fma(typing, a, b, c):  # type: ignore[no-untyped-def]
    """a * b + c, rounded once where the processor can."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _call(builder, f"llvm.fmuladd.{_SUFFIX}", _FLOATS, list(args))

    return vector(vector, vector, vector), generate


@intrinsic
def maximum(typing, a, b):  # type: ignore[no-untyped-def]
    """The larger of a and b; b where either is NaN."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return vector(vector, vector), generate


@intrinsic
def nearest(typing, a):  # type: ignore[no-untyped-def]
    """a rounded to whole numbers, halves to even."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _call(builder, f"llvm.rint.{_SUFFIX}", _FLOATS, list(args))

    return vector(vector), generate


@intrinsic
def any_greater(typing, a, b):  # type: ignore[no-untyped-def]
    """Whether some lane of a is greater than that of b."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        bits = builder.bitcast(builder.fcmp_ordered(">", *args), ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(vector, vector), generate


@intrinsic
def scalar(typing, address):  # type: ignore[no-untyped-def]
    """The float32 at an address."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load(builder.inttoptr(args[0], _FLOAT.as_pointer()), align=4)

    return types.float32(types.int64), generate


@intrinsic
def lane(typing, a, index):  # type: ignore[no-untyped-def]
    """One lane, float32."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.extract_element(args[0], builder.trunc(args[1], _INT))

    return types.float32(vector, types.int64), generate


@intrinsic
def total(typing, a):  # type: ignore[no-untyped-def]
    """The sum of the lanes in float64."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        doubles = builder.fpext(args[0], ir.VectorType(_DOUBLE, LANES))
        found = _call(builder, f"llvm.vector.reduce.fadd.v{LANES}f64", _DOUBLE, [ir.Constant(_DOUBLE, 0), doubles])
        found.fastmath.add("reassoc")  # as a tree
        return found

    return types.float64(vector), generate


@intrinsic
def scale(typing, a, n):  # type: ignore[no-untyped-def]
    """a * 2^n for whole n <= 127 in float32; 0 where n < -126 without AVX-512, rounded to a subnormal with it."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        if AVX512:
            everywhere = ir.Constant(ir.IntType(LANES), -1)
            arguments = [*args, ir.Constant(_FLOATS, None), everywhere, ir.Constant(_INT, 4)]
            return _call(builder, "llvm.x86.avx512.mask.scalef.ps.512", _FLOATS, arguments)
        floor = _constant(_FLOATS, -127.0)
        bounded = builder.select(builder.fcmp_ordered(">", args[1], floor), args[1], floor)  # -inf and NaN are -127
        biased = builder.fadd(bounded, _constant(_FLOATS, 127.0))
        exponent = builder.shl(builder.fptosi(biased, _INTS), _constant(_INTS, 23))
        return builder.fmul(args[0], builder.bitcast(exponent, _FLOATS))

    return vector(vector, vector), generate


@njit(inline="always")
def largest(a):  # type: ignore[no-untyped-def]
    """The largest lane, float32; NaN counts as nothing unless it is the first."""
    found = lane(a, 0)
    for i in range(1, LANES):
        value = lane(a, i)
        if value > found:
            found = value
    return found


# exp(x) = p(t) 2^n with n = round(x log2 e), t = x - n ln 2 and a polynomial of degree 5: constants of Dukhan &
# Ablavatski 2020 (arXiv:2001.04438). ln 2 is in two parts; the first has so few bits that x - n LN2_HIGH is exact.
LOG2E = np.float32(float.fromhex("0x1.715476p+0"))
LN2_HIGH = np.float32(float.fromhex("0x1.62E43p-1"))
LN2_ROUNDED = np.float32(np.log(2))  # off by 3e-9 of itself
LN2_LOW = np.float32(float.fromhex("-0x1.05C61p-29"))
C1 = np.float32(float.fromhex("0x1.FFFFF6p-1"))
C2 = np.float32(float.fromhex("0x1.FFFDC6p-2"))
C3 = np.float32(float.fromhex("0x1.555A80p-3"))
C4 = np.float32(float.fromhex("0x1.573A1Ap-5"))
C5 = np.float32(float.fromhex("0x1.0F9F9Cp-7"))
DEEP = np.float32(-200.0)  # exp of less is 0 in float32


@njit(inline="always")
def halves(x):  # type: ignore[no-untyped-def]
    """exp(x) as (m, n): m 2^n, for |x| < 2^20, without overflow."""
    n = nearest(x * splat(LOG2E))
    t = fma(n, splat(-LN2_LOW), fma(n, splat(-LN2_HIGH), x))
    p = fma(fma(fma(splat(C5), t, splat(C4)), t, splat(C3)), t, splat(C2))
    return fma(fma(p, t, splat(C1)), t, splat(np.float32(1.0))), n


@njit(inline="always")
def exp(x):  # type: ignore[no-untyped-def]
    """exp(x) for x <= 88, within 3 units in the last place."""
    m, n = halves(maximum(splat(DEEP), x))
    return scale(m, n)


@njit(inline="always")
def ordinary_exp(x):  # type: ignore[no-untyped-def]
    """exp(x) for |x| < 10^6, as near, in three operations less; with AVX-512 alone.

    Beyond, infinities included, it is right, or NaN, infinite or negative.
    """
    n = nearest(x * splat(LOG2E))
    t = fma(n, splat(-LN2_ROUNDED), x)
    p = fma(fma(fma(splat(C5), t, splat(C4)), t, splat(C3)), t, splat(C2))
    return scale(fma(fma(p, t, splat(C1)), t, splat(np.float32(1.0))), n)
