"""How a look-up ends without data: the name is wrong, the content is wrong, or there is none."""

from lossboard.errors import LossboardError


class DataError(LossboardError):
    """A dataset cannot be had, or a copy of it cannot be read; the message names the place and says what to do."""


class UnknownDataset(DataError):
    """No pin has this name, or pins.toml itself is wrong."""

    exit_code = 2


class WrongContent(DataError):
    """A copy was read, and it is not what was pinned."""

    exit_code = 1


class NotThere(Exception):
    """One step of a look-up has no copy, so the next may try; `tried` holds pairs (place, why not)."""

    def __init__(self, *tried: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{place}: {why}" for place, why in tried))
        self.tried = tried


def reason(error: BaseException) -> str:
    """The first line of an error with its type, short enough to stand in a list of places tried."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}"[:300]
