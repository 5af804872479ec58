"""Rules: by what a tensor's values become few bits. Names for the common ones, `BitRule` for a table of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, get_args

from bitwidth.encodings.interface import Levels
from bitwidth.encodings.levels import MAX_BITS, TableLevels
from bitwidth.encodings.rows import LevelRows
from bitwidth.errors import ConfigError, EncodingError

Named = Literal["uniform", "power_of_two", "codebook", "ternary", "binary"]
MOST_POWERS = 31  # of each sign: the smallest is then a billionth of the greatest, below the precision of float32
GREATEST_POWER = 6


@dataclass(frozen=True)
class BitRule:
    """A table of levels of one's own: values become `scale * levels[code] + bias`.

    With several rows each block of the tensor (the whole tensor, a channel or a group) takes the row, and the scale and
    bias if they are searched for, of least squared error, and its codes take that row's bits. The bits are given by
    the table: a row of n levels takes ceil(log2 n).

    Attributes:
        levels: one row of numbers, or several rows, of different lengths if you like. Kept sorted, as tuples.
        scale: `"fit"` for the scale of least squared error, a number, or several numbers to choose from.
        bias: a number, several numbers to choose from, or `"fit"` for the bias of least squared error.
        symmetric: mirror every row around zero, and add zero.

    Raises:
        ConfigError: a row has fewer than two levels or one twice, or a number is not finite (a scale: not positive).

    Example:
        >>> rule = BitRule([[1, 2, 4, 8, 16, 32, 64], [10, 20, 40, 80, 160, 320], [100, 200]])
        >>> rule.bits
        3
        >>> BitRule([4, 1], symmetric=True).levels
        ((-4.0, -1.0, 0.0, 1.0, 4.0),)
    """

    levels: Any
    scale: Any = "fit"
    bias: Any = 0.0
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.symmetric, bool):
            raise ConfigError(f"BitRule: symmetric must be True or False, got {self.symmetric!r}")
        rows = _listed(self.levels, "levels")
        nested = [isinstance(row, Iterable) and not isinstance(row, str | bytes) for row in rows]
        if any(nested) and not all(nested):
            raise ConfigError("BitRule: levels are one row of numbers, or several rows; got a mixture")
        found = tuple(_row(row, self.symmetric) for row in (rows if any(nested) else [rows]))
        object.__setattr__(self, "levels", found)
        object.__setattr__(self, "scale", _choice(self.scale, "scale"))
        object.__setattr__(self, "bias", _choice(self.bias, "bias"))
        try:
            _ = self.table
        except EncodingError as error:
            raise ConfigError(f"BitRule: {error}") from error

    @property
    def table(self) -> TableLevels | LevelRows:
        """The levels as an encoding takes them."""
        rows = tuple(TableLevels(row) for row in self.levels)
        return rows[0] if len(rows) == 1 else LevelRows(rows)

    @property
    def bits(self) -> int:
        """Bits of a code of the longest row."""
        return int(self.table.bits)


Rule = Named | BitRule


def check_rule(rule: object, owner: str) -> None:
    """Raise ConfigError unless `rule` is the name of a rule or a `BitRule`; `owner` goes into the message."""
    if not isinstance(rule, BitRule) and not (isinstance(rule, str) and rule in get_args(Named)):
        names = ", ".join(f'"{name}"' for name in get_args(Named))
        raise ConfigError(f"{owner}: rule must be {names} or a bw.BitRule, got {rule!r}")


def rule_bits(rule: Rule, bits: int) -> int:
    """Bits that a code takes under a rule: those of the table where the rule gives it, else `bits`.

    Example:
        >>> rule_bits("ternary", 8), rule_bits("codebook", 5), rule_bits(BitRule([1, 2, 3]), 8)
        (2, 5, 2)
    """
    if isinstance(rule, BitRule):
        return rule.bits
    return {"ternary": 2, "binary": 1}.get(rule, int(power_levels(bits).bits) if rule == "power_of_two" else bits)


def power_levels(bits: int) -> Levels:
    """Zero and the powers of two of both signs, as many as fit: 2**bits - 1 levels, and never more than 63.

    The greatest is 2**(n - 1) of n powers up to 64, and the further ones are fractions, so that scales stay within the
    range of 16-bit floats. One bit holds -1 and +1. (Miyashita, Lee and Murmann 2016, "Convolutional Neural Networks
    using Logarithmic Data Representation", section 3.1; Zhou et al. 2017, "Incremental Network Quantization".)

    Args:
        bits: 1 to 16.

    Raises:
        EncodingError: `bits` is out of that range.

    Example:
        >>> power_levels(3).values
        (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
    """
    if not 1 <= bits <= MAX_BITS:
        raise EncodingError(f"powers of two have 1 to {MAX_BITS} bits, got {bits}")
    if bits == 1:
        return TableLevels((-1.0, 1.0))
    count = min((1 << (bits - 1)) - 1, MOST_POWERS)
    top = min(count - 1, GREATEST_POWER)
    powers = [2.0**exponent for exponent in range(top - count + 1, top + 1)]
    return TableLevels((*(-power for power in reversed(powers)), 0.0, *powers))


def _listed(given: Any, name: str) -> list[Any]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigError(f"BitRule: {name} must be numbers, got {given!r}")
    return list(given)


def _row(row: Any, symmetric: bool) -> tuple[float, ...]:
    numbers = [_number(value, "levels") for value in _listed(row, "levels")]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"BitRule: a level is given twice in {numbers}")
    if symmetric:
        numbers = list({0.0, *numbers, *(-number for number in numbers)})
    return tuple(sorted(number + 0.0 for number in numbers))


def _choice(given: Any, name: str) -> Any:
    """`"fit"`, a number, or several as a tuple."""
    if isinstance(given, str) and given == "fit":
        return given
    numbers = (
        [_number(value, name) for value in _listed(given, name)]
        if isinstance(given, Iterable)
        else [_number(given, name)]
    )
    if not numbers or (name == "scale" and min(numbers) <= 0):
        raise ConfigError(f'BitRule: {name} must be "fit" or positive numbers, got {given!r}')
    return tuple(numbers) if isinstance(given, Iterable) else numbers[0]


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"BitRule: {name} must be numbers, got {value!r}") from error
    if isinstance(value, str | bytes | bool) or not isfinite(number) or abs(number) > 1e30:
        raise ConfigError(f"BitRule: {name} must be finite numbers (to 1e30), got {value!r}")
    return number
