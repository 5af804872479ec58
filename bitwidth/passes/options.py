"""Options of passes as values: what goes together is given together, under one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bitwidth.errors import ConfigError
from bitwidth.fitting.rounding import DAMPING
from bitwidth.passes.activations import RangeMethod


@dataclass(frozen=True)
class ErrorFeedback:
    """Rounding in which later weights of an output make up for the errors of earlier ones.

    By the covariance of their inputs (Frantar et al. 2022, "GPTQ", section 3); needs data, without labels. The same as
    `rounding="error_feedback"` with `damping`.

    Attributes:
        damping: added to the diagonal of the input covariance, as a share of its mean, at least.

    Example:
        >>> import bitwidth as bw
        >>> bw.Quantize(4, rounding=bw.ErrorFeedback(damping=0.05)).damping
        0.05
    """

    damping: float = DAMPING


@dataclass(frozen=True)
class EntropyRounding:
    """Error feedback in which each code is chosen for the least sum of error and code length.

    The same as `rounding="entropy"` with `price` and `damping`.

    Attributes:
        price: what a bit costs, in units of `step^2` times the mean error weight.
        damping: as in `ErrorFeedback`.

    Example:
        >>> import bitwidth as bw
        >>> bw.Quantize(rate=2.0, rounding=bw.EntropyRounding(price=0.2)).rounding
        'entropy'
    """

    price: float = 0.1
    damping: float = DAMPING


@dataclass(frozen=True)
class Activations:
    """Inputs of layers on grids: one scale and zero point per tensor, in training and in inference.

    The same as `activations=bits` with `ranges`.

    Attributes:
        bits: width of a code, 2 to 16.
        ranges: `"mse"`, `"percentile"` or `"max"`; see `Quantize`.

    Example:
        >>> import bitwidth as bw
        >>> bw.Quantize(8, activations=bw.Activations(bits=8, ranges="max")).activations
        8
    """

    bits: int = 8
    ranges: RangeMethod = "mse"


@dataclass(frozen=True)
class PerGroup:
    """One scale for each group of inputs within an output channel; the same as `granularity=size`.

    Attributes:
        size: inputs of a group, at least 1.

    Example:
        >>> import bitwidth as bw
        >>> bw.Quantize(4, granularity=bw.PerGroup(64)).granularity
        64
    """

    size: int


_MEANS: Mapping[type[Any], tuple[str, Mapping[str, Any]]] = {
    ErrorFeedback: ("rounding", {"rounding": "error_feedback", "damping": "damping"}),
    EntropyRounding: ("rounding", {"rounding": "entropy", "price": "price", "damping": "damping"}),
    Activations: ("activations", {"activations": "bits", "ranges": "ranges"}),
    PerGroup: ("granularity", {"granularity": "size"}),
}


def unpack_options(item: Any) -> None:
    """Put what option values say into the plain fields of a frozen pass.

    Raises:
        ConfigError: an option where it does not belong, or a plain field given beside it that says something else.
    """
    owner, defaults = type(item).__name__, {field.name: field.default for field in fields(item)}
    for place in list(defaults):
        option = getattr(item, place)
        if type(option) not in _MEANS:
            continue
        where, meaning = _MEANS[type(option)]
        if where != place:
            raise ConfigError(f"{owner}: {type(option).__name__} is a value of {where}, not of {place}")
        for name, source in meaning.items():
            value = getattr(option, source) if hasattr(option, source) else source
            given = getattr(item, name)
            if name != place and given != defaults[name] and given != value:
                raise ConfigError(f"{owner}: {name}={given!r} beside {option!r}; give it there")
            object.__setattr__(item, name, value)
