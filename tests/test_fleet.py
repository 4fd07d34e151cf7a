"""Fleets are held to the plain loop, and every run to itself: the same bits alone, in any slot, in any company."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lossboard import compiler, native
from lossboard.errors import UsageError
from lossboard.fleet import Layout, fleet
from lossboard.problem import Problem, Run, observed, stream
from lossboard.protocol import Recipe
from lossboard.step import forward
from lossboard.train import train
from reference.methods import Memory, Method, MethodError, catalogue
from reference.models.mlp import MLP

RECIPE = Recipe(epochs=3, batch=32, lr=0.1, weight_decay=1e-4)
SHAPES = [(9, 7, 7), (10, 10, 11), (43, 7, 7), (180, 3, 10), (16, 16, 26), (64, 10, 10)]  # features, hidden, classes


def problem(features: int, classes: int, seed: int, dtype: torch.dtype = torch.float32, train: int = 150) -> Problem:
    """Blobs with a tenth of the labels redrawn; features shared by all seeds, as in a suite."""
    draw = stream("blobs", features, classes)
    labels = torch.randint(0, classes, (250,), generator=draw)
    centres = torch.randn(classes, features, generator=draw)
    x = (centres[labels] + 0.7 * torch.randn(250, features, generator=draw)).to(dtype)
    own = stream("split", seed)
    order = torch.randperm(250, generator=own)
    noisy = torch.where(torch.rand(250, generator=own) < 0.1, torch.randint(0, classes, (250,), generator=own), labels)
    train_rows, val_rows, test_rows = order.split((train, 50, 250 - 50 - train))
    given = torch.where(torch.isin(torch.arange(250), test_rows), labels, noisy)
    matrix = observed(labels[train_rows], given[train_rows], classes)
    return Problem(x, given, train_rows, val_rows, test_rows, classes, labels, matrix)


def runs_of(method: Method, features: int, classes: int, count: int) -> list[Run]:
    """Runs that differ in data, weights, order, learning rate and hyperparameters."""
    made = []
    for i in range(count):
        params = {key: space.at((i % 5 + 0.5) / 5) for key, space in method.search.items()}
        made.append(
            Run(problem(features, classes, i), {"lr": 0.05 * (1 + i % 3), **method.defaults, **params}, ("test", i))
        )
    return made


LOSSES = {**catalogue("loss"), **catalogue("calibration")}
EVERY = sorted(LOSSES)
FEW = ["ce", "gce", "aldr", "tgce", "nce_rce"]


def held_to_itself(
    method: Method, shape: tuple[int, int, int], *, slots: Iterable[int] = range(40), compiles: bool = False
) -> None:
    """A run has the same bits and metrics alone, in its slot of a fleet of 40, and in other company."""
    features, hidden, classes = shape
    runs = runs_of(method, features, classes, 40)
    together = fleet(method, runs, [hidden, hidden], RECIPE, compiles=compiles)
    some = list(range(39, 22, -3))
    backwards = fleet(method, [runs[slot] for slot in some], [hidden, hidden], RECIPE, compiles=compiles)
    assert [one.bits for one in backwards] == [together[slot].bits for slot in some]
    for slot in slots:
        (alone,) = fleet(method, [runs[slot]], [hidden, hidden], RECIPE, compiles=compiles)
        assert alone.bits == together[slot].bits, slot
        assert str(alone.metrics()) == str(together[slot].metrics()), slot
    assert len({outcome.bits for outcome in together}) == 40, "the runs do differ"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FEW)
def test_a_run_has_the_same_bits_alone_and_in_every_slot(name: str, shape: tuple[int, int, int]) -> None:
    held_to_itself(LOSSES[name], shape)


@pytest.mark.parametrize("name", EVERY)
def test_every_method_has_the_same_bits_alone_and_in_a_fleet_of_40(name: str) -> None:
    held_to_itself(LOSSES[name], (10, 10, 11), slots=(0, 39))


@pytest.mark.skipif(not compiler.available(), reason="no C++ compiler")
@pytest.mark.parametrize("name", ["ce", "aldr", "mixup"])
def test_compiled_fleets_have_the_same_bits_in_any_company_too(name: str) -> None:
    held_to_itself(LOSSES[name], (10, 10, 11), slots=(0, 18, 39), compiles=True)


@pytest.mark.skipif(not compiler.available(), reason="no C++ compiler")
def test_compiled_fleets_that_differ_in_rows_alone_have_a_graph_each() -> None:
    """Compiled steps do not look at their arguments' shapes."""
    method = LOSSES["ce"]
    sizes = [[Run(problem(9, 7, 0, train=train), {"lr": 0.1}, ("test",))] for train in (150, 100, 40)]
    forth, back = ([fleet(method, runs, [7], RECIPE, compiles=True) for runs in s] for s in (sizes, sizes[::-1]))
    for (one,), (other,) in zip(forth, back[::-1], strict=True):
        assert (one.bits, one.val, one.test) == (other.bits, other.val, other.test)


@pytest.mark.skipif(not compiler.available(), reason="no C++ compiler")
@pytest.mark.parametrize("name", ["ce", "nce_rce", "tgce", "sam"])
def test_compiled_and_eager_fleets_agree_to_rounding(name: str) -> None:
    method = LOSSES[name]
    runs = runs_of(method, 9, 7, 3)
    eager, made = (fleet(method, runs, [7, 7], RECIPE, compiles=compiles) for compiles in (False, True))
    for one, other in zip(eager, made, strict=True):
        assert one.metrics() == pytest.approx(other.metrics(), abs=0.02)
        assert one.measured["nll"] == pytest.approx(other.measured["nll"], rel=1e-3)


@pytest.mark.parametrize("name", EVERY)
def test_a_fleet_does_what_the_plain_loop_does(name: str) -> None:
    """In float64, so that three epochs of rounding stay far below what a label hangs on."""
    method = LOSSES[name]
    runs = [
        Run(problem(9, 7, i, torch.float64), {"lr": 0.05 * (1 + i), **method.defaults}, ("test", i)) for i in range(3)
    ]

    def network(outputs: int, generator: torch.Generator) -> MLP:
        return MLP(9, [7, 7], outputs, generator).double()

    for one, run in zip(fleet(method, runs, [7, 7], RECIPE), runs, strict=True):
        plain = train(method, run, network, RECIPE)
        assert one.val == plain.val
        assert one.test == plain.test
        assert one.measured == pytest.approx(dict(plain.measured), rel=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_own_kernels_do_what_torch_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained parameters and outputs, to the rounding of 12 steps in float32; that no method is left to torch here.

    Some methods magnify rounding: soft comparisons at a small temperature, an inverted transition. They may be as far
    off as torch moves when the inputs are moved by as much as float32 rounds off.
    """
    method = LOSSES[name]
    runs = runs_of(method, 10, 11, 3)
    features = runs[0].problem.features
    found = trained_on(method, runs, features, monkeypatch, own=True)
    torchs = trained_on(method, runs, features, monkeypatch, own=False)
    allowed = [1e-3 + 1e-3 * values.abs() for values in torchs]
    if any(((a - b).abs() > most).any() for a, b, most in zip(found, torchs, allowed, strict=True)):
        noise = stream("rounding")
        for _ in range(5):
            moved = features * (1 + 2**-23 * torch.randn(features.shape, generator=noise))
            other = trained_on(method, runs, moved, monkeypatch, own=False)
            allowed = [
                most.clamp(min=3 * float((a - b).abs().max()))
                for a, b, most in zip(other, torchs, allowed, strict=True)
            ]
    for mine, values, most in zip(found, torchs, allowed, strict=True):
        assert ((mine - values).abs() <= most).all()


def trained_on(
    method: Method, runs: list[Run], features: Tensor, monkeypatch: pytest.MonkeyPatch, *, own: bool
) -> list[Tensor]:
    """Parameters, predictions and scores of the second run after three epochs, on own kernels or on torch."""
    from lossboard.fleet import _State

    monkeypatch.setattr(native, "usable", lambda features: own)
    there = [replace(run, problem=replace(run.problem, features=features)) for run in runs]
    state = _State(method, there, [10, 12], RECIPE, torch.device("cpu"), False)
    assert isinstance(getattr(state.advance, "__self__", None), native.NativeStep) == own
    for epoch in range(3):
        state.epoch(epoch)
    return [*state.parameters(1), state.predictions("test", 1), torch.stack(state.evaluate())]


def test_trained_parameters_equal_the_plain_loop_to_rounding() -> None:
    """The forward pass of stacked networks against the module, in float64."""
    models = [MLP(9, [7, 7], 7, stream("weights", i)).double() for i in range(4)]
    layout = Layout.of(9, [7, 7], 7)
    layers = layout.stacked(models)
    x = torch.randn(4, 5, 9, dtype=torch.float64, generator=stream("x"))
    stacked = forward(layers, x.transpose(1, 2)).transpose(1, 2)
    for r, model in enumerate(models):
        torch.testing.assert_close(stacked[r], model(x[r]), rtol=1e-13, atol=1e-14)
        for mine, theirs in zip(layout.parameters(layers, r), model.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_padding_stays_zero() -> None:
    method = LOSSES["ce"]
    from lossboard.fleet import _State

    state = _State(method, runs_of(method, 9, 7, 3), [7, 7], RECIPE, torch.device("cpu"), False)
    state.epoch(0)
    widths = state.layout.widths
    for i, layer in enumerate(state.weights):
        out, features = widths[i // 2 + 1], widths[i // 2]
        inside = torch.zeros_like(layer, dtype=torch.bool)
        inside[(slice(None), slice(out)) if i % 2 else (slice(None), slice(out), slice(features))] = True
        assert layer[inside].ne(0).float().mean() > 0.9
        assert layer[~inside].eq(0).all()


def a_method(function, **declared) -> Method:
    plain = {"id": "mine", "kind": "loss", "module": "tests", "defaults": {}, "search": {}}
    return Method(function=function, **(plain | declared))


def test_draws_come_from_each_runs_own_stream() -> None:
    def noisy_ce(logits: Tensor, target: Tensor, *, draws: Tensor) -> Tensor:
        return draws[:, 0] * torch.logsumexp(logits, -1) - draws[:, 1] * logits.gather(-1, target[:, None])[:, 0]

    method = a_method(noisy_ce, supplied=("draws",), draws=2)
    runs = runs_of(LOSSES["ce"], 9, 7, 6)
    together = fleet(method, runs, [7], RECIPE)
    assert [fleet(method, [run], [7], RECIPE)[0].bits for run in runs] == [outcome.bits for outcome in together]
    plain = train(method, runs[2], lambda outputs, generator: MLP(9, [7], outputs, generator), RECIPE)
    assert plain.test[-1] == pytest.approx(together[2].test[-1], abs=0.03)


def test_memory_for_each_class_and_progress_reach_the_loss() -> None:
    def averaging(logits: Tensor, target: Tensor, *, state: Tensor, progress: Tensor) -> tuple[Tensor, Tensor]:
        new = 0.5 * state + 0.5 * torch.softmax(logits, -1).detach()
        values = -torch.log_softmax(logits, -1).gather(-1, target[:, None])[:, 0]
        return values + progress * (new * logits).sum(-1), new

    method = a_method(averaging, supplied=("state", "progress"), memory=Memory(0.1, per_class=True))
    runs = [Run(problem(9, 7, i, torch.float64), {"lr": 0.1}, ("test", i)) for i in range(3)]
    for one, run in zip(fleet(method, runs, [7], RECIPE), runs, strict=True):
        assert (
            one.val
            == train(method, run, lambda outputs, generator: MLP(9, [7], outputs, generator).double(), RECIPE).val
        )


def test_a_batchwise_loss_trains() -> None:
    def squared_mean(logits: Tensor, target: Tensor) -> Tensor:
        return torch.logsumexp(logits, -1).sub(logits.gather(-1, target[:, None])[:, 0]).mean() ** 2

    runs = runs_of(LOSSES["ce"], 9, 7, 4)
    method = a_method(squared_mean, batchwise=True)
    together = fleet(method, runs, [7], RECIPE)
    assert fleet(method, runs[2:3], [7], RECIPE)[0].bits == together[2].bits
    assert together[2].test[-1] > 0.5


def test_a_wrong_shape_names_the_loss() -> None:
    method = a_method(lambda logits, target: logits)
    runs = runs_of(LOSSES["ce"], 9, 7, 2)
    with pytest.raises(MethodError, match=r"loss 'mine' returned shape \(32, 7\) for 32 samples, expected \(32,\)"):
        fleet(method, runs, [7], RECIPE)
    with pytest.raises(MethodError, match="returned shape"):
        train(method, runs[0], lambda outputs, generator: MLP(9, [7], outputs, generator), RECIPE)


def test_one_diverged_run_leaves_the_others_alone() -> None:
    def explode(logits: Tensor, target: Tensor, *, scale: Tensor | float = 1.0) -> Tensor:
        return scale * (torch.logsumexp(logits, -1) - logits.gather(-1, target[:, None])[:, 0])

    method = a_method(explode, defaults={"scale": 1.0})
    runs = [
        Run(problem(9, 7, i), {"lr": 0.1, "scale": scale}, ("test", i))
        for i, scale in enumerate((1.0, float("nan"), 1.0))
    ]
    first, broken, last = fleet(method, runs, [7], RECIPE)
    assert broken.status == "diverged"
    assert broken.metrics() == {}
    assert (first.status, last.status) == ("ok", "ok")
    assert fleet(method, runs[2:], [7], RECIPE)[0].bits == last.bits


def test_fewer_rows_than_sixteen_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 16"):
        fleet(LOSSES["ce"], [Run(problem(9, 7, 0, train=15), {"lr": 0.1}, ("test", 0))], [7], RECIPE)


def test_fewer_rows_than_a_batch() -> None:
    method = LOSSES["ce"]
    run = Run(problem(9, 7, 0, train=20), {"lr": 0.1}, ("test", 0))
    (outcome,) = fleet(method, [run], [7], RECIPE)
    assert outcome.status == "ok"
    assert outcome.val == train(method, run, lambda outputs, generator: MLP(9, [7], outputs, generator), RECIPE).val


def test_metrics_of_an_outcome() -> None:
    from lossboard.problem import Outcome

    metrics: Mapping[str, float] = Outcome("ok", (0.5, 0.9, 0.9, 0.7), (0.1, 0.2, 0.8, 0.3), "", 0.0).metrics()
    assert metrics == {"last": 0.3, "val": 0.7, "best_val": 0.2, "oracle": 0.8}
