"""Data that is made: classes that overlap as they are said to."""

import numpy as np

from lossboard.data import load
from lossboard.data.made import OVERLAP_SPREAD, OVERLAP_WIDTH


def test_half_of_the_samples_lie_where_two_classes_are_equally_probable() -> None:
    """A row is in its class's cube and no other, or in that of its pair, where nothing tells the two classes apart."""
    data = load("overlap")
    random = np.random.RandomState(0)
    own, shared = (random.randint(0, 2, (count, OVERLAP_WIDTH)) * 2.0 - 1.0 for count in (10, 5))
    for split, count in (("train", 2500), ("test", 5000)):
        x, y = data.features[split], data.labels[split]
        assert x.shape == (count, OVERLAP_WIDTH)
        alone, common = (np.abs(x[:, None] - centres).max(-1) <= OVERLAP_SPREAD + 1e-6 for centres in (own, shared))
        assert (alone.sum(1) + common.sum(1) == 1).all(), "the cubes are apart"
        sure = alone.any(1)
        assert 0.47 < sure.mean() < 0.53
        assert (alone.argmax(1) == y)[sure].all()
        assert (common.argmax(1) == y // 2)[~sure].all()
        for pair in range(5):
            both = ~sure & (y // 2 == pair)
            assert abs((y[both] % 2).mean() - 0.5) < 0.1
            one, other = (x[both & (y % 2 == k)].mean(0) for k in (0, 1))
            assert np.abs(one - other).max() < 0.5
    assert data.source == "made on this machine"
