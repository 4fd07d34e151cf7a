"""Errors that end a command, each with the exit code a script can act on."""


class LossboardError(Exception):
    """A problem the reader can mend; the message says how."""

    exit_code = 3  # could not measure


class UsageError(LossboardError):
    """The call is wrong: an unknown suite, track or method, or a bad suite.toml."""

    exit_code = 2


class CheckFailed(LossboardError):
    """Something was measured or read, and it is not as it should be."""

    exit_code = 1
