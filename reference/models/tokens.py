"""Tokens of a text: its characters, or its frequent words with single bytes for the rest."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

BYTES = 256
# A word with the space before it, or a run of anything else: parts that a text is made of without rest.
PARTS = re.compile(rb" ?[A-Za-z']+| ?[^A-Za-z' ]+| +")


@dataclass(frozen=True)
class Tokens:
    """A vocabulary: token i stands for ``pieces[i]``.

    >>> characters(b"to be").pieces
    (b' ', b'b', b'e', b'o', b't')
    """

    pieces: tuple[bytes, ...]

    def encode(self, text: bytes) -> Tensor:
        """The tokens (N,), int64: at each place the longest piece that fits.

        Raises:
            ValueError: no piece fits; the message names the byte and its place.
        """
        found, place = [], 0
        while place < len(text):
            token = self._longest(text, place)
            found.append(token)
            place += len(self.pieces[token])
        return torch.tensor(found, dtype=torch.int64)

    def decode(self, tokens: Tensor) -> bytes:
        """The text that these tokens (N,) stand for."""
        return b"".join(self.pieces[token] for token in tokens.tolist())

    def _longest(self, text: bytes, place: int) -> int:
        for length in self._lengths:
            token = self._numbers.get(text[place : place + length])
            if token is not None:
                return token
        raise ValueError(f"byte {text[place]:#04x} at {place} is not in this vocabulary of {len(self.pieces)} pieces")

    @cached_property
    def _numbers(self) -> dict[bytes, int]:
        return {piece: token for token, piece in enumerate(self.pieces)}

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({len(piece) for piece in self.pieces}, reverse=True)


def characters(text: bytes) -> Tokens:
    """The different bytes of a text, in their order: for ASCII its characters."""
    return Tokens(tuple(bytes([byte]) for byte in sorted(set(text))))


def words(text: bytes, size: int) -> Tokens:
    """A vocabulary of ``size``: all 256 bytes, so that any text has tokens, then the words that are most frequent.

    A word has the space before it; punctuation and line ends in a row count as one. Of equally frequent words the first
    in the alphabet are taken.

    Raises:
        ValueError: the text has too few different words for this size.
    """
    counts = Counter(part for part in PARTS.findall(text) if len(part) > 1)
    if not 0 <= size - BYTES <= len(counts):
        raise ValueError(f"size {size} must be from {BYTES} to {BYTES + len(counts)}, as many words as this text has")
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: size - BYTES]
    return Tokens((*(bytes([byte]) for byte in range(BYTES)), *frequent))
