"""`Quantize`: hold parameters in few bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.analysis import Fisher
from bitwidth.context import Context
from bitwidth.encodings import (
    MAX_BITS,
    Dense,
    Encoding,
    Granularity,
    block_of,
    rebased,
    small_format,
)
from bitwidth.errors import ConfigError, ContractError
from bitwidth.fitting import Escape, Rule, ScaleMethod, escape, fit
from bitwidth.fitting.rounding import DAMPING, EntropyPrice
from bitwidth.graph import Graph, Parameter, Where, check_where, frozen_where, layer_inputs
from bitwidth.passes.activations import RangeMethod, quantized_inputs
from bitwidth.passes.base import Pass
from bitwidth.passes.importance import fisher_weights, input_power
from bitwidth.passes.keywords import keywords_from
from bitwidth.passes.options import Activations, EntropyRounding, ErrorFeedback, PerGroup, unpack_options
from bitwidth.passes.quantize_fields import check_fields
from bitwidth.passes.roles import is_matrix
from bitwidth.passes.rounding import rounded
from bitwidth.passes.steps import (
    coded_rate,
    equal_loss,
    factor_for_rate,
    finest,
    fixed_steps,
    least_factor,
    settle,
    spreads,
    step_grid,
)
from bitwidth.passes.vectors import few_bits
from bitwidth.passes.widths import NOT_NAMED, Bits, check_named, frozen_bits, width_of, widths_of, with_widths

MILDEST_BITS = 8
_COVERED_BITS = range(8, 12)  # where clipping gains next to nothing; on finer grids the search clips nothing itself


@keywords_from(1)
@dataclass(frozen=True)
class Quantize(Pass, name="quantize"):
    """Hold kernels and embeddings on a grid of few levels, and parameters of one number per channel in 16 bits.

    Say how wide in one of three ways: `bits` for codes of a fixed width (integer hardware), `rate` for a mean number of
    bits per weight in the entropy-coded file, `step` for one uniform step per tensor. With `rate` and `step` integers
    are as wide as needed and the entropy coder pays for what they cost: of equal size this is the more accurate.

    Masks stay: pruned values are zero whatever the grid. Biases and the scales, offsets, means and variances of
    normalisations are a few percent of the values but most of the bytes once kernels are at 4 bits; they are held as
    float16 (bfloat16 where the values leave its range), which costs half, and the file entropy-codes their bytes.

    Attributes:
        bits: width of a code, 1 to 16. One bit holds -scale and +scale; from two on, the symmetric integers times
            scale. The rules "ternary" and "binary" and a `BitRule` bring their own width: leave it out. A dict gives
            widths by layer, `{"conv1": 8, "head*": 6, None: 4}`: None stands for all that no other path names, and
            without it those are left unchanged.
        rate: mean entropy-coded bits per unmasked weight, excluding per-tensor overhead; above 0 and at most 16.
        step: one uniform step for each tensor, in units of the standard deviation of its weights; above 0.
        rule: which levels a code can stand for. `"uniform"`; `"power_of_two"`: 0, +-1, +-2, +-4, ...; `"codebook"`:
            learned by weighted k-means; `"ternary"`; `"binary"`; or `bw.BitRule(...)`, a table of your own.
        granularity: `"channel"` (one scale per output channel; the default with `bits`), `"tensor"` (the default, and
            the only choice, with `rate` and `step`), or n (`bw.PerGroup(n)`) for groups of n inputs within a
            channel.
        symmetric: False gives the uniform rule an integer zero point per scale, for lopsided values.
        where: the parameters, by path or layer (see `bitwidth.graph.selectors`); None for all.
        scale: `"mse"` searches the scale of least squared error, `"max"` puts the greatest magnitude on the outermost
            level. At 8 to 11 bits the uniform rule does the latter in any case: clipping gains a percent or two of the
            squared error there, and the one weight that is clipped may be the one that meets the greatest inputs.
        importance: what squared errors are weighted by while scales and levels are searched: None for nothing,
            `"fisher"` for the diagonal Fisher, `"inputs"` for the mean square of the input that a weight meets. The
            last two need data.
        rounding: `"nearest"`; `"error_feedback"`: later weights of an output make up for the errors of earlier ones, by
            the covariance of their inputs (Frantar et al. 2022, "GPTQ"); `"entropy"`: the same, and each code is chosen
            for the least sum of error and code length. The last two need data, without labels, and can be given with
            their options: `bw.ErrorFeedback(damping=...)`, `bw.EntropyRounding(price=...)`.
        scope: with `rate`: `"global"` gives all weights the rate together, at steps that add equal loss by the Fisher
            information where there is data, in proportion to the standard deviation where there is none; `"local"`
            gives each tensor the rate.
        activations: bits of the inputs of every layer that uses a chosen kernel (16, 8, 4, ...): rounded in training
            and in inference, one scale and zero point per tensor; None to leave them in floating point. Needs data.
            With their options: `bw.Activations(bits=8, ranges="max")`.
        ranges: of activations: `"mse"` searches the range of least squared error, `"percentile"` gives up 0.01 % of the
            values at either end, `"max"` covers all that was seen.
        escape: `bw.Escape(...)`: weights that are left as they were, coded sparsely.
        samples: how many samples of the data are looked at, at most.
        damping: added to the diagonal of the input covariance, as a share of its mean, at least; of few samples for
            many inputs it is more, by how far the covariance is expected to be off.
        price: with `rounding="entropy"`: what a bit costs, in units of `step^2` times the mean error weight.
        vectors: of the one-number-per-channel parameters: `"16-bit"`; `"auto"` for floats of few mantissa bits
            (`e8m6` to `e8m1` of `bitwidth.encodings.Dense`, `bfloat16`, or `float16` whose last bits are zero), as many
            for each role as leave the outputs alone. With data they are searched: on at most 1,024 samples the
            divergence from the outputs that the pass was given may grow by 1 %. Without data all are `e8m6` where
            kernels are as coarse as with 4 bits, else in 16 bits. A remark says what was chosen. None leaves them
            unchanged.

    Raises:
        ConfigError: a field is out of its range, or does not go with another.

    Example:
        >>> Quantize(bits=4, granularity=64, rounding="error_feedback").bits
        4
        >>> Quantize(rate=2.5).step is None
        True
    """

    bits: Bits = None
    _: KW_ONLY
    granularity: Granularity | PerGroup | None = None
    where: Where = None
    scale: Literal["mse", "max"] = "mse"
    rounding: Literal["nearest", "error_feedback", "entropy"] | ErrorFeedback | EntropyRounding = "nearest"
    vectors: Literal["16-bit", "auto"] | None = "16-bit"
    rate: float | None = None
    step: float | None = None
    rule: Rule = "uniform"
    symmetric: bool = True
    importance: Literal["fisher", "inputs"] | None = None
    scope: Literal["global", "local"] = "global"
    activations: int | Activations | None = None
    ranges: RangeMethod = "mse"
    escape: Escape | None = None
    samples: int = 2048
    damping: float = DAMPING
    price: float = 0.1

    def __post_init__(self) -> None:
        unpack_options(self)
        object.__setattr__(self, "bits", frozen_bits(self.bits, "Quantize"))
        check_fields(self)
        check_where(self.where, "Quantize")
        object.__setattr__(self, "where", frozen_where(self.where))

    @property
    def needs_data(self) -> bool:
        """Whether inputs are needed."""
        return self.rounding != "nearest" or self.importance is not None or self.activations is not None

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """The selection names something that can be quantized, and there is data where it is needed."""
        check_named(self.bits, graph, "Quantize")
        context.need_some(graph, self.where, self._unfit, "Quantize")
        if self.step is not None:
            chosen = context.selection(graph, self.where, self._unfit).chosen
            fixed_steps(graph, tuple(p for p in chosen if is_matrix(p)), self.step)
        if self.needs_data:
            context.need_data("Quantize")
        if context.data is not None and (self.needs_data or self.vectors == "auto"):
            context.session.check_data(context.data, "data")

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Give each chosen parameter its grid or format."""
        return self._applied(graph, context, context.data is not None)

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """Rounding to nearest, by the values alone."""
        plain = replace(self, rounding="nearest", importance=None, activations=None)
        return plain._applied(graph, context, with_data=False)

    @override
    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        """Every chosen kernel has codes of at most `bits` bits, or all together the rate."""
        chosen = context.selection(after, self.where, self._unfit).chosen
        matrices = tuple(parameter for parameter in chosen if is_matrix(parameter))
        for parameter in matrices:
            if parameter.encoding.bits > (width_of(self.bits, parameter) or parameter.encoding.bits):
                raise ContractError(f"Quantize left {parameter.path} at {parameter.encoding.describe()}")

    @override
    def at(self, strength: float) -> Quantize:
        """From 8 bits (or `bits`, if that is more) down to `bits`.

        Raises:
            ConfigError: there is nothing that could grow, or training would not keep what rounding chose.
        """
        if self.bits is None or self.rule != "uniform" or not self.symmetric or self.escape is not None:
            raise ConfigError("Quantize can be ramped with bits and the symmetric uniform rule only")
        if self.needs_data:
            raise ConfigError(
                'Quantize: a ramp lets training choose the codes; use rounding="nearest", importance=None'
            )
        if 1 in widths_of(self.bits):
            raise ConfigError("Quantize(1) cannot be ramped: one bit has other levels than two; ramp to 2 bits first")
        if self.vectors == "auto":
            raise ConfigError('Quantize: vectors="auto" goes by what a finished model does; in a ramp use "16-bit"')
        return replace(self, bits=with_widths(self.bits, lambda bits: _milder(bits, strength)))

    def _unfit(self, parameter: Parameter) -> str | None:
        if not parameter.is_float:
            return f"{parameter.dtype} is not a floating point dtype"
        if parameter.dtype != "float32":
            return f"{parameter.dtype}: grids and formats are computed and stored as float32"
        if not is_matrix(parameter) and self.vectors is None:
            return f"{parameter.role}: one number per channel, and vectors=None"
        if not parameter.size:
            return "it has no values"
        return NOT_NAMED if self.bits is not None and width_of(self.bits, parameter) is None else None

    def _applied(self, graph: Graph, context: Context, with_data: bool) -> Graph:
        before, matrices, formats = graph, [], {}
        for parameter in context.choose(graph, self.where, self._unfit):
            if is_matrix(parameter):
                matrices.append(parameter)
                continue
            encoding = _vector(graph, parameter)
            if encoding is None:
                context.skip(parameter, "values beyond the range of 16-bit floats")
            else:
                formats[parameter.path] = encoding
        graph = graph.update(encodings=formats)
        graph = self._on_grids(graph, context, tuple(matrices), with_data)
        if self.vectors != "auto":
            return graph
        vectors = [graph[path] for path in formats]
        return few_bits(before, graph, context, vectors, self.samples, with_data)

    def _on_grids(self, graph: Graph, context: Context, chosen: tuple[Parameter, ...], with_data: bool) -> Graph:
        if isinstance(self.activations, int):  # an option was unpacked
            graph = self._with_activations(graph, context, chosen, self.activations)
        if self.rate is not None and chosen:
            return self._at_rate(graph, context, chosen, with_data)
        if self.step is not None:
            return self._on_steps(graph, context, chosen, fixed_steps(graph, chosen, self.step))
        weights = self._importance(graph, context, chosen)
        return self._rounded(graph, context, {p.path: self._grid(graph, p, weights.get(p.path)) for p in chosen})

    def _grid(self, graph: Graph, parameter: Parameter, weights: NDArray[np.float32] | None) -> Encoding:
        if isinstance(self.bits, Mapping):
            return replace(self, bits=width_of(self.bits, parameter))._grid(graph, parameter, weights)
        granularity = self.granularity if isinstance(self.granularity, str | int) else "channel"
        block = block_of(parameter.shape, granularity, parameter.channel_axes, parameter.input_axes)
        bits = self.bits or MAX_BITS

        def grid(keep: NDArray[np.bool_] | None) -> Encoding:
            return fit(
                self.rule,
                bits,
                graph.values[parameter.path],
                block,
                scale=self._method,
                symmetric=self.symmetric,
                keep=keep,
                weights=weights,
            )

        keep = parameter.encoding.mask
        if self.escape is None:
            return rebased(parameter.encoding, grid(keep))
        return rebased(
            parameter.encoding, escape(self.escape, grid, graph.values[parameter.path], keep, parameter.path)
        )

    @property
    def _method(self) -> ScaleMethod:
        """How scales are found: of the uniform rule at some widths so that they cover the greatest magnitude."""
        return "max" if self.rule == "uniform" and self.bits in _COVERED_BITS else self.scale

    def _importance(
        self, graph: Graph, context: Context, chosen: tuple[Parameter, ...]
    ) -> Mapping[str, NDArray[np.float32]]:
        if self.importance == "fisher":
            return fisher_weights(graph, context, chosen, Fisher(samples=self.samples))
        if self.importance == "inputs":
            return {p.path: w for p, w in input_power(graph, context, chosen, self.samples)}
        return {}

    def _rounded(self, graph: Graph, context: Context, encodings: Mapping[str, Encoding]) -> Graph:
        if self.rounding == "nearest" or not encodings:
            return graph.update(encodings=encodings)
        price = EntropyPrice(self.price) if self.rounding == "entropy" else None
        return rounded(graph, context, encodings, self.samples, self.damping, price)

    def _with_activations(self, graph: Graph, context: Context, chosen: tuple[Parameter, ...], bits: int) -> Graph:
        grids = quantized_inputs(graph, context, chosen, bits, self.ranges, self.samples)
        held = graph.update(activations=grids)
        layers = layer_inputs(held.structure)
        context.remark(f"inputs on {bits}-bit grids ({len(grids)} tensors): {', '.join(layers) or 'of no layer'}")
        return held

    def _on_steps(
        self, graph: Graph, context: Context, chosen: tuple[Parameter, ...], steps: Mapping[str, float]
    ) -> Graph:
        grids = {p.path: rebased(p.encoding, step_grid(graph.values[p.path], steps[p.path])) for p in chosen}
        return self._rounded(graph, context, grids)

    def _at_rate(self, graph: Graph, context: Context, chosen: tuple[Parameter, ...], with_data: bool) -> Graph:
        assert self.rate is not None
        if self.scope == "local":
            for parameter in chosen:
                graph = self._together(graph, context, (parameter,), {parameter.path: 1.0})
            return graph
        if with_data:
            fisher = Fisher(samples=min(self.samples, 512))
            relative = equal_loss(graph, context, chosen, context.ask(fisher, graph))
            context.remark(f"steps that add equal loss, by Fisher over at most {fisher.samples:,} samples")
        else:
            relative = spreads(graph, chosen)
        return self._together(graph, context, chosen, relative)

    def _together(
        self, graph: Graph, context: Context, chosen: tuple[Parameter, ...], relative: Mapping[str, float]
    ) -> Graph:
        """Round at the steps that give the rate as coded."""
        assert self.rate is not None
        found, least, tried = graph, finest(graph, chosen), 0.0

        def rate_at(factor: float) -> float:
            nonlocal found, tried
            tried = factor
            steps = {path: max(factor * step, least[path]) for path, step in relative.items()}
            found = self._on_steps(graph, context, chosen, steps)
            return coded_rate(found, tuple(found[p.path] for p in chosen))

        limit = 1.001 * least_factor(least, relative)
        reached = settle(rate_at, factor_for_rate(graph, chosen, relative, self.rate), self.rate, limit)
        whose = f"{chosen[0].path}: " if self.scope == "local" else ""
        words = f"{whose}{reached:.3f} bits per weight as coded, of {self.rate:g} asked for"
        if tried <= limit and reached < self.rate:
            words += ", which cannot be reached: that is all there is to code"
        context.remark(words)
        return found


def _vector(graph: Graph, parameter: Parameter) -> Encoding | None:
    if parameter.encoding.bits <= 16:
        return parameter.encoding
    name = small_format(graph.values[parameter.path])
    return None if name is None else rebased(parameter.encoding, Dense(name))


def _milder(bits: int, strength: float) -> int:
    mildest = max(MILDEST_BITS, bits)
    return max(bits, round(mildest + (bits - mildest) * strength))
