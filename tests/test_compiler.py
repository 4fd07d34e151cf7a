"""Compilation is a matter of speed: without a compiler, or where it fails, steps run eagerly and say so."""

import pytest
import torch
from torch import Tensor

from lossboard import compiler


def branching(x: Tensor) -> Tensor:
    """What cannot be one graph: it depends on a value."""
    return x + 1 if float(x.sum()) > 0 else x - 1


def test_what_cannot_be_compiled_runs_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    (made,) = compiler.compiled("branching", (), (branching,))
    assert torch.equal(made(torch.ones(3)), torch.full((3,), 2.0))
    assert torch.equal(made(-torch.ones(3)), torch.full((3,), -2.0))
    said = capsys.readouterr().err
    assert said.count("branching: runs eagerly, cannot be compiled") == 1


def test_errors_of_the_function_itself_are_its_own() -> None:
    def wrong(x: Tensor) -> Tensor:
        raise ZeroDivisionError("mine")

    (made,) = compiler.compiled("wrong", (), (wrong,))
    with pytest.raises(ZeroDivisionError, match="mine"):
        made(torch.ones(3))


def test_equal_keys_share_what_was_compiled() -> None:
    first = compiler.compiled("sine", (torch.sin, 1), (torch.sin,))
    assert compiler.compiled("sine", (torch.sin, 1), (torch.sin,)) is first
    assert compiler.compiled("sine", (torch.sin, 2), (torch.sin,)) is not first


@pytest.mark.parametrize(("variable", "value"), [("LOSSBOARD_COMPILE", "0"), ("PATH", "")])
def test_no_compiler(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.delenv("CXX", raising=False)
    for found in (compiler.described, compiler.available):
        found.cache_clear()
    try:
        assert compiler.described() == "none"
        assert not compiler.available()
    finally:
        for found in (compiler.described, compiler.available):
            found.cache_clear()
