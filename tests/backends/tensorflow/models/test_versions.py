"""An older Keras than is safe to stand on is named, with what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitwidth.backends.tensorflow.models.versions import OLDEST, check_keras
from bitwidth.errors import UnsupportedModelError


@pytest.mark.parametrize("version", ["3.12.0", "3.15.1", "3.100.0", "4.0", "3.12.0rc1"])
def test_new_enough(version: str) -> None:
    check_keras(version)


@pytest.mark.parametrize("version", ["3.8.0", "3.11.3", "3.0.5", "2.15.0", "3.9"])
def test_too_old(version: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"Keras {re.escape(version)} is installed.*keras>=3\.12"):
        check_keras(version)


def test_the_bound_is_that_of_the_package() -> None:
    text = Path(__file__).parents[4].joinpath("pyproject.toml").read_text("utf-8")
    assert f'"keras>={OLDEST[0]}.{OLDEST[1]}"' in text
