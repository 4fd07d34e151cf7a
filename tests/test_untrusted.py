"""Files that strangers hand in: whatever is in them ends in a record or in one of the stated errors, never in another.

Bytes and structures are drawn by Hypothesis, from nothing and by damage to what is right; the rest are known ways to
make readers fall over: links, devices, numbers and nesting beyond bounds, other encodings, keys that stand twice.
"""

import ast
import contextlib
import copy
import hashlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_records import record

from lossboard import inspection, markup, protocol, records, reproduced
from lossboard.errors import LossboardError, UsageError
from lossboard.records import BadFile
from lossboard.sources import source

CHECKOUT = Path(__file__).parents[1]
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", autouse=True)
def _denormals() -> None:
    """Training in this process may have set them to zero, which Hypothesis refuses."""
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["nan", "inf", "ok", "0" * 12, "../../etc/passwd", "<script>", "2026-01-01T00:00:00Z", "\ud800"])
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def _damaged(draw: Any, whole: Any) -> Any:
    """A structure with a few of its parts replaced, dropped or added."""
    made = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        place = made
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(keys))
            inside = place[key]
            if not (isinstance(inside, dict | list) and inside) or draw(st.booleans()):
                what = draw(st.sampled_from(["replace", "drop", "add"]))
                if what == "replace":
                    place[key] = draw(ANYTHING)
                elif what == "drop":
                    del place[key]
                elif isinstance(place, dict):
                    place[draw(st.text(max_size=5))] = draw(ANYTHING)
                else:
                    place.append(draw(ANYTHING))
                break
            place = inside
    return made


def _lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    path = records.seal(tmp_path_factory.mktemp("good"), "gce", [record(0), record(1)], control=None)
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    path = tmp_path_factory.mktemp("good") / "a.jsonl"
    top = {
        "suite": "noisy",
        "commit": None,
        "dirty": True,
        "env": {"a": "b"},
        "data": {},
        "started": "2026-01-01T00:00:00Z",
    }
    records.write_unit(
        path, top, {"gce": {"module": "reference.losses.gce", "source": "0" * 12}}, [record(0), record(1)]
    )
    return [json.loads(line) for line in path.read_text().splitlines()]


REPRODUCTION = [
    {"schema": 1, "kind": "reproduction", "suite": "noisy", "env": {"cpu": "x"}, "started": "2026-01-01T00:00:00Z"},
    {"method": "gce", "batch": "0" * 12, "task": "digits/clean", "seed": 0, "trial": 0, "verdict": "bitwise"},
]


def _published(folder: Path, content: bytes) -> Path:
    path = records.batch_path(folder, "noisy", "gce", "")
    path = path.with_name(f"{hashlib.sha256(content).hexdigest()[:12]}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.iterdir():
        other.unlink()
    path.write_bytes(content)
    return path


@FUZZ
@given(data=st.data())
def test_batches(tmp_path: Path, batch: list[Any], data: st.DataObject) -> None:
    content = data.draw(st.binary(max_size=200)) if data.draw(st.booleans()) else _lines(_damaged(data.draw, batch))
    path = _published(tmp_path, content)
    found, problems = records.read_results(tmp_path, "noisy")
    assert len(problems) <= 1
    try:
        assert len(records.read_batch(path).records) == len(found)
    except BadFile:
        assert not found
        assert problems


@FUZZ
@given(data=st.data())
def test_units(tmp_path: Path, unit: list[Any], data: st.DataObject) -> None:
    content = data.draw(st.binary(max_size=200)) if data.draw(st.booleans()) else _lines(_damaged(data.draw, unit))
    (tmp_path / "a.jsonl").write_bytes(content)
    found, problems = records.read_units(tmp_path)
    assert len(found) <= len(content)
    assert len(problems) <= 1
    assert records.set_aside(tmp_path, {record(0).key}) <= 4


@FUZZ
@given(data=st.data())
def test_reproductions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    monkeypatch.setenv("LOSSBOARD_ROOT", str(tmp_path))
    content = (
        data.draw(st.binary(max_size=200)) if data.draw(st.booleans()) else _lines(_damaged(data.draw, REPRODUCTION))
    )
    folder = tmp_path / "results" / reproduced.FOLDER / "noisy"
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.iterdir():
        other.unlink()
    (folder / f"{hashlib.sha256(content).hexdigest()[:12]}.jsonl").write_bytes(content)
    found, problems = reproduced.read("noisy")
    assert bool(problems) or all(each.verdict in reproduced.VERDICTS for each in found)


def _toml(value: Any) -> str:
    """A TOML value; what TOML does not have as text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(str(value))


@FUZZ
@given(data=st.data())
def test_suite_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    monkeypatch.setenv("LOSSBOARD_ROOT", str(tmp_path))
    folder = tmp_path / "suites" / "toy"
    folder.mkdir(parents=True, exist_ok=True)
    table = _damaged(data.draw, tomllib.loads(toy.PINS))
    text = "".join(f"{json.dumps(str(key))} = {_toml(value)}\n" for key, value in table.items())
    (folder / "suite.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UsageError):
        assert protocol.load("toy").name == "toy"


@FUZZ
@given(data=st.data())
def test_retractions(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "retracted").mkdir(exist_ok=True)
    (tmp_path / "retracted" / "a.toml").write_bytes(data.draw(st.binary(max_size=60)))
    try:
        found = records.retracted(tmp_path)
    except BadFile:
        return
    assert all(isinstance(reason, str) for reason in found.values())


TEXTS = st.text(max_size=60) | st.text(alphabet="{}\\_^$&<>\"'/`fracsumlet(|)ab 1", max_size=60)


@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
def test_texts_of_methods_stand_on_pages_as_text(text: str) -> None:
    shown = str(markup.prose(text))
    allowed = shown.replace("<code>", "").replace("</code>", "")
    assert "<" not in re.sub(r'<a href="https://arxiv.org/abs/[\d.]+">|</a>', "", allowed)
    formula = markup.mathml(text)
    if formula is not None:
        assert not re.search(r"<(?!/?m|math)[a-z]|\son\w+=|javascript:", str(formula), re.I)


# -- known ways to make a reader fall over -----------------------------------------------------------------------------

DEEP = 100_000
CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "nesting": lambda good: good + b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}\n",
    "a number of 5,000 digits": lambda good: good.replace(b'"seed":0', b'"seed":' + b"9" * 5000),
    "a number beyond floats": lambda good: good.replace(b'"last":0.5', b'"last":1e999'),
    "NaN": lambda good: good.replace(b'"last":0.5', b'"last":NaN'),
    "-Infinity": lambda good: good.replace(b'"last":0.5', b'"last":-Infinity'),
    "UTF-16": lambda good: good.decode().encode("utf-16"),
    "a byte order mark": lambda good: b"\xef\xbb\xbf" + good,
    "Latin-1": lambda good: good.replace(b"digits/clean", b"digits/cl\xe9an"),
    "a zero byte": lambda good: good.replace(b"digits", b"dig\x00its"),
    "other ends of lines": lambda good: good.replace(b"\n", b"\r"),
    "nothing": lambda good: b"",
    "an empty line": lambda good: good + b"\n",
    "other digits": lambda good: good.replace(b"2026-01-02", "２０２６-01-02".encode()),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_a_batch_that_would_make_a_reader_fall_over(tmp_path: Path, case: str) -> None:
    good = records.seal(tmp_path / "good", "gce", [record()], control=None).read_bytes()
    path = _published(tmp_path, CONTENTS[case](good))
    with pytest.raises(BadFile, match=path.name):
        records.read_batch(path)
    assert len(records.read_results(tmp_path, "noisy")[1]) == 1
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "a.jsonl").write_bytes(CONTENTS[case](good))
    assert records.read_units(tmp_path / "units")[0] == []


def test_keys_that_stand_twice_are_not_canonical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = records.seal(tmp_path / "good", "gce", [record()], control=None).read_bytes()
    path = _published(tmp_path, good.replace(b'"last":0.5', b'"last":0.9,"last":0.5'))
    assert records.read_batch(path).records[0].metrics["last"] == 0.5, "the last one counts"
    assert any("not in the canonical form" in fault for fault in inspection.inspect(path))


def test_links_devices_and_pipes_are_not_read(tmp_path: Path) -> None:
    good = records.seal(tmp_path / "good", "gce", [record()], control=None)
    folder = tmp_path / "noisy" / "gce"
    folder.mkdir(parents=True)
    (folder / good.name).symlink_to(good)
    (folder / "aaaaaaaaaaaa.jsonl").symlink_to("/dev/zero")
    os.mkfifo(folder / "bbbbbbbbbbbb.jsonl")
    (folder / "cccccccccccc.jsonl").mkdir()
    (folder / "dddddddddddd.jsonl").symlink_to("dddddddddddd.jsonl")
    found, problems = records.read_results(tmp_path, "noisy")
    assert not found
    assert len(problems) == 5
    assert all("no plain file" in problem for problem in problems)
    assert records.read_units(folder)[0] == []


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = records.seal(tmp_path, "gce", [record()], control=None)
    monkeypatch.setattr(records, "LARGEST_FILE_BYTES", 100)
    with pytest.raises(BadFile, match="larger than"):
        records.read_batch(good)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * DEEP + "]" * DEEP,
        "version = " + "9" * 5000,
        "title = 'x'\ntitle = 'y'",
        "[metrics]\n[metrics]",
        "tracks = 3",
        "metrics = []",
        "tracks = {quick = 3}",
        "parts = [[1]]",
    ],
)
def test_a_suite_file_that_would_make_its_reader_fall_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("LOSSBOARD_ROOT", str(toy.make(tmp_path, text)))
    with pytest.raises(UsageError, match=r"suite\.toml"):
        protocol.load("toy")
    (tmp_path / "retracted").mkdir()
    (tmp_path / "retracted" / "a.toml").write_text(text)
    with pytest.raises(LossboardError, match=r"a\.toml"):
        records.retracted(tmp_path)


def test_formulas_and_sources_nested_beyond_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert markup.mathml(r"\frac{" * 3000) is None
    assert markup.mathml("{" * 3000 + "}" * 3000) is None
    (tmp_path / "deep.py").write_text("a = " + "-" * 5000 + "1")
    monkeypatch.syspath_prepend(str(tmp_path))
    source.cache_clear()
    assert source("deep") is None


# -- what no code of ours does -----------------------------------------------------------------------------------------

FORBIDDEN = {
    *("eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "dill.load"),
    *("shelve.open", "joblib.load", "pd.read_pickle", "pandas.read_pickle", "cloudpickle.load", "cloudpickle.loads"),
    *("yaml.load", "yaml.unsafe_load", "os.system", "torch.jit.load", "torch.package.PackageImporter"),
}
REQUIRED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def forbidden(tree: ast.AST) -> list[str]:
    """Calls of a module that run what they read."""
    found = []
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(node.func)
        given_ = {keyword.arg: keyword.value for keyword in node.keywords}
        key, value = REQUIRED.get(name, ("", None))
        if name in FORBIDDEN or (key and ast.unparse(given_.get(key, ast.Constant(None))) != str(value)):
            found.append(f"{ast.unparse(node)[:60]} (line {node.lineno})")
        if "shell" in given_ and ast.unparse(given_["shell"]) != "False":
            found.append(f"{ast.unparse(node)[:60]} (line {node.lineno})")
    return found


@pytest.mark.parametrize("folder", ["reference", "kernels", "lossboard", "suites", "benchmarks"])
def test_nothing_that_is_read_is_run(folder: str) -> None:
    wrong = {
        str(path.relative_to(CHECKOUT)): calls
        for path in sorted((CHECKOUT / folder).rglob("*.py"))
        if (calls := forbidden(ast.parse(path.read_text("utf-8"))))
    }
    assert not wrong


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "pickle.loads(data)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_rule_finds_what_it_is_for(line: str) -> None:
    assert forbidden(ast.parse(line))
    assert not forbidden(
        ast.parse("model.eval(); torch.load(path, weights_only=True); np.load(path, allow_pickle=False)")
    )
