"""``lossboard new``: the one file of a new method, in the form that its kind has, to be filled in; and what follows."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from lossboard import paths
from lossboard.errors import UsageError
from lossboard.protocol import nearest
from reference.methods import PACKAGES, Method

FORMS = Path(__file__).parent / "forms"
RANKED = {  # kind -> what ranks a new method of it beside the control
    **dict.fromkeys(("loss", "correction"), "noisy --only {id}"),
    "calibrator": "calibration --only ce,{id}",
    "multilabel": "multilabel --only bce,{id}",
    "longtail": "multilabel --only ce,{id}",
    "defence": "adversarial --only at,{id}",
    "compressor": "compression --only rtn,{id}",
}
CONTRACTS = {  # kind of method -> the tests that hold it to its contract
    "loss": ("test_losses.py", "test_corrections.py"),
    "calibration": ("test_losses.py",),
    "multilabel": ("test_multilabel.py",),
    "longtail": ("test_longtail.py",),
    "calibrator": ("test_calibrators.py",),
    "attack": ("test_attacks.py",),
    "defence": ("test_defences.py",),
    "compressor": ("test_compressors.py",),
}
KERNELS = {  # operation -> the tests of its implementations
    "softmax": "test_softmax.py",
    "linear_cross_entropy": "test_linear_cross_entropy.py",
    "linear_decoupled_softmax": "test_linear_decoupled_softmax.py",
    **dict.fromkeys(("logsumexp", "cross_entropy"), "test_logits.py"),
}


def kinds() -> list[str]:
    """What there is a form of."""
    return sorted(path.stem for path in FORMS.glob("*.txt"))


def new(kind: str, id: str) -> Path:
    """Write the file of a new method and return its path; nothing is ever overwritten.

    Raises:
        UsageError: there is no form of this kind, the id is none, or there is such a file.
    """
    if kind not in kinds():
        raise UsageError(f"no form of a '{kind}'; {nearest(kind, kinds())}")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", id):
        raise UsageError(f"'{id}': an id is lower-case letters, digits and underscores, a letter first, at most 40")
    text = Template((FORMS / f"{kind}.txt").read_text("utf-8"))
    path = _folder(kind) / f"{id}.py"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text.substitute(id=id, title=id.replace("_", " ").capitalize()))
    except FileExistsError:
        raise UsageError(f"{path} is there already; take another id, or edit it") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    return path


def next_commands(kind: str, id: str) -> list[str]:
    """What one does with a new method once its form is filled in."""
    ranked = [f"lossboard run {RANKED[kind].format(id=id)}"] if kind in RANKED else []
    return [f"lossboard check {id}", *ranked]


def contract(method: Method) -> list[str]:
    """The files of the tests of a method's contract.

    Raises:
        UsageError: they are not here.
    """
    folder = paths.root() / "tests" / "contract"
    if not folder.is_dir():
        raise UsageError("the tests of the contract are in a checkout; --no-contract prints the card of a loss alone")
    return [str(folder / name) for name in CONTRACTS[method.kind]]


def of_kernel(operation: str, id: str) -> list[str]:
    """For pytest: the tests that hold this implementation to the definition of its operation.

    Raises:
        UsageError: they are not here.
        UnknownMethod: there is no such operation or implementation.
    """
    from kernels.registry import implementation

    folder = paths.root() / "tests" / "kernels"
    if not folder.is_dir():
        raise UsageError("the tests of kernels are in a checkout")
    if "triton" in implementation(operation, id).needs:
        return [str(folder / name) for name in ("test_interpreter.py", "test_gpu_code.py")]  # of all in Triton
    return [str(folder / name) for name in ("test_calls.py", KERNELS[operation])] + ["-k", id]


def _folder(kind: str) -> Path:
    """Where files of a kind live: the package of its name, or the second one of losses, of what corrects them."""
    package = PACKAGES["loss"][1] if kind == "correction" else PACKAGES[kind][0]
    return paths.root().joinpath(*package.split("."))
