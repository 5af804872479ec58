"""`Quantize`: hold parameters in few bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bitwidth.context import Context
from bitwidth.errors import ConfigError, ContractError
from bitwidth.graph import Graph, Parameter, Where, check_where, frozen_where
from bitwidth.passes.base import Pass
from bitwidth.passes.roles import is_matrix
from bitwidth.tensors import (
    MAX_BITS,
    Dense,
    Encoding,
    Granularity,
    block_of,
    check_granularity,
    fit_scale,
    rebased,
    small_format,
    uniform_levels,
)

MILDEST_BITS = 8


@dataclass(frozen=True)
class Quantize(Pass, name="quantize"):
    """Hold kernels and embeddings on a grid of `bits` bits, and parameters of one number per channel in 16 bits.

    Weights are rounded to the nearest level. Masks stay: pruned values are zero whatever the grid. Biases and the
    scales, offsets, means and variances of normalisations are a few percent of the values but most of the bytes once
    kernels are at 4 bits; they are held as float16 (bfloat16 where the values leave its range), which costs half, and
    the file entropy-codes their bytes.

    Attributes:
        bits: width of a code, 1 to 16. One bit holds -scale and +scale; from two on, the symmetric integers times
            scale.
        granularity: `"channel"` (one scale per output channel), `"tensor"`, or n for groups of n inputs within a
            channel.
        where: the parameters, by path or layer (see `bitwidth.graph.selectors`); None for all.
        scale: `"mse"` searches the scale of least squared error, `"max"` puts the greatest magnitude on the outermost
            level.
        rounding: `"nearest"`.
        vectors: `"16-bit"` for the one-number-per-channel parameters, or None to leave them as they are.

    Raises:
        ConfigError: a field is out of its range.

    Example:
        >>> Quantize(bits=4, granularity=64)
        Quantize(bits=4, granularity=64, where=None, scale='mse', rounding='nearest', vectors='16-bit')
    """

    bits: int
    granularity: Granularity = "channel"
    where: Where = None
    scale: Literal["mse", "max"] = "mse"
    rounding: Literal["nearest"] = "nearest"
    vectors: Literal["16-bit"] | None = "16-bit"

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 1 <= self.bits <= MAX_BITS:
            raise ConfigError(f"Quantize: bits must be a whole number from 1 to {MAX_BITS}, got {self.bits!r}")
        check_granularity(self.granularity, "Quantize")
        check_where(self.where, "Quantize")
        object.__setattr__(self, "where", frozen_where(self.where))
        if self.scale not in ("mse", "max"):
            raise ConfigError(f'Quantize: scale must be "mse" or "max", got {self.scale!r}')
        if self.rounding != "nearest":
            raise ConfigError(f'Quantize: rounding must be "nearest", got {self.rounding!r}')
        if self.vectors not in ("16-bit", None):
            raise ConfigError(f'Quantize: vectors must be "16-bit" or None, got {self.vectors!r}')

    def check(self, graph: Graph, context: Context) -> None:
        """The selection names something that can be quantized."""
        context.need_some(graph, self.where, self._unfit, "Quantize")

    def apply(self, graph: Graph, context: Context) -> Graph:
        """Give each chosen parameter its grid or format."""
        encodings: dict[str, Encoding] = {}
        for parameter in context.choose(graph, self.where, self._unfit):
            encoding = self._grid(graph, parameter) if is_matrix(parameter) else self._vector(graph, parameter)
            if encoding is None:
                context.skip(parameter, "values beyond the range of 16-bit floats")
            else:
                encodings[parameter.path] = encoding
        return graph.update(encodings=encodings)

    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        """Every chosen kernel has codes of at most `bits` bits."""
        for parameter in context.fresh_notes().choose(after, self.where, self._unfit):
            if is_matrix(parameter) and parameter.encoding.bits > self.bits:
                raise ContractError(f"Quantize left {parameter.path} at {parameter.encoding.describe()}")

    def at(self, strength: float) -> Quantize:
        """From 8 bits (or `bits`, if that is more) down to `bits`."""
        if self.bits == 1:
            raise ConfigError("Quantize(1) cannot be ramped: one bit has other levels than two; ramp to 2 bits first")
        mildest = max(MILDEST_BITS, self.bits)
        return replace(self, bits=max(self.bits, round(mildest + (self.bits - mildest) * strength)))

    def _unfit(self, parameter: Parameter) -> str | None:
        if not parameter.is_float:
            return f"{parameter.dtype} is not a floating point dtype"
        if parameter.dtype != "float32":
            return f"{parameter.dtype}: grids and formats are computed and stored as float32"
        if not is_matrix(parameter) and self.vectors is None:
            return f"{parameter.role}: one number per channel, and vectors=None"
        if not parameter.size:
            return "it has no values"
        return None

    def _grid(self, graph: Graph, parameter: Parameter) -> Encoding:
        block = block_of(parameter.shape, self.granularity, parameter.channel_axes, parameter.input_axes)
        keep = parameter.encoding.mask
        grid = fit_scale(graph.values[parameter.path], uniform_levels(self.bits), block, self.scale, keep)
        return rebased(parameter.encoding, grid)

    def _vector(self, graph: Graph, parameter: Parameter) -> Encoding | None:
        if parameter.encoding.bits <= 16:
            return parameter.encoding
        name = small_format(graph.values[parameter.path])
        return None if name is None else rebased(parameter.encoding, Dense(name))
