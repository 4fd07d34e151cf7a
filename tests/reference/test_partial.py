"""Which labels are seen: counts, independence of what is not to matter, and repeatability."""

import pytest
import torch

from reference.partial import KINDS, observed


def labels(n=4000, count=6, share=0.3):
    found = (torch.rand(n, count, generator=torch.Generator().manual_seed(5)) < share).to(torch.int8)
    found[:3], found[3] = 0, 1
    return found


def seen(kind, y, rate=0.0, seed=0):
    return observed(kind, y, rate=rate, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind):
    y = labels()
    before = y.clone()
    first = seen(kind, y, 0.4)
    assert torch.equal(first, seen(kind, y, 0.4))
    assert torch.equal(y, before)
    assert (first.dtype, first.shape) == (y.dtype, y.shape)
    assert set(first.unique().tolist()) <= {0, 1}
    assert torch.equal(first, seen(kind, y, 0.4, seed=1)) == (kind == "everything")


def test_a_single_positive_is_one_of_the_row():
    y = labels()
    one = seen("single_positive", y)
    assert torch.equal(one.sum(-1), (y.sum(-1) > 0).long())
    assert (one <= y).all()


def test_a_single_positive_is_uniform():
    """Of rows with the same three labels each is chosen in a third, within 5 standard deviations."""
    y = torch.tensor([[1, 0, 1, 1]]).repeat(9000, 1)
    counts = seen("single_positive", y).sum(0)
    assert counts[1] == 0
    assert ((counts[[0, 2, 3]] - 3000).abs() < 5 * (9000 * 2 / 9) ** 0.5).all()


def test_random_entries_hide_at_the_rate():
    y = labels()
    for rate in (0.0, 0.25, 0.9, 1.0):
        shown = seen("random_entries", y, rate)
        for part in (0, 1):
            count = (y == part).sum()
            deviation = (count * rate * (1 - rate)) ** 0.5
            assert (shown[y == part].sum() - count * (1 - rate)).abs() <= 5 * deviation
    less, more = seen("random_entries", y, 0.3), seen("random_entries", y, 0.6)
    assert (more <= less).all()  # the same draws: what a higher rate shows, a lower one does too


def test_random_positives_show_no_absent_label():
    y = labels()
    shown = seen("random_positives", y, 0.5)
    assert (shown <= y).all()
    assert torch.equal(shown, seen("random_entries", y, 0.5) * y)
    assert torch.equal(seen("everything", y), torch.ones_like(y))


def test_refusals():
    for given, message in (
        (("some", labels()), "no kind of partial labels 'some'"),
        (("random_entries", labels(), 1.5), "between 0 and 1, found 1.5"),
        (("random_entries", labels() - 1), r"labels must be 0 or 1, found \[-1, 0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            seen(*given)
