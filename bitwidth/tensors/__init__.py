"""The old name of `bitwidth.encodings` and `bitwidth.fitting`; it goes with the next minor release."""

from __future__ import annotations

import warnings
from typing import Any

from bitwidth import encodings, fitting

_NAMES = {name: room for room in (encodings, fitting) for name in room.__all__}


def __getattr__(name: str) -> Any:
    room = _NAMES.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"bitwidth.tensors is now bitwidth.encodings and bitwidth.fitting: import {name} from {room.__name__}"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return getattr(room, name)
