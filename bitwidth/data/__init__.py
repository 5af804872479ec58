"""Real data that ships with the package, for the demo, the examples and the tests.

Here belong small sets with a licence that permits it. Reading the users' own data belongs in the backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

Split = tuple[NDArray[np.float32], NDArray[np.int32]]


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: images float32 [n, 8, 8, 1] scaled to 0-1, and labels int32 [n] from 0 to 9.

    Attributes:
        train: 1,297 samples.
        validation: 250 samples, to choose by.
        test: 250 samples, to be read once.
    """

    train: Split
    validation: Split
    test: Split


def digits() -> Digits:
    """The UCI handwritten digits (Alpaydin and Kaynak 1998; CC BY 4.0), in a fixed shuffled split.

    Example:
        >>> images, labels = digits().train
        >>> images.shape, labels.shape
        ((1297, 8, 8, 1), (1297,))
    """
    with np.load(BytesIO((files(__package__) / "digits.npz").read_bytes()), allow_pickle=False) as stored:
        order = np.random.default_rng(0).permutation(len(stored["labels"]))
        images = (stored["images"][order].astype(np.float32) / np.float32(16))[..., np.newaxis]
        labels = stored["labels"][order].astype(np.int32)
    cuts = [slice(0, 1297), slice(1297, 1547), slice(1547, None)]
    return Digits(*((images[cut], labels[cut]) for cut in cuts))
