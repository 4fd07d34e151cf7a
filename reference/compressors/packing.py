"""What compressed weights are stored as, and the bytes that they are written to and read from without loss.

A file is: a line of JSON that says what follows (names, kinds, shapes, bits), then each tensor's bytes in turn. What is
measured as a network's size is the length of that file. Codes of 2-8 bits lie bit behind bit; masks are one bit a
weight; scales are float16, zero-points a byte, other numbers float32.
"""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from reference.compressors.grid import Grid, Scales, spread

MIDDLE = 127  # of 254: where zero lies in a symmetric span
WORD = 1024  # bits of the words that digits of any base are packed into: less than one in a hundred is lost


class Packed(Protocol):
    """A weight of ``shape``, stored in fewer bits."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def dense(self) -> Tensor:
        """The weights (o, d), float32."""

    def about(self) -> dict[str, Any]:
        """What the file's first line says of it."""

    def parts(self) -> list[bytes]:
        """What is written, in turn."""

    def entropy_bits(self) -> float:
        """Bits of the same with codes and masks at their entropy (zeroth order, tables not counted)."""


@dataclass(frozen=True)
class Quantized:
    """Codes (o, d) uint8 on a grid. ``columns`` (d,), where given, divides the columns after that (AWQ's scales)."""

    codes: Tensor
    scales: Scales
    grid: Grid
    shape: tuple[int, ...]
    columns: Tensor | None = None

    def dense(self) -> Tensor:
        step, zero = self.scales.over(self.codes.shape, self.grid.group)
        w = step.float() * (self.codes.float() - zero.float())
        return w if self.columns is None else w / self.columns

    def about(self) -> dict[str, Any]:
        own = {"bits": self.grid.bits, "group": self.grid.group, "symmetric": self.grid.symmetric}
        return {"kind": "quantized", "shape": self.shape, **own, "columns": self.columns is not None}

    def parts(self) -> list[bytes]:
        found = [bits_packed(self.codes.flatten(), self.grid.bits), half_bytes(self.scales.step)]
        if not self.grid.symmetric:
            found.append(self.scales.zero.to(torch.uint8).numpy().tobytes())
        return found + ([] if self.columns is None else [half_bytes(self.columns)])

    def entropy_bits(self) -> float:
        return entropy(self.codes.flatten()) + 8 * sum(map(len, self.parts()[1:]))

    @classmethod
    def read(cls, about: Mapping[str, Any], file: "Reader") -> "Quantized":
        shape, grid = about["shape"], Grid(about["bits"], about["group"], about["symmetric"])
        rows, columns = shape[0], math.prod(shape[1:])
        codes = bits_unpacked(file.take(-(-rows * columns * grid.bits // 8)), grid.bits, rows * columns)
        size = groups(rows, columns, grid.group)
        step = file.halves(math.prod(size)).view(size)
        zero = torch.full(size, float(grid.levels // 2))
        if not grid.symmetric:
            zero = file.small(math.prod(size)).float().view(size)
        divided = file.halves(columns) if about["columns"] else None
        return cls(codes.view(rows, columns), Scales(step, zero), grid, tuple(shape), divided)


@dataclass(frozen=True)
class Columnwise:
    """Codes (o, d) uint8 of which column j has ``levels[j] + 1`` levels, evenly over a ``span`` (rows, groups).

    Zero lies ``place`` 254ths of the span above its lower end. Numbers of levels are whole and not powers of two:
    columns are packed as digits of that base. A column of one level is zero.
    """

    codes: Tensor
    levels: Tensor  # (d,) uint8, less one
    span: Tensor  # numbers of float16
    place: Tensor  # 0 to 254
    group: int
    shape: tuple[int, ...]
    symmetric: bool = False  # zero lies in the middle, which is not written

    def dense(self) -> Tensor:
        step, zero = column_scales(self.span, self.place, self.levels, self.codes.shape, self.group)
        return torch.where(self.levels == 0, 0.0, step * (self.codes.float() - zero))

    def about(self) -> dict[str, Any]:
        own = {"group": self.group, "symmetric": self.symmetric, "level_bits": level_bits(self.levels)}
        return {"kind": "columnwise", "shape": self.shape, **own}

    def parts(self) -> list[bytes]:
        place = b"" if self.symmetric else self.place.to(torch.uint8).numpy().tobytes()
        own = [half_bytes(self.span), place, bits_packed(self.levels, level_bits(self.levels))]
        return own + [digits_packed(self.codes[:, self.levels == n].flatten(), n + 1) for n in bases(self.levels)]

    def entropy_bits(self) -> float:
        bits = sum(entropy(self.codes[:, self.levels == n].flatten()) for n in bases(self.levels))
        return bits + 8 * sum(map(len, self.parts()[:3]))

    @classmethod
    def read(cls, about: Mapping[str, Any], file: "Reader") -> "Columnwise":
        shape, group, bits = about["shape"], about["group"], about["level_bits"]
        rows, columns = shape[0], math.prod(shape[1:])
        size = groups(rows, columns, group)
        span = file.halves(math.prod(size)).view(size)
        place = (
            torch.full(size, float(MIDDLE)) if about["symmetric"] else file.small(math.prod(size)).float().view(size)
        )
        levels = bits_unpacked(file.take(-(-columns * bits // 8)), bits, columns)
        codes = torch.zeros(rows, columns, dtype=torch.uint8)
        for n in bases(levels):
            own = levels == n
            count = rows * int(own.sum())
            codes[:, own] = digits_unpacked(file.take(digits_bytes(count, n + 1)), n + 1, count).view(rows, -1)
        return cls(codes, levels, span, place, group, tuple(shape), about["symmetric"])


@dataclass(frozen=True)
class Sparse:
    """Weights of which the ``mask`` (o, d) is true; the others are zero. ``values`` are the kept ones, in order."""

    mask: Tensor
    values: Tensor
    shape: tuple[int, ...]

    def dense(self) -> Tensor:
        found = torch.zeros(self.mask.shape)
        found[self.mask] = self.values
        return found

    def about(self) -> dict[str, Any]:
        return {"kind": "sparse", "shape": self.shape}

    def parts(self) -> list[bytes]:
        return [np.packbits(self.mask.numpy()).tobytes(), float_bytes(self.values)]

    def entropy_bits(self) -> float:
        return entropy(self.mask.flatten().to(torch.uint8)) + 32 * len(self.values)

    @classmethod
    def read(cls, about: Mapping[str, Any], file: "Reader") -> "Sparse":
        rows, columns = about["shape"][0], math.prod(about["shape"][1:])
        packed = np.frombuffer(file.take(-(-rows * columns // 8)), np.uint8)
        mask = torch.from_numpy(np.unpackbits(packed, count=rows * columns).astype(bool)).view(rows, columns)
        return cls(mask, file.floats(int(mask.sum())), tuple(about["shape"]))


KINDS: dict[str, Any] = {"quantized": Quantized, "columnwise": Columnwise, "sparse": Sparse}
Parameters = Mapping[str, Packed | Tensor]


def quantized(codes: Tensor, scales: Scales, grid: Grid, shape: torch.Size, columns: Tensor | None = None) -> Quantized:
    """A weight of this shape as it is stored, from the codes (o, d) in any dtype."""
    stored = Scales(scales.step.float(), scales.zero.float())
    return Quantized(codes.to(torch.uint8), stored, grid, tuple(shape), columns)


def sparse(w: Tensor, mask: Tensor, shape: torch.Size) -> Sparse:
    """The weights of a matrix (o, d) that the mask keeps."""
    return Sparse(mask, w[mask].float(), tuple(shape))


def column_scales(span: Tensor, place: Tensor, levels: Tensor, shape: torch.Size, group: int) -> tuple[Tensor, Tensor]:
    """Step and zero-point (o | 1, d) of columns with ``levels`` (d,) less one, see :class:`Columnwise`."""
    most = levels.to(span.dtype)
    step = spread(span, shape, group) / most.clamp(min=1)
    return step, torch.round(spread(place, shape, group) / (2 * MIDDLE) * most)


def column_bytes(levels: Tensor, rows: int) -> int:
    """Bytes of the codes and the numbers of levels (d,), less one, of a matrix of so many rows."""
    numbers = -(-len(levels) * level_bits(levels) // 8)
    return numbers + sum(digits_bytes(rows * int((levels == n).sum()), n + 1) for n in bases(levels))


def level_bits(levels: Tensor) -> int:
    """How many bits the largest of these numbers has."""
    return max(1, int(levels.max()).bit_length())


def bases(levels: Tensor) -> list[int]:
    """The numbers of levels, less one, that columns have whose codes are written."""
    return [n for n in levels.unique().tolist() if n]


def encode(parameters: Parameters) -> bytes:
    """The file of a network's parameters: packed weights, and tensors as float32."""
    named = {name: _about(value) for name, value in parameters.items()}
    first = json.dumps(named, separators=(",", ":")).encode() + b"\n"
    return first + b"".join(part for value in parameters.values() for part in _parts(value))


def decode(file: bytes) -> dict[str, Packed | Tensor]:
    """What :func:`encode` wrote.

    Raises:
        ValueError: the file is cut short or too long, or its first line is no JSON or has an unknown kind.
        KeyError: the first line lacks what belongs to a kind.
    """
    first, _, rest = file.partition(b"\n")
    reader, found = Reader(rest), dict[str, Packed | Tensor]()
    for name, about in json.loads(first).items():
        if about["kind"] == "float32":
            found[name] = reader.floats(math.prod(about["shape"])).view(about["shape"])
        elif about["kind"] in KINDS:
            found[name] = KINDS[about["kind"]].read(about, reader)
        else:
            raise ValueError(f"'{name}' is of a kind '{about['kind']}'; there are: float32, {', '.join(KINDS)}")
    if reader.left:
        raise ValueError(f"{reader.left} bytes are left over")
    return found


def unpacked(parameters: Parameters) -> dict[str, Tensor]:
    """All parameters as tensors of their own shapes, float32."""
    return {
        name: value if isinstance(value, Tensor) else value.dense().view(value.shape)
        for name, value in parameters.items()
    }


def weight_bits(parameters: Parameters) -> float:
    """Bits of the packed weights with their scales, masks and levels, for each weight in the mean."""
    packed = [value for value in parameters.values() if not isinstance(value, Tensor)]
    return 8 * sum(len(part) for value in packed for part in value.parts()) / sum(math.prod(v.shape) for v in packed)


def entropy_bytes(parameters: Parameters) -> float:
    """Bytes of the same file were codes and masks written at their entropy: a bound for coders of single symbols."""
    packed = sum(len(part) for value in parameters.values() for part in _parts(value))
    coded = sum(32 * v.numel() if isinstance(v, Tensor) else v.entropy_bits() for v in parameters.values()) / 8
    return len(encode(parameters)) - packed + coded


class Reader:
    """Bytes that are taken from the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.place

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError(f"{count} bytes are wanted, {self.left} are left: the file is cut short")
        self.place += count
        return self.data[self.place - count : self.place]

    def floats(self, count: int) -> Tensor:
        return torch.from_numpy(np.frombuffer(self.take(4 * count), "<f4").copy())

    def halves(self, count: int) -> Tensor:
        return torch.from_numpy(np.frombuffer(self.take(2 * count), "<f2").astype(np.float32))

    def small(self, count: int) -> Tensor:
        return torch.from_numpy(np.frombuffer(self.take(count), np.uint8).copy())


def groups(rows: int, columns: int, group: int) -> tuple[int, int]:
    """How many rows and groups of scales a matrix has."""
    return (1, 1) if group < 0 else (rows, -(-columns // group) if group else 1)


def bits_packed(codes: Tensor, bits: int) -> bytes:
    """Codes (N,) uint8 below 2^bits, bit behind bit, the highest of each first."""
    single = np.unpackbits(codes.numpy()[:, None], axis=1)[:, 8 - bits :]
    return np.packbits(single).tobytes()


def bits_unpacked(data: bytes, bits: int, count: int) -> Tensor:
    """So many codes (N,) of :func:`bits_packed`."""
    single = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits).reshape(count, bits)
    return torch.from_numpy(np.packbits(np.pad(single, ((0, 0), (8 - bits, 0))), axis=1)[:, 0].copy())


def digits_packed(digits: Tensor, base: int) -> bytes:
    """Digits (N,) below ``base``, as many to a word as it holds; the last is cut to the bytes it needs."""
    each = per_word(base)
    values = np.zeros(-(-len(digits) // each) * each, object)
    values[: len(digits)] = digits.tolist()
    words = values.reshape(-1, each) @ np.array([base**i for i in range(each)], object)
    return b"".join(word.to_bytes(WORD // 8, "little") for word in words)[: digits_bytes(len(digits), base)]


def digits_unpacked(data: bytes, base: int, count: int) -> Tensor:
    """So many digits (N,) of :func:`digits_packed`."""
    each = per_word(base)
    words = np.array(
        [int.from_bytes(data[i : i + WORD // 8], "little") for i in range(0, len(data), WORD // 8)], object
    )
    digits = np.empty((len(words), each), np.uint8)
    for i in range(each):
        words, digits[:, i] = words // base, words % base
    return torch.from_numpy(digits.reshape(-1)[:count].copy())


@functools.cache
def per_word(base: int) -> int:
    """How many digits of a base a word holds.

    >>> per_word(3), per_word(16)
    (646, 256)
    """
    each = 1
    while base ** (each + 1) <= 1 << WORD:
        each += 1
    return each


def digits_bytes(count: int, base: int) -> int:
    """Bytes of so many digits: whole words, and of the last the bytes that its digits can fill."""
    words, rest = divmod(count, per_word(base))
    return words * WORD // 8 + -(-(base**rest - 1).bit_length() // 8)


def entropy(codes: Tensor) -> float:
    """Bits of codes (N,) uint8, all together, at the entropy of their frequencies."""
    counts = codes.bincount().double()
    share = counts[counts > 0] / len(codes)
    return float(-(share * share.log2()).sum()) * len(codes)


def half_bytes(values: Tensor) -> bytes:
    return values.half().numpy().astype("<f2").tobytes()


def float_bytes(values: Tensor) -> bytes:
    return values.detach().float().numpy().astype("<f4").tobytes()


def _about(value: Packed | Tensor) -> dict[str, Any]:
    return {"kind": "float32", "shape": list(value.shape)} if isinstance(value, Tensor) else value.about()


def _parts(value: Packed | Tensor) -> list[bytes]:
    return [float_bytes(value)] if isinstance(value, Tensor) else value.parts()
