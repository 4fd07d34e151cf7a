"""Vocabularies: any text survives the way to tokens and back, and frequent words are single tokens."""

import pytest
import torch

from reference.models.tokens import Tokens, characters, words

TEXT = b"To be, or not to be:\n\nthat is the question. Be not afraid to be; be the question.\n"


@pytest.mark.parametrize("size", [256, 257, 262, 269])
@pytest.mark.parametrize("text", [TEXT, b"", b" ", bytes(range(256)), "“Ünïcode” 123".encode(), b"question" * 3])
def test_round_trip(size: int, text: bytes):
    vocabulary = words(TEXT, size)
    tokens = vocabulary.encode(text)
    assert (tokens.dtype, tokens.dim()) == (torch.int64, 1)
    assert vocabulary.decode(tokens) == text


def test_words_stand_by_their_frequency():
    assert words(TEXT, 260).pieces[256:] == (b" be", b" not", b" question", b" the")
    assert words(TEXT, 260).pieces[:256] == tuple(bytes([byte]) for byte in range(256))


def test_all_words_make_a_token_each():
    vocabulary = words(TEXT, 269)
    with pytest.raises(ValueError, match="size 270 must be from 256 to 269"):
        words(TEXT, 270)
    found = [vocabulary.pieces[token] for token in vocabulary.encode(TEXT).tolist()]
    assert found[:9] == [b"To", b" be", b",", b" or", b" not", b" to", b" be", b":\n\n", b"that"]
    assert [piece for piece in found if len(piece) == 1] == [b",", b".", b";"]


def test_the_longest_piece_is_taken():
    vocabulary = Tokens((b"a", b"b", b"ab", b"abb"))
    assert vocabulary.encode(b"abbaab").tolist() == [3, 0, 2]


def test_characters():
    vocabulary = characters(TEXT)
    assert vocabulary.pieces == tuple(sorted({bytes([byte]) for byte in TEXT}))
    assert vocabulary.decode(vocabulary.encode(TEXT)) == TEXT
    assert len(vocabulary.encode(TEXT)) == len(TEXT)
    with pytest.raises(ValueError, match=r"byte 0x78 at 3 is not in this vocabulary of \d+ pieces"):
        vocabulary.encode(b"To x")
