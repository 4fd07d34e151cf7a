"""Datasets that are made on this machine, some out of what scikit-learn ships; their content is pinned like any.

The random numbers are those of ``numpy.random.RandomState``, whose streams are frozen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Made = dict[str, tuple["np.ndarray", "np.ndarray"]]  # features and labels (N, L) of each split
TRAIN_DIGITS = 1197  # of 1797: the images that training pairs are made of, the others are for test
BLANK = 0.25  # the share of halves without a digit
PLANE_HALF = 0.125  # half a side of the squares of the dataset in the plane
OVERLAP_WIDTH = 24  # features of the dataset whose classes overlap
OVERLAP_SPREAD = 1.25  # half a side of a cube, whose centre is a corner of that from -1 to 1
RARITY = 20.0  # how many times as often as a 9 a 0 is drawn


def documents() -> Made:
    """2,000 made documents of about 50 of 40 words, on 3 of 20 topics in the mean, some frequent and some rare."""
    from sklearn.datasets import make_multilabel_classification

    features, labels = make_multilabel_classification(
        n_samples=2000, n_features=40, n_classes=20, n_labels=3, length=50, allow_unlabeled=True, random_state=0
    )
    return {"all": (features, labels)}


def digit_pairs() -> Made:
    """Pictures of 8 x 16 with a digit or nothing in each half, labelled by the digits in them, the rarer the higher.

    Training and test pairs are made of different images.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    random = np.random.RandomState(0)
    pool = np.arange(len(digits))
    return {
        "train": _pairs(images, digits, pool[:TRAIN_DIGITS], 1200, random),
        "test": _pairs(images, digits, pool[TRAIN_DIGITS:], 600, random),
    }


def overlap() -> Made:
    """Ten classes in five pairs. Half of a pair's samples lie where both classes are equally probable.

    The others lie in a cube of their class's own, apart from all others: there the class is certain. No arithmetic but
    sums and products, so that every machine has the same bits.
    """
    import numpy as np

    random = np.random.RandomState(0)
    own, shared = (random.randint(0, 2, (count, OVERLAP_WIDTH)) * 2.0 - 1.0 for count in (10, 5))

    def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
        label = random.randint(0, 10, count)
        in_common = random.random_sample(count) < 0.5
        centre = np.where(in_common[:, None], shared[label // 2], own[label])
        noise = 2.0 * random.random_sample((count, OVERLAP_WIDTH)) - 1.0
        return centre + OVERLAP_SPREAD * noise, label.astype(np.int64)

    return {"train": rows(2500), "test": rows(5000)}


def plane() -> Made:
    """Points of the unit square in eight smaller squares around its middle, of classes 0, 1, 2, 3, 0, 1, 2, 3.

    No arithmetic but sums and products, so that every machine has the same bits. Squares are a twelfth apart.
    """
    import numpy as np

    random = np.random.RandomState(0)
    around = np.array([(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1)])

    def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
        which = random.randint(0, 8, count)
        noise = 2.0 * random.random_sample((count, 2)) - 1.0
        return (2.0 * around[which] + 1.0) / 6.0 + PLANE_HALF * noise, (which % 4).astype(np.int64)

    return {"train": rows(800), "test": rows(400)}


def _pairs(
    images: np.ndarray, digits: np.ndarray, pool: np.ndarray, rows: int, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """So many pairs of the images (M, 64) in the pool: features (rows, 128) and labels (rows, 10)."""
    import numpy as np

    shares = np.cumsum(RARITY ** (-np.arange(10) / 9))
    members = [pool[digits[pool] == digit] for digit in range(10)]
    features, labels = np.zeros((rows, 8, 2, 8)), np.zeros((rows, 10), np.int64)
    for row in range(rows):
        for half in range(2):
            which, image, blank = random.random_sample(3)
            if blank < BLANK:
                continue
            digit = int(np.searchsorted(shares, which * shares[-1]))
            chosen = members[digit][int(image * len(members[digit]))]
            features[row, :, half], labels[row, digit] = images[chosen].reshape(8, 8), 1
    return features.reshape(rows, 128), labels
