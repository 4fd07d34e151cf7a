"""Files that Unix `compress` made (.Z), which the standard library does not read."""

from __future__ import annotations

MAGIC = b"\x1f\x9d"
FIRST_BITS = 9  # of a code
CLEAR = 256  # the code that empties the dictionary, where the file uses one


def decompress(data: bytes) -> bytes:
    """The bytes in a .Z file; raises ValueError where it is damaged.

    LZW: each code stands for a string, and each code after the first adds one to the dictionary, the last string and
    the first byte of this one. Codes grow with the dictionary, from 9 bits on; they come in eights, so that the rest of
    an eight is skipped where the width changes.
    """
    if len(data) < 3 or not data.startswith(MAGIC):
        raise ValueError(f"not a .Z file: it starts with {data[:2].hex() or 'nothing'}")
    most_bits, clears = data[2] & 0x1F, bool(data[2] & 0x80)
    if not FIRST_BITS < most_bits <= 16:
        raise ValueError(f"a .Z file with codes of up to {most_bits} bits")
    fresh = [bytes([value]) for value in range(256)] + [b""] * clears
    strings, bits, last = fresh.copy(), FIRST_BITS, b""
    start, position, end = 24, 24, 8 * len(data)  # in bits; `start` is where codes of this width began
    output: list[bytes] = []
    while True:
        if len(strings) > (1 << bits) - 1 and bits < most_bits:
            start = position = _next_eight(start, position, bits)
            bits += 1
        if position + bits > end:
            return b"".join(output)
        whole = int.from_bytes(data[position // 8 : position // 8 + 4], "little")
        code = whole >> position % 8 & (1 << bits) - 1
        position += bits
        if clears and code == CLEAR:
            start = position = _next_eight(start, position, bits)
            strings, bits, last = fresh.copy(), FIRST_BITS, b""
            continue
        if code > len(strings) - (not last):
            raise ValueError(f"a damaged .Z file: code {code} stands for nothing yet")
        string = strings[code] if code < len(strings) else last + last[:1]
        if last and len(strings) < 1 << most_bits:
            strings.append(last + string[:1])
        output.append(string)
        last = string


def _next_eight(start: int, position: int, bits: int) -> int:
    eight = 8 * bits
    return start + -(-(position - start) // eight) * eight
