"""The plain loop: its optimiser against torch's, augmentation, clipping, normalisation, mixed precision."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lossboard.errors import UsageError
from lossboard.fleet import fleet
from lossboard.problem import Problem, Run, stream
from lossboard.protocol import Recipe
from lossboard.train import augmented, train
from reference.methods import catalogue, find
from reference.models.weights import he_normal

CE = catalogue("loss")["ce"]
RECIPE = Recipe(epochs=2, batch=32, lr=0.05, weight_decay=1e-3, schedule="constant")


def pictures(count: int = 96, dtype: torch.dtype = torch.float64) -> Problem:
    """Random images whose brighter half names the class."""
    draw = stream("pictures")
    labels = torch.randint(2, (count,), generator=draw)
    x = torch.randn(count, 1, 8, 8, generator=draw, dtype=dtype)
    x[labels == 1, :, 4:] += 1
    rows = torch.arange(count).split(count // 3)
    return Problem(x, labels, *rows, 2, labels, torch.eye(2))


class Small(nn.Module):
    """A convolution with normalisation and a head."""

    def __init__(self, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(36, outputs)
        he_normal(self, generator)
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.first(x)).relu().flatten(1))  # type: ignore[no-any-return]


def by_hand(problem: Problem, run: Run, recipe: Recipe) -> list[torch.Tensor]:
    """The same training with torch's optimiser and clipping."""
    model = Small(2, run.stream("weights"))
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=run.params["lr"],
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
    order = run.stream("batches")
    for _ in range(recipe.epochs):
        for at in torch.randperm(len(problem.train), generator=order).view(-1, recipe.batch):
            rows = problem.train[at]
            loss = nn.functional.cross_entropy(model(problem.features[rows]), problem.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            if recipe.clip:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return [model(problem.features[problem.test])]


@pytest.mark.parametrize("change", [{}, {"nesterov": True}, {"clip": 0.01}, {"clip": 5.0, "nesterov": True}])
def test_the_optimiser_is_torchs(change: dict[str, float]) -> None:
    recipe, problem = replace(RECIPE, **change), pictures()
    run = Run(problem, {"lr": 0.05}, ("test",))
    (logits,) = by_hand(problem, run, recipe)
    outcome = train(CE, run, Small, recipe)
    nll = float(nn.functional.cross_entropy(logits, problem.labels[problem.test]))
    assert outcome.measured["nll"] == pytest.approx(nll, rel=1e-9)
    if change:
        assert outcome.measured["nll"] != pytest.approx(train(CE, run, Small, RECIPE).measured["nll"], rel=1e-6)


def test_augmented_images_are_shifted_and_mirrored() -> None:
    x = torch.arange(1.0, 65).view(1, 1, 8, 8).expand(400, 1, 8, 8)
    found = augmented(x, "crop-flip", stream("augment"))
    padded = nn.functional.pad(x[0, 0], (4, 4, 4, 4))
    crops = [padded[i : i + 8, j : j + 8] for i in range(9) for j in range(9)]
    wanted = torch.stack(crops + [crop.flip(1) for crop in crops])
    match = (found[:, None, 0] == wanted).flatten(2).all(2)
    assert (match.sum(1) == 1).all()
    assert match.any(0).float().mean() > 0.8, "all shifts, mirrored or not, occur"
    assert torch.equal(found, augmented(x, "crop-flip", stream("augment")))


def test_turned_images_keep_their_middle() -> None:
    x = torch.zeros(200, 1, 9, 9)
    x[..., 4, 4] = 1
    plain, turned = (augmented(x, kind, stream("augment")) for kind in ("crop-flip", "crop-flip-turn"))
    centred = plain[:, 0, 4, 4] == 1
    assert torch.allclose(turned[centred, 0, 4, 4], torch.ones(int(centred.sum())), atol=1e-5)
    bar = torch.zeros(200, 1, 33, 33)
    bar[..., 16, :] = 1
    mass = augmented(bar, "crop-flip-turn", stream("augment")).amax(3).squeeze()
    assert (mass > 0.2).sum(1).max() > 8, "a level bar stands over many rows once turned"


def test_augmentation_has_a_stream_of_its_own() -> None:
    run = Run(pictures(), {"lr": 0.05}, ("test",))
    plain, other = (train(CE, run, Small, replace(RECIPE, augment=kind)) for kind in ("", "crop-flip"))
    assert plain.bits != other.bits
    assert train(CE, run, Small, replace(RECIPE, augment="crop-flip")).bits == other.bits


def test_a_second_gradient_leaves_the_running_statistics() -> None:
    """At radius 0 the perturbed weights are the weights: all must be as without."""
    problem = pictures()
    sam = find(catalogue("loss"), "sam")
    plain = train(CE, Run(problem, {"lr": 0.05}, ("test",)), Small, RECIPE)
    still = train(sam, Run(problem, {"lr": 0.05, "rho": 0.0}, ("test",)), Small, RECIPE)
    assert still.measured["nll"] == pytest.approx(plain.measured["nll"], rel=1e-9)


def test_mixed_precision_is_asked_for_and_changes_numbers() -> None:
    run = Run(pictures(dtype=torch.float32), {"lr": 0.05}, ("test",))

    def network(outputs: int, generator: torch.Generator) -> nn.Module:
        return Small(outputs, generator).float()

    exact, mixed = (train(CE, run, network, replace(RECIPE, precision=p)) for p in ("float32", "bfloat16"))
    assert mixed.status == "ok"
    assert mixed.bits != exact.bits
    assert mixed.measured["nll"] == pytest.approx(exact.measured["nll"], rel=0.1)


@pytest.mark.parametrize("change", [{"nesterov": True}, {"clip": 1.0}, {"augment": "crop-flip"}])
def test_fleets_refuse_what_only_single_networks_have(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="for convolutional networks"):
        fleet(CE, [], [7], replace(RECIPE, **change))  # type: ignore[arg-type]
