"""What the fields of `Quantize` may be, each by itself and together."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from bitwidth.context import check_choice, check_count
from bitwidth.encodings import MAX_BITS, check_granularity
from bitwidth.errors import ConfigError
from bitwidth.fitting import BitRule, Escape, check_rule
from bitwidth.passes.widths import widths_of
from bitwidth.typing import is_integer, is_number

if TYPE_CHECKING:
    from bitwidth.passes.quantize import Quantize

_OWN_WIDTH = ("ternary", "binary")  # rules that need no `bits`
_CHOICES: dict[str, tuple[Any, ...]] = {
    "scale": ("mse", "max"),
    "rounding": ("nearest", "error_feedback", "entropy"),
    "vectors": ("16-bit", "auto", None),
    "importance": ("fisher", "inputs", None),
    "scope": ("global", "local"),
    "ranges": ("mse", "percentile", "max"),
    "symmetric": (True, False),
}


def check_fields(item: Quantize) -> None:
    """Raise unless the fields are in their ranges and go together.

    Raises:
        ConfigError: naming the field, what was expected, and what it is.
    """
    for name, allowed in _CHOICES.items():
        check_choice(getattr(item, name), allowed, "Quantize", name)
    check_rule(item.rule, "Quantize")
    if not item.symmetric and item.rule != "uniform":
        raise ConfigError('Quantize: symmetric=False goes with rule="uniform" only')
    if item.escape is not None and not isinstance(item.escape, Escape):
        raise ConfigError(f"Quantize: escape must be a bw.Escape or None, got {item.escape!r}")
    if item.granularity is not None:
        check_granularity(item.granularity, "Quantize")
    if item.activations is not None:
        _checked_bits(item.activations, "activations", 2)
    check_count(item.samples, "Quantize", "samples")
    for name in ("damping", "price"):
        value = getattr(item, name)
        if not is_number(value) or not 0 <= value < inf:
            raise ConfigError(f"Quantize: {name} must be a finite number of at least 0, got {value!r}")
    _check_width(item)


def _check_width(item: Quantize) -> None:
    given = [name for name in ("bits", "rate", "step") if getattr(item, name) is not None]
    own = isinstance(item.rule, BitRule) or item.rule in _OWN_WIDTH
    if own and given:
        raise ConfigError(f"Quantize: the rule {item.rule!r} has its own width; leave out {', '.join(given)}")
    if not own and len(given) != 1:
        raise ConfigError(f"Quantize: give one of bits, rate and step, got {', '.join(given) or 'none'}")
    least = {"power_of_two": 2, "codebook": 1}.get(str(item.rule), 1 if item.symmetric else 2)
    for bits in widths_of(item.bits):
        if _checked_bits(bits, "bits", 1) < least:
            raise ConfigError(f"Quantize: bits must be at least {least} here, got {bits}")
    for name, most in (("rate", MAX_BITS), ("step", 1e6)):
        value = getattr(item, name)
        if value is not None and (not is_number(value) or not 0 < value <= most):
            raise ConfigError(f"Quantize: {name} must be a number above 0 and at most {most:g}, got {value!r}")
    if item.bits is None and not own:
        _check_unbounded(item)


def _check_unbounded(item: Quantize) -> None:
    """What goes with `rate` and `step`, whose integers have no bound."""
    if item.rule != "uniform" or not item.symmetric:
        raise ConfigError('Quantize: rate and step go with rule="uniform", symmetric=True only')
    if item.granularity not in (None, "tensor"):
        raise ConfigError(f"Quantize: rate and step use one step per tensor, got {item.granularity!r}")
    if item.escape is not None:
        raise ConfigError("Quantize: escape goes with bits or a rule; with rate and step integers have no bound")


def _checked_bits(value: Any, name: str, least: int) -> int:
    if not is_integer(value) or not least <= value <= MAX_BITS:
        raise ConfigError(f"Quantize: {name} must be an integer from {least} to {MAX_BITS}, got {value!r}")
    return value
