"""Files of Unix `compress`, against a compressor written here."""

import random
import re

import pytest

from lossboard.data.addresses import unpack
from lossboard.data.compress import decompress


def compress(data: bytes, most: int = 16, clear_every: int = 0) -> bytes:
    """LZW as `compress` does it; empties the dictionary after so many codes, or never, and then has no code for it."""
    codes: list[int] = []  # of the present width, not yet written
    output = bytearray(b"\x1f\x9d" + bytes([most | (0x80 if clear_every else 0)]))

    def write(width: int, *, whole: bool) -> None:
        """In eights of codes, the rest of the last one filled; at the end of the file it is not."""
        bits = sum(code << width * place for place, code in enumerate(codes))
        count = -(-len(codes) // 8) * 8 if whole else len(codes)
        output.extend(bits.to_bytes(-(-count * width // 8), "little"))
        codes.clear()

    first = 257 if clear_every else 256
    fresh = {bytes([value]): value for value in range(256)}
    table, size, width, sent, current = fresh.copy(), first, 9, 0, b""
    for place in range(len(data)):
        byte = data[place : place + 1]
        if current + byte in table:
            current += byte
            continue
        codes.append(table[current])
        sent += 1
        if size < 1 << most:
            table[current + byte] = size
            size += 1
            if size > 1 << width and width < most:
                write(width, whole=True)
                width += 1
        if clear_every and sent % clear_every == 0:
            codes.append(256)
            write(width, whole=True)
            table, size, width = fresh.copy(), first, 9
        current = byte
    if current:
        codes.append(table[current])
    write(width, whole=False)
    return bytes(output)


TEXT = " ".join(str(random.Random(0).randrange(300)) for _ in range(20_000)).encode()
NOISE = random.Random(1).randbytes(30_000)


@pytest.mark.parametrize("data", [b"", b"a", b"aaaaaaaaaa", TEXT, NOISE], ids=["empty", "one", "run", "text", "noise"])
@pytest.mark.parametrize(("most", "clear_every"), [(16, 0), (16, 1000), (12, 0), (12, 5000), (10, 0), (16, 100_000)])
def test_what_was_compressed_comes_back(data: bytes, most: int, clear_every: int) -> None:
    assert decompress(compress(data, most, clear_every)) == data


def test_an_address_is_unpacked() -> None:
    assert unpack("file.Z", lambda address: compress(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a .Z file: it starts with nothing"),
        (b"\x1f\x8b\x08", "not a .Z file: it starts with 1f8b"),
        (b"\x1f\x9d\x89", "a .Z file with codes of up to 9 bits"),
        (b"\x1f\x9d\x1f", "a .Z file with codes of up to 31 bits"),
        (b"\x1f\x9d\x90\xff\xff\xff", "a damaged .Z file: code 511 stands for nothing yet"),
        (b"\x1f\x9d\x90" + (65 | 300 << 9).to_bytes(3, "little"), "a damaged .Z file: code 300"),
    ],
)
def test_damage_is_told(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        decompress(data)
