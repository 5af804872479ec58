"""Steps: how wide each tensor's uniform grid is, when the entropy coder pays for what the integers cost.

At a fine step the loss that rounding adds is the sum over tensors of `step^2 / 12 * n * F`, with F the mean of the
diagonal Fisher over the tensor's n weights, and each weight costs `-log2(step)` bits and a constant. With one Lagrange
multiplier for all tensors the step is in proportion to `1 / sqrt(F)`: every weight adds the same loss.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bitwidth.analysis.unknown import filled, unknown, without
from bitwidth.coder import encode_integers, entropy_bits
from bitwidth.context import Context
from bitwidth.encodings import Dense, IntegerLevels, Quantized
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph, Parameter

_LOG = logging.getLogger(__name__)
_LOOKED_AT = 1 << 16  # weights of a tensor by whose codes its rate is estimated
_LEAST_FISHER = 1e-6  # of the greatest: a tensor that the loss hardly depends on still gets a step
TOLERANCE = 0.01
_TRIES = 7
_NARROWEST = 1e-9  # factor to relative steps
_WIDEST = 1 << 18  # greatest code that a step is chosen for: what float32 tells apart, with room for error feedback
_FEW = 256  # zeros that cost no more than what every tensor costs


def step_grid(values: NDArray[np.float32], step: float) -> Quantized:
    """One uniform step for a whole tensor, with integers as wide as needed; the step is rounded to two bytes.

    Example:
        >>> step_grid(np.ones((2, 3), np.float32), 0.25).scale
        array([[0.25]], dtype=float32)
    """
    scale = np.full((1,) * values.ndim, step, np.float32)
    held = Dense("float16").project(scale)
    if not (np.isfinite(held) & (held > 6.2e-5)).all():
        held = Dense("bfloat16").project(scale)
    return Quantized(IntegerLevels(None, None), held, tuple(max(length, 1) for length in values.shape))


def finest(graph: Graph, parameters: tuple[Parameter, ...]) -> dict[str, float]:
    """The least step of each parameter whose codes a uniform grid can hold, by path; 0 where all is zero."""
    return {p.path: float(np.abs(kept(graph, p)).max()) / _WIDEST for p in parameters}


def fixed_steps(graph: Graph, parameters: tuple[Parameter, ...], step: float) -> dict[str, float]:
    """Steps of `step` standard deviations, by path.

    Raises:
        ConfigError: a step is so fine that codes would be clipped.
    """
    spread, least = spreads(graph, parameters), finest(graph, parameters)
    for path, width in spread.items():
        if step * width < least[path]:
            greatest, least_step = least[path] * _WIDEST / width, 1.01 * least[path] / width
            raise ConfigError(
                f"Quantize: step={step:g} is too fine for {path}, whose greatest weight is {greatest:,.0f} standard "
                f"deviations: give step={least_step:.3g} or more, or leave it out with `where`"
            )
    return {path: step * width for path, width in spread.items()}


def spreads(graph: Graph, parameters: tuple[Parameter, ...]) -> dict[str, float]:
    """Standard deviation of the weights that each parameter's mask keeps; their size where all are equal."""

    def spread(row: NDArray[np.float64]) -> float:
        return float(row.std()) or float(np.abs(row).max()) or 1.0

    return {p.path: spread(kept(graph, p).astype(np.float64)) for p in parameters}


def equal_loss(
    graph: Graph,
    context: Context,
    parameters: tuple[Parameter, ...],
    curvature: Mapping[str, NDArray[np.float64]],
) -> dict[str, float]:
    """Steps, up to a common factor, at which each weight adds the same loss.

    A parameter at which no gradient arrives gets the step that the others have, in the median, for the spread of its
    weights; a remark says so.
    """
    silent = unknown(graph, curvature, parameters)
    spread = spreads(graph, parameters)
    for path, words in without(graph, curvature, parameters).items():
        context.remark(f"{path}: {words}; its step goes by the spread of its weights")
    known = [p for p in parameters if p.path not in silent or not silent[p.path].all()]
    if not known:
        return spread
    nothing: NDArray[np.bool_] = np.zeros((), np.bool_)
    means = {
        p.path: float(kept(graph, p, filled(curvature[p.path], silent.get(p.path, nothing))).mean()) for p in known
    }
    least = max(max(means.values()) * _LEAST_FISHER, 1e-30)
    steps = {path: 1 / float(np.sqrt(max(mean, least))) for path, mean in means.items()}
    median = float(np.median([step / spread[path] for path, step in steps.items()]))
    return {p.path: steps.get(p.path, median * spread[p.path]) for p in parameters}


def kept(graph: Graph, parameter: Parameter, values: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """The values (the parameter's own, or others of its shape) that its mask keeps, as one row."""
    array = graph.values[parameter.path] if values is None else values
    mask = parameter.encoding.mask
    row: NDArray[np.float64] = array[mask] if mask is not None else array.reshape(-1)
    return row if row.size else np.zeros(1)


def factor_for_rate(
    graph: Graph, parameters: tuple[Parameter, ...], relative: Mapping[str, float], rate: float
) -> float:
    """The factor to steps `relative` at which rounding to nearest gives `rate` bits per weight, all together.

    Estimated by the entropy of an even selection of weights of each tensor. No step is finer than `finest`.
    """
    least = finest(graph, parameters)
    rows = {}
    for parameter in parameters:
        row = kept(graph, parameter)
        rows[parameter.path] = (row[:: max(1, row.size // _LOOKED_AT)], row.size)

    def rate_at(factor: float) -> float:
        bits = 0.0
        for path, (row, size) in rows.items():
            codes = np.rint(row / max(factor * relative[path], least[path] or 1.0)).astype(np.int64)
            bits += entropy_bits(codes) / row.size * size
        return bits / sum(size for _, size in rows.values())

    low, high = _bracket(rate_at, rate)
    for _ in range(24):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if rate_at(middle) > rate else (low, middle)
    return max(float(np.sqrt(low * high)), least_factor(least, relative))


def least_factor(least: Mapping[str, float], relative: Mapping[str, float]) -> float:
    """The factor to steps `relative` below which every step is the finest that there is; 0 where all is zero."""
    return min((least[path] / step for path, step in relative.items() if least[path] > 0), default=0.0)


def _bracket(rate_at: Callable[[float], float], rate: float) -> tuple[float, float]:
    """Factors with more and with fewer bits than `rate`; the rate falls as the factor grows."""
    low = high = 1.0
    while rate_at(low) <= rate and low > _NARROWEST:
        low /= 4
    while rate_at(high) > rate and high < 1 / _NARROWEST:
        high *= 4
    return low, high


def settle(rate_at: Callable[[float], float], factor: float, rate: float, least: float = 0.0) -> float:
    """Try factors from `factor` on until one gives the rate as coded, within 1 %; the last one tried counts: where
    none does that, the nearest is tried once more.

    Doubling all steps takes off a bit per weight, or less where few are left. Once rates on either side are known the
    next one is between them.

    Args:
        rate_at: the rate at a factor; it falls as the factor grows.
        factor: the first to try.
        rate: bits per weight.
        least: a factor below which the rate does not grow.

    Returns:
        The rate that was reached last: within 1 % of `rate`, or as near as seven tries came, or all that there is.
    """
    tried: dict[float, float] = {}
    above: tuple[float, float] | None = None  # log2 of the factor, and its rate: more bits than asked for
    below: tuple[float, float] | None = None
    for _ in range(_TRIES):
        reached = tried[factor] = rate_at(factor)
        _LOG.debug(
            "try %d: steps times %.4g give %.3f bits per weight, %g asked for", len(tried), factor, reached, rate
        )
        if abs(reached - rate) <= TOLERANCE * rate or (reached < rate and factor <= least):
            return reached
        place = (float(np.log2(factor)), reached)
        above, below = (place, below) if reached > rate else (above, place)
        if above is not None and below is not None:
            share = (above[1] - rate) / (above[1] - below[1])
            factor = float(2 ** (above[0] + min(max(share, 0.1), 0.9) * (below[0] - above[0])))
        else:
            factor *= max(2.0 ** (reached - rate), min((reached / rate) ** 2, 4.0)) if reached > rate else 0.8
    nearest = min(tried, key=lambda factor: abs(tried[factor] - rate))
    _LOG.debug("no factor gives %g bits per weight; steps times %.4g come nearest", rate, nearest)
    return rate_at(nearest)


def coded_rate(graph: Graph, parameters: tuple[Parameter, ...]) -> float:
    """Bits of the entropy-coded codes per weight that the masks keep, all parameters together.

    Without what every tensor costs, however coarse its step: that is most of what a tensor of a few weights takes.
    """
    coded = total = 0
    for parameter in parameters:
        codes = parameter.encoding.encode(graph.values[parameter.path])
        mask = parameter.encoding.mask
        codes = codes[mask] if mask is not None else codes
        coded += 8 * (len(encode_integers(codes)) - len(encode_integers(np.zeros_like(codes[:_FEW]))))
        total += codes.size
    return coded / max(1, total)
