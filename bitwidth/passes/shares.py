"""Shares: fields of which exactly one is given, most of them shares of something."""

from __future__ import annotations

from collections.abc import Mapping

from bitwidth.errors import ConfigError
from bitwidth.typing import is_integer, is_number


def check_one(given: Mapping[str, object], owner: str) -> None:
    """Raise ConfigError unless exactly one of some fields is not None."""
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        *names, last = given
        all_ = f"{', '.join(names)} and {last}"
        raise ConfigError(f"{owner}: give exactly one of {all_}, got {' and '.join(named) or 'none'}")


def check_share(value: object, owner: str, field: str, instead: str = "") -> None:
    """Raise ConfigError unless a value is None or a float in (0, 1].

    Args:
        value: the value.
        owner: of the field, for the message.
        field: its name.
        instead: the field that takes integers, if one was meant.
    """
    if value is None:
        return
    if is_integer(value):
        hint = f"; did you mean {instead}={value}?" if instead and value > 1 else ""
        raise ConfigError(f"{owner}: {field} is a share, a float in (0, 1], got the integer {value!r}{hint}")
    if not is_number(value) or not 0 < value <= 1:
        raise ConfigError(f"{owner}: {field} must be a float in (0, 1], got {value!r}")
