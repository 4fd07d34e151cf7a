"""Sessions: ``nox -l`` lists them. All share one environment, .nox/env, made once and remade when its inputs change."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nox

ROOT = Path(__file__).parent.resolve()
ENV = ROOT / ".nox" / "env"
PYTHON = ENV / "bin" / "python"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["suite-noisy"]


def environment(session: nox.Session) -> str:
    """The shared environment's Python. Built under a lock: two sessions at once make one. Its stamp comes last."""
    key = _key()
    with _lock():
        stamp = ENV / "stamp"
        if not (stamp.is_file() and stamp.read_text() == key):
            session.log("making the environment in .nox/env; this is done once and takes some minutes")
            shutil.rmtree(ENV, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(ENV)], check=True)
            install = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            result = subprocess.run([*install, "--constraint", "constraints.txt", "--editable", ".[dev]"], cwd=ROOT)
            if result.returncode:
                session.error("the environment could not be made; mend what pip says above and run the same line again")
            stamp.write_text(key)
    return str(PYTHON)


def _key() -> str:
    """What the environment depends on: requirements, interpreter and place."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    parts += [sys.version.encode(), sys.base_prefix.encode(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    (ROOT / ".nox").mkdir(exist_ok=True)
    with open(ROOT / ".nox" / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the process ends, however it ends
        yield


def _suite(name: str) -> Callable[[nox.Session], None]:
    def run(session: nox.Session) -> None:
        session.run(environment(session), "-m", "lossboard", "run", name, *session.posargs, external=True)

    run.__doc__ = f"Run the suite {name} (track quick), rank what it compares and build the page; options after --."
    return run


for path in sorted(ROOT.glob("suites/*/suite.toml")):
    nox.session(name=f"suite-{path.parent.name}")(_suite(path.parent.name))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; pytest options after --. All of them run on every core, a file in one process."""
    whole = all(option.startswith("-") for option in session.posargs)
    cores = ["-n", "auto", "--dist", "loadfile"] if whole else []
    session.run(environment(session), "-m", "pytest", *cores, *session.posargs, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types and workflows."""
    python = environment(session)
    session.run(python, "-m", "ruff", "check", external=True)
    session.run(python, "-m", "ruff", "format", "--check", external=True)
    session.run(python, "-m", "mypy", external=True)
    session.run(str(ENV / "bin" / "zizmor"), "--offline", "--quiet", ".github/workflows", external=True)


@nox.session
def cli(session: nox.Session) -> None:
    """Reach the command line: nox -s cli -- plan noisy."""
    session.run(environment(session), "-m", "lossboard", *session.posargs, external=True)


@nox.session
def site(session: nox.Session) -> None:
    """Build the site in _site/ from the published records; -- --serve shows it on this machine until ctrl-C."""
    python, options = environment(session), [option for option in session.posargs if option != "--serve"]
    session.run(python, "-m", "lossboard", "publish", "_site", *options, external=True)
    if "--serve" in session.posargs:
        server = [python, "-m", "http.server", "--bind", "127.0.0.1", "--directory", "_site", "8000"]
        with contextlib.suppress(KeyboardInterrupt):
            if subprocess.run(server).returncode:
                session.error("the server did not start; perhaps something else listens on port 8000")


@nox.session
def nightly(session: nox.Session) -> None:
    """What a night does, on a GPU or not: nox -s nightly -- --budget 10m; --help lists its options."""
    session.run(environment(session), "-m", "lossboard", "nightly", *session.posargs, external=True)


@nox.session
def review(session: nox.Session) -> None:
    """Judge what this branch adds: nox -s review -- --since main."""
    session.run(environment(session), "-m", "lossboard", "review", *session.posargs, external=True)


@nox.session
def pools(session: nox.Session) -> None:
    """Install Dask and Ray into the environment (280 MB), and test every pool with killed workers."""
    python = environment(session)
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    session.run(*install, "--constraint", "constraints.txt", "--editable", ".[dask,ray]", external=True)
    session.run(python, "-m", "pytest", "tests/test_machines.py", *session.posargs, external=True)


@nox.session(venv_backend="venv")
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities in what the environment holds, and list its licences. Needs the network."""
    python = environment(session)
    session.install("pip-audit", "pip-licenses")
    session.run("pip-licenses", f"--python={python}", "--from=mixed", "--order=license", "--with-urls")
    (packages,) = ENV.glob("lib/python*/site-packages")
    session.run(
        "pip-audit",
        "--strict",
        "--vulnerability-service=osv",
        "--skip-editable",
        "--path",
        str(packages),
        *session.posargs,
    )


@nox.session(name="bench-fleet")
def bench_fleet(session: nox.Session) -> None:
    """Compare fleets with a tight loop and a script of the usual form on this machine."""
    session.run(environment(session), "-m", "benchmarks.fleet", *session.posargs, external=True)


@nox.session(name="bench-images")
def bench_images(session: nox.Session) -> None:
    """Compare the training of images with a loop as it is first written."""
    session.run(environment(session), "-m", "benchmarks.images", *session.posargs, external=True)


@nox.session(name="bench-adversarial")
def bench_adversarial(session: nox.Session) -> None:
    """Compare adversarial training with a loop as it is first written; -- --effect 3 trains with its faster forms."""
    session.run(environment(session), "-m", "benchmarks.adversarial", *session.posargs, external=True)


ENDS = {1: "a benchmark got worse", 2: "the call is wrong", 3: "something was not measured"}


@nox.session
def asv(session: nox.Session) -> None:
    """Measure commits with asv, a git range after --, and compare the last two.

    nox itself ends with 1 whatever went wrong; python -m benchmarks.history ends with the code that is printed here.
    """
    command = [environment(session), "-m", "benchmarks.history", *session.posargs]
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        session.error(f"{ENDS.get(code, 'it was ended')} (exit code {code} of python -m benchmarks.history)")


@nox.session
def bench(session: nox.Session) -> None:
    """Time the benchmarks of this checkout and keep the times; -- --compare shows those kept last beside them."""
    options = ["--benchmark-compare" if option == "--compare" else option for option in session.posargs]
    settings = ["--benchmark-autosave", "--benchmark-storage=.lossboard/bench", "--benchmark-timer=time.process_time"]
    settings += ["--benchmark-min-rounds=10", "--benchmark-max-time=0.5", "--benchmark-columns=median,iqr,rounds"]
    settings += ["--benchmark-group-by=fullname", "--benchmark-disable-gc"]
    session.run(
        environment(session), "-m", "pytest", "benchmarks/test_tracked.py", "-q", *settings, *options, external=True
    )
