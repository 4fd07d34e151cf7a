"""suite.toml: what is validated, what changes a task id and what does not, how budgets draw trials."""

from dataclasses import replace
from pathlib import Path

import pytest
import toy

from lossboard import protocol
from lossboard.errors import UsageError
from lossboard.protocol import Budget, Recipe
from reference.methods import Method, Range


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Load the toy suite with a part of its pins replaced."""
    count = iter(range(100))

    def loaded(old: str = "", new: str = "") -> protocol.Suite:
        assert old in toy.PINS
        root = toy.make(tmp_path / str(next(count)), toy.PINS.replace(old, new, 1) if old else toy.PINS)
        monkeypatch.setenv("LOSSBOARD_ROOT", str(root))
        return protocol.load("toy")

    return loaded


ANOTHER_TASK = """
[[tracks.quick.tasks]]
dataset = "digits"
corruption = "third"
split = "all"
model = "none"
recipe = "none"

[corruption.third]
kind = "third"

"""
WRONG = [  # what to write, in place of what, and what the message must say
    ("epochs = 1", "epoch = 1", r"\[recipe.none\]: unknown key 'epoch'; did you mean epochs\?"),
    ("epochs = 1\n", "", r"\[recipe.none\]: missing 'epochs'"),
    ("batch = 16", "batch = 20", "multiple of 16"),
    ("seeds = [0, 1, 2, 3, 4]", "seeds = [0, 1, 1]", r"seeds: \[1\] stand twice"),
    ("seeds = [0, 1, 2, 3, 4]", "seeds = [0.5]", "whole numbers"),
    ("seeds = [0, 1, 2, 3, 4]", "seeds = []", "whole numbers"),
    ('corruption = ["clean", "dirty"]', 'corruption = ["clean", "clean"]', "task 'digits/clean' stands twice"),
    ('corruption = ["clean", "dirty"]', 'corruption = "dirt"', r"no \[corruption.dirt\]; did you mean dirty\?"),
    ('dataset = "digits"', 'dataset = "digit"', "did you mean digits"),
    ('rank = "last"', 'rank = "lost"', "did you mean last"),
    ('name = "toy"', 'name = "tony"', "the folder is 'toy'"),
    ('title = "Toy"', 'titel = "Toy"', "unknown key 'titel'"),
    ("rates = [0.2]", "rates = [0.2]\ntrials = 3", "not both"),
    ("rates = [0.2]", "trials = 3", "0 < low < high"),
    ('kind = "random"', 'kind = "randm"', "did you mean random"),
    ("val = 0.2", "val = 0.9", "at most 1"),
    ("version = 1", "version = ", "suite.toml"),
    ('val = "score seen', 'error = "wrong"\nval = "score seen', "cannot be called 'error'"),
    ("version = 1", 'version = "one"', "version = 'one' must be int"),
    ("epochs = 1", "epochs = 1.5", "epochs = 1.5 must be int"),
    ("rate = 0.5", "rate = 1.5", "between 0 and 1"),
    ("lr = 0.1", "lr = nan", "lr = nan must be a number"),
    ("lr = 0.1", 'lr = 0.1\nmomentum = "0.9"', "momentum = '0.9' must be a number"),
    ("rates = [0.2]", 'rates = ["0.2"]', "must be a list of numbers"),
    ("rates = [0.2]", "rates = [0.2]\nsettings = 3", "settings = 3 must be a table: method -> list"),
    ('dataset = "digits"', 'dataset = "cifar10n"', "holds people's labels.*cifar10_jpeg"),
    ('dataset = "digits"', 'dataset = "wikitext2"', "'wikitext2' is a text: it has no classes"),
    ('kind = "random"', 'kind = "folds"', "'folds' keep the dataset's own test rows"),
    ("rates = [0.2]", "rates = [0.2, 0.2]", "one stands twice"),
    ("tolerance = 0.01", 'tolerance = "x"', "tolerance = 'x' must be a number"),
    (
        "[corruption.clean]",
        ANOTHER_TASK.replace('"third"', '"dirty"', 1) + "[corruption.clean]",
        "'digits/dirty' stands twice",
    ),
    ('dataset = "digits"', 'dataset = "digits"\ntags = "robust"', "tags: a list of texts"),
    ('dataset = "digits"', 'dataset = "digits"\nboard = "constant"', "board = 'constant': a name, and none of a kind"),
    (
        "[corruption.clean]",
        ANOTHER_TASK.replace('dataset = "digits"', 'dataset = "digits"\nwithout = ["slow"]') + "[corruption.clean]",
        "tasks of board 'constant' differ in kind, methods, tags or without",
    ),
    ("epochs = 1", "epochs = 1\nevery = 2", "every = 2: between 1 and 1"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_a_wrong_key_is_named(load, old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(old, new)
    assert "suite.toml" in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_suite_or_track_answers_with_the_nearest(load) -> None:
    suite = load()
    with pytest.raises(UsageError, match="did you mean toy"):
        protocol.load("toys")
    with pytest.raises(UsageError, match="did you mean quick"):
        suite.track("quik")


HARMLESS = [
    ("seeds = [0, 1, 2, 3, 4]", "seeds = [0, 1, 2, 3, 4, 5]"),
    ("[corruption.clean]", ANOTHER_TASK + "[corruption.clean]"),
    ('last = "score"', 'last = "score"\nextra = "another metric"'),
    ('rank = "last"', 'rank = "val"'),
    ("rates = [0.2]", "rates = [0.2, 0.3]"),
    ('summary = "seconds"', 'summary = "other words"'),
    ("lr = 0.1", "lr = 0.1\nmomentum = 0.9"),  # what the default says already
]
DECISIVE = [
    ("version = 1", "version = 2"),
    ("rate = 0.5", "rate = 0.25"),
    ("val = 0.2", "val = 0.25"),
    ("epochs = 1", "epochs = 2"),
    ("lr = 0.1", "lr = 0.1\nmomentum = 0.8"),
    ('kind = "none"', 'kind = "mlp"'),
]


def ids(suite: protocol.Suite) -> dict[str, str]:
    return {task.name: task.id for task in suite.tasks.values()}


@pytest.mark.parametrize(("old", "new"), HARMLESS)
def test_what_decides_no_number_changes_no_id(load, old: str, new: str) -> None:
    before = ids(load())
    assert before.items() <= ids(load(old, new)).items()


@pytest.mark.parametrize(("old", "new"), DECISIVE)
def test_what_decides_a_number_changes_the_id(load, old: str, new: str) -> None:
    before = ids(load())
    assert before["digits/dirty"] != ids(load(old, new))["digits/dirty"]


def test_the_task_ids_of_the_noisy_suite_are_what_records_were_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published records name these ids: code that changes them orphans every record."""
    monkeypatch.delenv("LOSSBOARD_ROOT", raising=False)
    known = ids(protocol.load("noisy"))
    assert {name: known[name] for name in PUBLISHED} == PUBLISHED


PUBLISHED = {
    "digits/class-0.1": "d0ac74e4f171",
    "digits/class-0.3": "925610cd6ff8",
    "digits/class-0.4": "0d9c44d3a1ff",
    "digits/clean": "e860f3814d36",
    "digits/uniform-0.3": "2cc486f8be06",
    "digits/uniform-0.6": "70cad666b43f",
    "digits/uniform-0.8": "2073e4978ab7",
}


def method(**search: Range) -> Method:
    return Method("mine", "loss", lambda: None, "tests", defaults=dict.fromkeys(search, 0.5), search=search)


def test_trial_zero_is_the_default_and_every_method_gets_as_many() -> None:
    recipe = Recipe(epochs=1, batch=16, lr=0.1)
    budget = Budget(trials=4, low=0.01, high=1.0)
    plain, tunable = budget.of(method(), recipe.lr), budget.of(method(q=Range(0.0, 1.0)), recipe.lr)
    assert len(plain) == len(tunable) == 5
    assert [trial["lr"] for trial in plain] == list(budget.learning_rates(recipe.lr, "mine"))
    assert plain[0] == {"lr": 0.1}
    assert tunable[0] == {"lr": 0.1, "q": 0.5}
    assert [trial["lr"] for trial in plain] == [trial["lr"] for trial in tunable], "the same learning rates for all"
    assert all(0.01 <= trial["lr"] <= 1 and 0 <= trial["q"] <= 1 for trial in tunable)
    assert [trial["q"] for trial in tunable[1:]] == pytest.approx([2 / 3, 1 / 9, 4 / 9, 7 / 9], abs=1e-4), (
        "Halton, base 3"
    )
    assert [trial["lr"] for trial in plain[1:]] == pytest.approx(
        [0.01**0.75, 0.01**0.25, 0.01**0.875, 0.01**0.375], rel=1e-3
    )


def test_the_sequence_is_scipys() -> None:
    from scipy.stats import qmc

    assert protocol._halton(7, 20) == [
        pytest.approx(row) for row in qmc.Halton(d=7, scramble=False).random(22)[2:].tolist()
    ]


def test_a_grid_of_learning_rates() -> None:
    trials = Budget(rates=(0.02, 0.5)).of(method(q=Range(0.0, 1.0)), 0.1)
    assert trials == ({"lr": 0.1, "q": 0.5}, {"lr": 0.02, "q": 0.5}, {"lr": 0.5, "q": 0.5})


def test_settings_are_tried_at_every_learning_rate_beside_the_defaults() -> None:
    budget = Budget(rates=(0.02,), settings={"mine": [{"q": 0.1}, {"q": 0.9}]})
    recipe = Recipe(epochs=1, batch=16, lr=0.1)
    trials = budget.of(method(q=Range(0.0, 1.0)), recipe.lr)
    assert [(t["lr"], t["q"]) for t in trials] == [
        (0.1, 0.5),
        (0.02, 0.5),
        (0.1, 0.1),
        (0.02, 0.1),
        (0.1, 0.9),
        (0.02, 0.9),
    ]
    assert list(budget.learning_rates(recipe.lr, "mine")) == [t["lr"] for t in trials]
    assert budget.learning_rates(recipe.lr, "other") == (0.1, 0.02)
    with pytest.raises(UsageError, match="settings of 'mine': unknown 'q'"):
        budget.of(method(), recipe.lr)


def test_a_track_may_be_for_some_methods_alone() -> None:
    suite = protocol.load("noisy")
    track = replace(suite.track("quick"), methods=("mine",))
    other = replace(method(), id="other")
    cells = suite.cells(track, {"mine": method(), "other": other}, [0])
    assert {cell.method for cell in cells} == {"mine"}
    with pytest.raises(UsageError, match="for these methods alone: mine"):
        suite.cells(track, {"other": other})


def test_a_block_may_be_for_methods_by_id_and_tag_and_have_its_board(load) -> None:
    board = 'dataset = "digits"\nboard = "few"\nmethods = ["mine"]\ntags = ["robust"]\nwithout = ["slow"]'
    both = ANOTHER_TASK.replace('dataset = "digits"', board) + "[corruption.clean]"
    suite = load("[corruption.clean]", both)
    track = suite.track("quick")
    assert [part.name for part in track.divisions] == ["quick-constant", "quick-few"]
    assert [part.title for part in track.divisions] == ["quick, constant", "quick, few"]
    plain = replace(method(), kind="constant")
    methods = {
        "mine": plain,
        "other": replace(plain, id="other"),
        "tagged": replace(plain, id="tagged", tags=("robust",)),
        "slow": replace(plain, id="slow", tags=("robust", "slow")),
    }
    everyone, few = ({c.method for c in suite.cells(part, methods, [0])} for part in track.divisions)
    assert everyone == methods.keys()
    assert few == {"mine", "tagged"}


def test_epochs_that_are_evaluated_end_with_the_last() -> None:
    recipe = Recipe(epochs=7, batch=16, lr=0.1, every=3)
    assert [epoch for epoch in range(7) if recipe.evaluates(epoch)] == [2, 5, 6]


def test_folds_cover_the_training_rows_and_share_their_noise() -> None:
    import torch

    from lossboard.problem import divided, stream

    split = protocol.Split("folds", val=0.2)
    parts = [divided(split, 30, 22, stream("unused"), fold) for fold in range(split.folds)]
    assert torch.equal(torch.cat([val for _, val, _ in parts]), torch.arange(22)), "in their order, each once"
    for train, val, test in parts:
        assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(22))
        assert torch.equal(test, torch.arange(22, 30))
    with pytest.raises(UsageError, match="number of folds"):
        protocol.Split("folds", val=0.3)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("constant", [1, 1, 1, 1]), ("step", [1, 1, 0.1, 0.01]), ("cosine", [1, 0.853553, 0.5, 0.146447])],
)
def test_schedules(schedule: str, factors: list[float]) -> None:
    recipe = Recipe(epochs=4, batch=16, lr=0.1, schedule=schedule)
    assert [recipe.factor(epoch) for epoch in range(4)] == pytest.approx(factors, abs=1e-6)


def test_seeds_must_be_the_tracks(load) -> None:
    suite = load()
    with pytest.raises(UsageError, match="no seed 9"):
        suite.cells(suite.track("quick"), {}, [9])
