"""Fields by name: passes take all but their first ones as keywords; by position they go on working for a while."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

C = TypeVar("C", bound=type[Any])


def keywords_from(count: int) -> Callable[[C], C]:
    """Class decorator for a dataclass whose fields from the one after `count` on are keyword-only (`KW_ONLY`).

    Given by position, they are still taken, in the order of the fields, with a DeprecationWarning, until the next minor
    release.

    Args:
        count: how many fields may be given by position.
    """

    def decorate(cls: C) -> C:
        build = cls.__init__
        names = [field.name for field in fields(cls) if field.init]

        @functools.wraps(build)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            late = names[count : len(args)]
            if late and len(args) <= len(names) and not set(late) & set(kwargs):
                shown = ", ".join(f"{name}=" for name in late)
                warnings.warn(f"{cls.__name__}: give {shown} by name", DeprecationWarning, stacklevel=2)
                kwargs |= dict(zip(late, args[count:], strict=True))
                args = args[:count]
            build(self, *args, **kwargs)

        cls.__init__ = init
        return cls

    return decorate
