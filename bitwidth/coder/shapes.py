"""Smooth frequency tables from six numbers: a generalised normal curve over a range, and up to three spikes.

The weight of symbol i is 2**-((|i - centre| / scale) ** power); symbols that stand out of the curve (a zero that
pruning made frequent, the ends that clipping filled) get weights of their own. All of it is integer arithmetic (square
roots of integers below 2**52 are exact in IEEE doubles), so that every machine derives the same table from them.

Example:
    >>> import numpy as np
    >>> int(weights(fit(np.array([1, 6, 10, 6, 1]))).argmax())
    2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from bitwidth.coder.scalar import Decoder, Encoder
from bitwidth.errors import CorruptFileError
from bitwidth.typing import Array

_POWERS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
_ONE = 30  # weights: 2**30 at the centre
_FINE = 10  # fractional bits of distances and exponents
_STEPS = 16  # scales to an octave
_SCALES = 256  # scales from 2**-1 to 2**15
_SPIKES = 3
_COARSE = np.array([-24, -12, -8, -4, 0, 4, 8, 12, 24, 40])
_CLOSE = np.arange(-2, 3)
_NEAR = np.arange(-4, 5)


@final
@dataclass(frozen=True)
class Shape:
    """The six numbers: `first` symbol, `size`, power, scale and centre indices, spikes (symbol - first, weight)."""

    first: int
    size: int
    power: int
    scale: int
    centre: int
    spikes: tuple[tuple[int, int], ...] = ()


def _halvings() -> NDArray[np.int64]:
    """2**30 * 2**(-i / 1024) for i of 0..1023, from nested integer square roots."""
    roots = [math.isqrt(1 << 119)]  # 2**60 * 2**(-1/2), then (-1/4), down to (-1/1024)
    for _ in range(9):
        roots.append(math.isqrt(roots[-1] << 60))
    values = []
    for index in range(1024):
        value = 1 << 60
        for place, root in enumerate(roots):
            if index >> 9 - place & 1:
                value = value * root >> 60
        values.append(value >> 30)
    return np.array(values, dtype=np.int64)


_TABLE = _halvings()


def _power_of_half(exponents: NDArray[np.int64]) -> NDArray[np.int64]:
    """2**30 * 2**-(exponents / 1024), exponents clipped to 30."""
    clipped = np.minimum(np.maximum(exponents, 0), _ONE << _FINE)  # quicker than `clip` on so few
    out: NDArray[np.int64] = _TABLE[clipped & 1023] >> (clipped >> _FINE)
    return out


def _root(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The square root of fixed-point numbers."""
    return np.sqrt((values << _FINE).astype(np.float64)).astype(np.int64)


def _raised(ratio: NDArray[np.int64], power: int) -> NDArray[np.int64]:
    """Fixed-point ratio ** _POWERS[power]."""
    exponent = _POWERS[power]
    ratio = np.minimum(ratio, 1 << (15 if exponent >= 1 else 20))
    half = _root(ratio)
    if exponent == 0.5:
        return half
    quarter = _root(half)
    factor = {0.75: half, 1.0: ratio, 1.25: ratio, 1.5: ratio, 2.0: ratio, 3.0: ratio, 4.0: ratio}[exponent]
    other = {0.75: quarter, 1.25: quarter, 1.5: half, 2.0: ratio}.get(exponent)
    if other is not None:
        return factor * other >> _FINE
    if exponent == 1.0:
        return ratio
    square = ratio * ratio >> _FINE
    return square * (ratio if exponent == 3.0 else square) >> _FINE


def _grain(scale: int) -> int:
    """The step of the centre, in sixteenths of a symbol: about a sixteenth of the scale."""
    return 1 << max(scale // _STEPS - 1, 0)


def weights(shape: Shape) -> NDArray[np.int64]:
    """The weights of a shape: int64 [first + size], zero below `first`, positive from there on.

    Example:
        >>> weights(Shape(1, 3, power=2, scale=16, centre=16)).tolist()
        [0, 536870912, 1073741824, 536870912]
    """
    places = np.arange(shape.size, dtype=np.int64) * 16
    distance = np.abs(places - shape.centre * _grain(shape.scale))
    octave, part = divmod(shape.scale, _STEPS)
    # scale = 2**(octave - 1 + part / 16) symbols; distance is in sixteenths.
    ratio = (distance * int(_TABLE[part * 1024 // _STEPS])) >> (_ONE + 4 + octave - 1 - _FINE)
    curve = np.maximum(_power_of_half(_raised(ratio, shape.power)), 1)
    if shape.spikes:
        places_ = [index for index, _ in shape.spikes]
        curve[places_] = 0
        total = int(curve.sum())
        for index, weight in shape.spikes:
            curve[index] = max(total * weight >> 8, 1)
        # `normalise` multiplies weights by up to 2**20.
        curve = np.maximum(curve >> max(int(curve.max()).bit_length() - 40, 0), 1)
    return np.concatenate([np.zeros(shape.first, dtype=np.int64), curve])


def _spike_weight(code: int) -> int:
    """Spike code 0..63 to a weight, four steps an octave; 256 is as much as the whole curve."""
    octave, part = divmod(code, 4)
    return (4 + part) << octave >> 2


_SPIKE_LOGS = np.log2([_spike_weight(code) + 0.3 for code in range(64)])


def fit(counts: NDArray[np.int64]) -> Shape:
    """The shape that codes `counts` (int64 [symbols], two or more positive) in about the fewest bits.

    Source: maximum likelihood by coordinate search from the moments; the search is in floats, its result is integers.

    Example:
        >>> fit(np.array([0, 4, 9, 4])).first
        1
    """
    present = np.flatnonzero(counts)
    first, size = int(present[0]), int(present[-1] - present[0] + 1)
    tail = counts[first : first + size].astype(np.float64)
    spikes: list[int] = []
    best, best_cost = None, math.inf
    powers: Sequence[int] = range(len(_POWERS))
    for _ in range(_SPIKES + 1):
        core = tail.copy()
        core[spikes] = 0
        if np.count_nonzero(core) < 2:
            break
        shape = _with_spikes(_fit_core(core, first, spikes, powers), tail, spikes)
        modelled = weights(shape)[first:].astype(np.float64)
        gains = tail * np.log2(np.maximum(tail, 1e-9) / tail.sum() * modelled.sum() / modelled)
        cost = float(gains.sum()) + len(spikes) * (4 + math.log2(size) + 2)
        if cost >= best_cost:
            break
        best, best_cost = shape, cost
        powers = range(max(shape.power - 1, 0), min(shape.power + 2, len(_POWERS)))
        gains[spikes] = -math.inf
        spikes.append(int(np.argmax(gains)))
    if best is None:
        raise ValueError("a shape needs two symbols or more")
    return best


def _with_spikes(shape: Shape, tail: NDArray[np.float64], spikes: list[int]) -> Shape:
    """The shape with each spike's weight set to its share of the counts."""
    rest = float(tail.sum() - tail[spikes].sum())
    coded = []
    for index in spikes:
        wanted = 256 * float(tail[index]) / rest
        code = int(np.argmin(np.abs(_SPIKE_LOGS - math.log2(wanted + 0.3))))
        coded.append((index, _spike_weight(code)))
    return replace(shape, spikes=tuple(coded))


def _fit_core(tail: NDArray[np.float64], first: int, spikes: list[int], powers: Sequence[int]) -> Shape:
    """Power, scale and centre by coordinate search, without the spikes (whose counts are zero here)."""
    size, total = tail.size, float(tail.sum())
    places = np.arange(size, dtype=np.float64)
    allowed = np.ones(size)
    allowed[spikes] = 0.0
    mean = float(tail @ places) / total
    spread = math.sqrt(max(float(tail @ (places - mean) ** 2) / total, 0.05))

    def cost(power: float, scale: NDArray[np.float64], centre: Array) -> NDArray[np.float64]:
        away = np.minimum((np.abs(places - centre[:, None]) / scale[:, None]) ** power, float(_ONE))
        # `einsum` rather than `@`: BLAS would start threads for so little, which takes longer than the sum.
        mass = np.einsum("ij,j->i", np.exp2(-away), allowed)
        return np.asarray(np.einsum("ij,j->i", away, tail) + total * np.log2(np.maximum(mass, 1e-300)))

    def search(power: int) -> tuple[float, int, int, int]:
        exponent = _POWERS[power]
        # The scale that has this spread: E|d|^2 of exp(-ln2 (d/s)^p) is s^2 ln2^(-2/p) Gamma(3/p) / Gamma(1/p).
        ratio = math.log(2) ** (-2 / exponent) * math.exp(math.lgamma(3 / exponent) - math.lgamma(1 / exponent))
        middle = round(_STEPS * (math.log2(spread / math.sqrt(ratio)) + 1))
        centre, scale = mean, middle
        for steps in (_COARSE, _CLOSE):
            scales = np.minimum(np.maximum(scale + steps, 0), _SCALES - 1)
            prices = cost(exponent, 2.0 ** (scales / _STEPS - 1), np.full(scales.size, centre))
            scale = int(scales[np.argmin(prices)])
            grain = _grain(scale) / 16
            centres = np.minimum(np.maximum(round(centre / grain) + _NEAR, 0), int((size - 1) / grain))
            prices = cost(exponent, np.full(_NEAR.size, 2.0 ** (scale / _STEPS - 1)), centres * grain)
            chosen = int(centres[np.argmin(prices)])
            centre = chosen * grain
        return float(prices.min()), power, scale, chosen

    # From the middle up and down, as long as it gets better.
    middle = len(powers) // 2
    best = search(powers[middle])
    for side in (powers[middle + 1 :], powers[:middle][::-1]):
        for power in side:
            found = search(power)
            if found >= best:
                break
            best = found
    return Shape(first, size, *best[1:])


def write(coder: Encoder, shape: Shape) -> None:
    """Write a shape: about four bytes.

    Example:
        >>> coder = Encoder()
        >>> write(coder, Shape(0, 9, 5, 16, 64))
        >>> read(Decoder(coder.finish()), 9)
        Shape(first=0, size=9, power=5, scale=16, centre=64, spikes=())
    """
    coder.number(shape.first)
    coder.number(shape.size - 1)
    coder.bits(shape.power, 3)
    coder.bits(shape.scale, 8)
    coder.bits(shape.centre, _centre_bits(shape.size, shape.scale))
    coder.bits(len(shape.spikes), 2)
    for index, weight in shape.spikes:
        coder.bits(index, (shape.size - 1).bit_length())
        coder.bits(next(code for code in range(64) if _spike_weight(code) == weight), 6)


def _centre_bits(size: int, scale: int) -> int:
    return ((size - 1) * 16 // _grain(scale)).bit_length()


def read(coder: Decoder, symbols: int) -> Shape:
    """Read what `write` wrote; a table of more than `symbols` symbols raises `CorruptFileError`.

    Example:
        >>> read(Decoder(b""), 4).size
        1
    """
    first = coder.number(symbols - 1)
    size = coder.number(symbols - 1 - first) + 1
    power, scale = coder.bits(3), coder.bits(8)
    centre = coder.bits(_centre_bits(size, scale))
    spikes = []
    for _ in range(coder.bits(2)):
        index = coder.bits((size - 1).bit_length())
        if index >= size:
            raise CorruptFileError("coded stream: a spike outside its table")
        spikes.append((index, _spike_weight(coder.bits(6))))
    return Shape(first, size, power, scale, centre, tuple(spikes))
