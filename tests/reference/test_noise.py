"""Label noise: rates and transitions against draws, the class maps, and what is refused."""

import math

import pytest
import torch
from scipy import stats

from lossboard.data import pins
from lossboard.protocol import Corruption
from reference.noise import KINDS, TRANSITIONS, corrupt, human, instance, transition
from reference.noise.maps import cycles
from reference.noise.superclasses import CIFAR100

CLASSES = 26
SAMPLES = 26_000
RATES = (0.1, 0.4, 0.9)
NOT_DRAWN = ("clean", *(kind for kind in KINDS if Corruption(kind).people))
every_kind = pytest.mark.parametrize("kind", KINDS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def labels_of(classes=CLASSES, n=SAMPLES):
    return torch.randint(classes, (n,), generator=seeded(99))


def noisy(kind, labels, rate, dataset="letter", classes=CLASSES, seed=0, **given):
    if kind == "asymmetric_apl" and dataset == "letter":
        dataset = "cifar10"
    return corrupt(kind, labels, classes, rate=rate, dataset=dataset, generator=seeded(seed), **given)


def features_of(labels, d=8):
    return torch.randn(len(labels), d, generator=seeded(7))


def counts(labels, changed, classes):
    """How often each clean class (row) became each class (column)."""
    return torch.bincount(labels * classes + changed, minlength=classes**2).reshape(classes, classes)


def near(observed, p, n, sigmas=5.5):
    """Whether a binomial frequency is that of p; 5.5 sigmas leave one false alarm in 1e7."""
    return abs(observed - p) <= sigmas * math.sqrt(p * (1 - p) / n) + 1e-12


@every_kind
def test_labels_are_new_and_the_seed_decides(kind):
    labels = labels_of()
    before, given = labels.clone(), {"features": features_of(labels), "people": (labels + 1) % CLASSES}
    first, second, other = (noisy(kind, labels, 0.4, seed=seed, **given) for seed in (0, 0, 1))
    assert torch.equal(labels, before)
    assert torch.equal(first, second)
    assert first.data_ptr() != labels.data_ptr()
    assert first.dtype == torch.int64
    assert (first >= 0).all()
    assert (first < CLASSES).all()
    assert torch.equal(first, other) == (kind in NOT_DRAWN)


@every_kind
def test_global_random_state_is_left_alone(kind):
    state, labels = torch.get_rng_state(), labels_of(n=100)
    noisy(kind, labels, 0.4, features=features_of(labels), people=labels)
    assert torch.equal(torch.get_rng_state(), state)


@every_kind
def test_rate_zero_changes_nothing(kind):
    labels = labels_of()
    assert torch.equal(noisy(kind, labels, 0.0, features=features_of(labels)), labels)


# A data set for each branch of a kind.
DRAWS = [(kind, "satimage") for kind in TRANSITIONS if kind != "asymmetric_apl"]
DRAWS += [("class_dependent", "letter"), ("class_dependent", "shuttle"), ("class_dependent", "dna")]
DRAWS += [("asymmetric", name) for name in ("letter", "mnist", "usps", "cifar10", "cifar10_jpeg", "cifar100")]
DRAWS += [("asymmetric_apl", name) for name in ("cifar10", "cifar10_jpeg", "cifar100")]
CLASSES_OF = {"letter": 26, "shuttle": 7, "dna": 3, "satimage": 6, "cifar100": 100}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("kind", "dataset"), DRAWS)
def test_transition_matrix_is_that_of_the_draws(kind, dataset, rate):
    classes = CLASSES_OF.get(dataset, 10)
    labels = labels_of(classes)
    expected = transition(kind, classes, rate, dataset)
    torch.testing.assert_close(expected.sum(1), torch.ones(classes, dtype=torch.float64))
    observed = counts(labels, noisy(kind, labels, rate, dataset, classes), classes)
    for y in range(classes):
        n = int(observed[y].sum())
        for k in range(classes):
            # Counts are exact where they are rounded down, which costs up to one sample.
            p = min(max(expected[y, k].item(), 0.0), 1.0)
            assert near(observed[y, k] / n, p, n) or abs(observed[y, k] - n * p) <= 1


@pytest.mark.parametrize(
    ("kind", "effective"),
    [("clean", 0), ("uniform_ldr", 0.4 * 25 / 26), ("symmetric", 0.4), ("class_dependent", 0.4 * 20 / 26)],
)
def test_effective_rate_on_letters(kind, effective):
    """Six letters have no partner in class-dependent noise; uniform noise may draw the label itself."""
    labels = torch.arange(CLASSES).repeat(1000)
    changed = (noisy(kind, labels, 0.4) != labels).double().mean()
    assert near(changed.item(), effective, len(labels))


def test_symmetric_noise_is_exact_in_each_class():
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([100, 7, 1, 0]))
    changed = noisy("symmetric", labels, 0.29, classes=4)
    flips = [int((changed[labels == y] != y).sum()) for y in range(4)]
    assert flips == [29, 2, 0, 0]
    assert torch.equal(noisy("symmetric", labels, 1.0, classes=4) == labels, torch.zeros(108, dtype=torch.bool))


def test_symmetric_noise_is_uniform_over_the_other_classes():
    labels = torch.zeros(20_000, dtype=torch.long)
    changed = noisy("symmetric", labels, 0.5, classes=5)
    assert stats.chisquare(torch.bincount(changed, minlength=5)[1:]).pvalue > 1e-6


def test_cifar10_noise_is_exact_and_from_the_clean_labels():
    labels = torch.arange(10).repeat(101)
    observed = counts(labels, noisy("asymmetric", labels, 0.3, "cifar10", 10), 10)
    for source, mistaken in {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}.items():
        assert observed[source, mistaken] == 30
        assert observed[source, source] == 71
    for untouched in (0, 1, 6, 7, 8):
        assert observed[untouched, untouched] == 101


def test_flips_in_place_can_be_undone():
    """The released code makes some cats dogs, and then flips dogs, those cats among them."""
    labels = torch.arange(10).repeat(1000)
    clean, code = (noisy(kind, labels, 0.4, "cifar10", 10) for kind in ("asymmetric", "asymmetric_apl"))
    assert counts(labels, clean, 10)[3].tolist() == [0, 0, 0, 600, 0, 400, 0, 0, 0, 0]
    found = counts(labels, code, 10)
    assert found[3, 3] + found[3, 5] == 1000
    assert near(found[3, 3].item() / 1000, 1 - 0.4 + 0.4**2, 1000)
    assert found[5, 3] + (400 - found[3, 5]) == int(0.4 * 1400)  # drawn from dogs and 400 cats
    assert [int(found[source, source]) for source in (9, 2, 4)] == [600] * 3


def test_cycles():
    assert cycles((0, 1, 2), (3, 4)) == {0: 1, 1: 2, 2: 0, 3: 4, 4: 3}


def test_superclasses_are_twenty_of_five():
    assert len(CIFAR100) == 20
    assert all(len(group) == 5 and list(group) == sorted(group) for group in CIFAR100)
    assert sorted(fine for group in CIFAR100 for fine in group) == list(range(100))


# Members of superclasses by name, as the data set's authors list them, one line for each superclass.
MEMBERS = """beaver dolphin otter seal whale
aquarium_fish flatfish ray shark trout
orchid poppy rose sunflower tulip
bottle bowl can cup plate
apple mushroom orange pear sweet_pepper
clock keyboard lamp telephone television
bed chair couch table wardrobe
bee beetle butterfly caterpillar cockroach
bear leopard lion tiger wolf
bridge castle house road skyscraper
cloud forest mountain plain sea
camel cattle chimpanzee elephant kangaroo
fox porcupine possum raccoon skunk
crab lobster snail spider worm
baby boy girl man woman
crocodile dinosaur lizard snake turtle
hamster mouse rabbit shrew squirrel
maple_tree oak_tree palm_tree pine_tree willow_tree
bicycle bus motorcycle pickup_truck train
lawn_mower rocket streetcar tank tractor"""


def test_superclasses_by_name():
    """The classes are numbered alphabetically, so that names give the numbers."""
    names = sorted(MEMBERS.split())
    assert tuple(tuple(names.index(name) for name in line.split()) for line in MEMBERS.splitlines()) == CIFAR100
    assert tuple(names) == pins()["cifar100"].class_names


def test_cifar100_noise_stays_in_its_group():
    labels = torch.arange(100).repeat(30)
    for kind, groups in (
        ("asymmetric", CIFAR100),
        ("asymmetric_apl", [range(first, first + 5) for first in range(0, 100, 5)]),
    ):
        changed = noisy(kind, labels, 0.5, "cifar100", 100)
        group_of = {fine: number for number, group in enumerate(groups) for fine in group}
        assert [group_of[y] for y in changed.tolist()] == [group_of[y] for y in labels.tolist()]
        assert not torch.equal(changed, labels)


# At rate 1 every label goes where its class is sent.
LETTERS = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "ADGBFECNLJXIWHQROPSTVUMKYZ", strict=True))
MAPS = [
    ("class_dependent", "letter", [ord(LETTERS[a]) - 65 for a in LETTERS]),
    ("class_dependent", "vowel", [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 10]),
    ("class_dependent", "news20", [0, 1, 5, 4, 3, 2, 6, 8, 7, 10, 9, 12, 11, 13, 14, 18, 16, 17, 15, 19]),
    *(("class_dependent", name, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]) for name in ("usps", "mnist", "fashion_mnist")),
    ("class_dependent", "shuttle", [1, 2, 3, 4, 5, 6, 0]),
    ("class_dependent", "dna", [1, 2, 0]),
    ("class_dependent", "cifar100", [*range(1, 100), 0]),
    *(("asymmetric", name, [0, 1, 7, 8, 4, 6, 5, 1, 8, 9]) for name in ("mnist", "usps", "pendigits", "digits")),
    *(("asymmetric", name, [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]) for name in ("cifar10", "cifar10_jpeg")),
    ("asymmetric", "fashion_mnist", [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]),
    ("asymmetric", "satimage", [1, 2, 3, 4, 5, 0]),
    ("asymmetric", "vowel", [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 10]),
    ("asymmetric_apl", "cifar100", [5 * (y // 5) + (y + 1) % 5 for y in range(100)]),
]


@pytest.mark.parametrize(("kind", "dataset", "expected"), MAPS, ids=[f"{kind}-{dataset}" for kind, dataset, _ in MAPS])
def test_class_map(kind, dataset, expected):
    labels = torch.arange(len(expected)).repeat(3)
    assert noisy(kind, labels, 1.0, dataset, len(expected)).tolist() == expected * 3


@pytest.mark.parametrize(("dataset", "classes"), [("letter", 26), ("vowel", 11), ("news20", 20)])
def test_swaps_are_involutions(dataset, classes):
    swap = transition("class_dependent", classes, 1.0, dataset)
    assert torch.equal(swap @ swap, torch.eye(classes, dtype=torch.float64))
    assert not torch.equal(swap, torch.eye(classes, dtype=torch.float64))


# -- instance-dependent noise -----------------------------------------------------------------------------------------


def test_instance_rates_are_truncated_normal():
    for rate in (0.05, 0.3, 0.95):
        found = instance.own_rates(rate, 20_000, seeded())
        expected = stats.truncnorm(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1)
        assert stats.kstest(found.numpy(), expected.cdf).pvalue > 1e-6


def test_instance_noise_has_its_rate():
    labels = labels_of()
    changed = noisy("instance", labels, 0.3, features=features_of(labels))
    assert near((changed != labels).double().mean().item(), 0.3, SAMPLES)


def test_instance_noise_without_signal_is_uniform_over_the_other_classes():
    labels = torch.full((20_000,), 2)
    changed = noisy("instance", labels, 0.5, classes=5, features=torch.zeros(20_000, 3))
    found = torch.bincount(changed, minlength=5)
    assert stats.chisquare(found[[0, 1, 3, 4]]).pvalue > 1e-6


def test_instance_noise_depends_on_the_features():
    """Far from the origin one class wins: equal samples are mistaken for the same class, opposite ones for another."""
    point = 100 * torch.randn(6, generator=seeded(3))
    labels = torch.zeros(400, dtype=torch.long)
    changed = noisy("instance", labels, 0.5, classes=5, features=torch.stack([point, -point]).repeat_interleave(200, 0))
    here, there = changed[:200].unique(), changed[200:].unique()
    assert len(here) == len(there) == 2  # the label itself and one other
    assert not torch.equal(here, there)


def test_a_class_without_probability_is_never_drawn():
    p = torch.tensor([[0, 0.5, 0.5, 0]], dtype=torch.float64).expand(4, 4)
    place = torch.tensor([0, 0.49, 0.5, 1 - 2**-24])
    assert instance.drawn(p, place).tolist() == [1, 1, 2, 2]


def test_instance_noise_does_not_depend_on_the_chunks(monkeypatch):
    labels, features = labels_of(n=500), features_of(labels_of(n=500))
    whole = noisy("instance", labels, 0.4, features=features)
    monkeypatch.setattr(instance, "CHUNK_ROWS", 7)
    assert torch.equal(noisy("instance", labels, 0.4, features=features), whole)


def test_instance_noise_takes_images():
    labels, features = labels_of(n=50), features_of(labels_of(n=50), d=12)
    images = features.reshape(50, 3, 2, 2)
    assert torch.equal(
        noisy("instance", labels, 0.4, features=images), noisy("instance", labels, 0.4, features=features)
    )


def test_instance_noise_does_not_depend_on_the_type_of_the_features():
    labels = labels_of(n=500)
    features = features_of(labels)
    whole = noisy("instance", labels, 0.4, features=features)
    assert torch.equal(noisy("instance", labels, 0.4, features=features.double()), whole)


# -- the labels of people ----------------------------------------------------------------------------------------------


def test_people_are_taken_at_their_word():
    labels = labels_of(10)
    said = (labels + 3) % 10
    for name in human.SETS:
        assert torch.equal(corrupt(f"human_{name}", labels, 10, rate=0.4, **ANYWHERE, people=said), said)
        assert torch.equal(corrupt(f"human_{name}", labels, 10, rate=0.0, **ANYWHERE, people=said), labels)
    assert [Corruption(kind).people for kind in ("human_worst", "clean")] == ["worst", None]


ANYWHERE = {"dataset": "cifar10", "generator": seeded()}

# -- refusals ---------------------------------------------------------------------------------------------------------

REFUSED = [
    ("gaussian", {}, "no kind of label noise 'gaussian'; there are: asymmetric, asymmetric_apl, class_dependent, "),
    ("symmetric", {"rate": 1.1}, "between 0 and 1, found 1.1"),
    ("symmetric", {"rate": -0.1}, "between 0 and 1, found -0.1"),
    ("symmetric", {"rate": math.nan}, "between 0 and 1, found nan"),
    ("symmetric", {"classes": 4}, r"labels must be in 0..3, found \[4\]"),
    ("clean", {"labels": torch.tensor([0, -1])}, r"labels must be in 0..4, found \[-1\]"),
    ("uniform_ldr", {"classes": 1}, "at least 2 classes, found 1"),
    ("instance", {}, "needs features"),
    ("instance", {"features": torch.zeros(3, 2)}, "3 rows of features for 5 labels"),
    ("asymmetric_apl", {"dataset": "usps"}, "for cifar10 and cifar100; use 'asymmetric' for 'usps'"),
    ("asymmetric_apl", {"dataset": "cifar100"}, "class map of 'cifar100' names class 99, but there are 5 classes"),
    ("human_worst", {}, "labels of people must be given"),
    ("human_worst", {"people": torch.zeros(4, dtype=torch.long)}, "4 labels of people for 5 labels"),
    ("human_worst", {"people": torch.tensor([0, 1, 2, 3, 5])}, r"labels must be in 0..4, found \[5\]"),
    ("asymmetric", {"dataset": "mnist"}, "class map of 'mnist' names class 8, but there are 5 classes"),
    ("class_dependent", {"dataset": "letter"}, "class map of 'letter' names class 23, but there are 5 classes"),
]


@pytest.mark.parametrize(("kind", "given", "message"), REFUSED)
def test_refused(kind, given, message):
    request = {"labels": torch.arange(5), "classes": 5, "rate": 0.3, "dataset": "vowel", "generator": seeded(), **given}
    with pytest.raises(ValueError, match=message):
        corrupt(kind, **request)


def test_noise_of_each_sample_has_no_transition_matrix():
    for kind in ("instance", "human_worst"):
        with pytest.raises(ValueError, match="depends on the sample: it has no transition matrix"):
            transition(kind, 5, 0.3, "vowel")
    with pytest.raises(ValueError, match="no kind of label noise"):
        transition("gaussian", 5, 0.3, "vowel")
