"""The oldest Keras that this backend stands on."""

from __future__ import annotations

import re

import keras

from bitwidth.errors import UnsupportedModelError

# The first without the holes of its own reader that are known by number: CVE-2025-1550 (to 3.8), -49655 and -9905 (to
# 3.11.2), -8747 and -9906 (to 3.10), -12058 (to 3.11). Files are read with our own eyes besides.
OLDEST = (3, 12)


def check_keras(version: str = keras.__version__) -> None:
    """Raise unless a version of Keras is new enough to build models from files on.

    Args:
        version: of Keras; the installed one by default.

    Raises:
        UnsupportedModelError: it is older, with what to do.

    Example:
        >>> check_keras("3.15.1")
    """
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UnsupportedModelError(
            f"Keras {version} is installed, and bitwidth needs Keras {oldest} or newer: older ones can be made to run "
            f'code by the files that they load; pip install "keras>={oldest}"'
        )
