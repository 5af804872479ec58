"""`Prune`: set the least important weights to zero, for good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from math import ceil
from typing import Literal

import numpy as np
from typing_extensions import override

from bitwidth.analysis import Fisher
from bitwidth.context import Context, check_choice, check_count
from bitwidth.encodings import masked
from bitwidth.errors import ConfigError, ContractError
from bitwidth.graph import Graph, Parameter, Where, check_where, frozen_where
from bitwidth.passes.base import Pass
from bitwidth.passes.choosing import Choosing
from bitwidth.passes.compensation import compensated
from bitwidth.passes.criteria import (
    Function,
    Losses,
    Parameters,
    by_fisher,
    by_function,
    by_inputs,
    by_magnitude,
    by_movement,
)
from bitwidth.passes.keywords import keywords_from
from bitwidth.passes.layout import layout_of
from bitwidth.passes.patterns import Block, Pattern, pattern_of
from bitwidth.passes.ranking import Mask, output_channels
from bitwidth.passes.roles import is_matrix
from bitwidth.typing import is_number

_LITTLE = 0.2  # of what an even share of the sparsity would leave
_SHORT = 0.005  # a sparsity that whole units miss by more is told
Criterion = Literal["magnitude", "activation", "fisher", "compensation", "movement"]
CRITERIA = ("magnitude", "activation", "fisher", "compensation", "movement")


@keywords_from(1)
@dataclass(frozen=True)
class Prune(Pass, name="prune"):
    """Mask the weights of least importance. What is masked stays zero in every later pass.

    Attributes:
        sparsity: share of the chosen weights to be zero, 0 up to but not including 1; weights that are masked already
            count. With the pattern `"n:m"` it may be left out: 1 - n / m.
        pattern: which weights go together. `"unstructured"`: each by itself. `"n:m"`, `"2:4"` say: n of every m
            consecutive inputs of an output stay (input channels, at each position of a convolution's window), as
            sparse matrix units take them (Mishra et al. 2021, "Accelerating sparse deep neural networks", section 3).
            `bw.Block(inputs, outputs)`: blocks of a kernel; `"block"` is `Block(4, 1)`. `"rows"`: all weights of an
            input; `"columns"`: all weights of an output; of a table that is looked up its rows and its features.
            Kernels without such an axis, or whose inputs m does not divide, are left alone, with the reason.
        scope: `"global"` ranks all chosen weights together, so that layers with little to lose lose more; `"local"`
            takes the same share of every tensor.
        criterion: what is lost with a weight.
            `"magnitude"`: its square. `"activation"`: its square times the mean square of its input, the change of its
            output (Sun et al. 2023, "A simple and effective pruning approach for large language models", section 3);
            needs data, no labels. With `scope="global"` the layer-adaptive form of both is taken, which can be compared
            between layers (Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning", section 3).
            `"fisher"`: its square times the mean squared gradient of the log-likelihood, the second-order loss increase
            under a diagonal Fisher (Theis et al. 2018, "Faster gaze prediction with dense networks and Fisher pruning",
            section 2); `bw.Fisher(...)` sets how it is measured.
            `"compensation"`: the change of its output that is left when the other weights of the output make up for it,
            which they do: those that stay are fitted to the inputs (Hassibi and Stork 1993, "Optimal brain surgeon";
            Frantar and Alistarh 2023, "SparseGPT"); needs data, no labels. Weights on a grid end on it. Not for
            `"columns"`, of which nothing stays.
            `"movement"`: how far training moves it away from zero (Sanh et al. 2020, "Movement pruning", section 4),
            in a `bw.Ramp(..., during=...)` only.
            A function of the parameter, the graph and the context that returns a number for each weight, of the
            parameter's shape, the least of which go first.
            A tensor of which a criterion can say nothing is pruned by magnitude, to the same share as the others, and
            a remark says so.
        where: the parameters, by path or layer; None for all kernels and embeddings.
        floor: what every tensor keeps, as a share of what `scope="local"` would leave it; where it is above 0, each
            output channel of the kernels in front of the model's outputs keeps a weight too. The total is `sparsity`
            all the same: other tensors lose more. At least one unit of a tensor always stays.
        samples: how many samples of the data `"activation"` and `"compensation"` look at, at most; the first ones.

    Raises:
        ConfigError: a field is out of its range; the floors leave no room for the sparsity.

    Example:
        >>> Prune(0.9).at(0.5).sparsity
        0.45
        >>> Prune(pattern="2:4", criterion="activation").sparsity
        0.5
    """

    sparsity: float | None = None
    _: KW_ONLY
    scope: Literal["global", "local"] = "global"
    criterion: Criterion | Fisher | Function = "magnitude"
    where: Where = None
    floor: float = 0.2
    pattern: str | Block = "unstructured"
    samples: int = 2048

    def __post_init__(self) -> None:
        object.__setattr__(self, "sparsity", _sparsity(self.sparsity, self.rule, self.pattern))
        if not is_number(self.floor):
            raise ConfigError(f"Prune: floor must be a number from 0 to 1, got {self.floor!r}")
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"Prune: floor must be from 0 to 1, got {self.floor}")
        check_choice(self.scope, ("global", "local"), "Prune", "scope")
        named = isinstance(self.criterion, str) and self.criterion in CRITERIA
        is_function = callable(self.criterion) and not isinstance(self.criterion, type)
        if not (named or is_function or isinstance(self.criterion, Fisher)):
            shown = ", ".join(f'"{name}"' for name in CRITERIA)
            raise ConfigError(
                f"Prune: criterion must be {shown}, Fisher(...) or a function of a parameter, a graph and a context, "
                f"got {self.criterion!r}"
            )
        if self.criterion == "compensation" and self.pattern == "columns":
            raise ConfigError(
                'Prune: criterion="compensation" with pattern="columns": of an output that goes as a whole no weight '
                'stays to make up for the others; give criterion="activation"'
            )
        check_count(self.samples, "Prune", "samples")
        check_where(self.where, "Prune")
        object.__setattr__(self, "where", frozen_where(self.where))

    @property
    def rule(self) -> Pattern:
        """What `pattern` says."""
        return pattern_of(self.pattern, "Prune")

    @property
    def share(self) -> float:
        """The sparsity, of n:m too where it was left out."""
        assert self.sparsity is not None
        return self.sparsity

    @property
    def is_complete(self) -> bool:
        """Whether the sparsity is all that the pattern asks for: n:m with less is on its way there, in a ramp say."""
        return self.rule.most == 1 or self.share >= self.rule.most

    @property
    def fisher(self) -> Fisher | None:
        """The question that the criterion asks, or None for another criterion."""
        if isinstance(self.criterion, Fisher):
            return self.criterion
        return Fisher() if self.criterion == "fisher" else None

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """There is something to prune, the floors leave room for it, and what the criterion needs is there."""
        unfit = self._unfit(graph)
        context.need_some(graph, self.where, unfit, "Prune")
        self._check_room(graph, context.selection(graph, self.where, unfit).chosen)
        if self.fisher is not None:
            self.fisher.check(graph, context)
        if self.criterion in ("activation", "compensation"):
            context.session.check_data(context.need_data(f'Prune(criterion="{self.criterion}")'), "data")
        if self.criterion == "movement" and context.origin is None:
            raise ConfigError(
                'Prune: criterion="movement" tells by what training does to the weights: put it into a ramp, '
                'Ramp(Prune(..., criterion="movement"), during=...)'
            )

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Mask the weights of least importance."""
        chosen = context.choose(graph, self.where, self._unfit(graph))
        if self.criterion == "compensation" and self.share:
            after = compensated(graph, context, chosen, self._choosing(graph, chosen), self.samples)
        else:
            after = self._masked(graph, chosen, self._losses(graph, context, chosen))
        self._say(graph, after, context, chosen)
        return after

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """Magnitude in place of what data or training would tell: as many weights, but others."""
        chosen = context.choose(graph, self.where, self._unfit(graph))
        self._check_room(graph, chosen)
        if self.criterion != "magnitude":
            name = "Fisher" if self.fisher is not None else _name(self.criterion)
            context.remark(f"planned by magnitude: as many weights, but a run by {name} takes others, of other layers")
        after = self._masked(graph, chosen, by_magnitude(graph, chosen))
        self._say(graph, after, context, chosen)
        return after

    @override
    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        """The masks have the pattern, and hide at least the share that was asked for, up to one unit per tensor."""
        chosen = context.selection(after, self.where, self._unfit(before)).chosen
        choosing = self._choosing(before, chosen)
        total, hidden, slack = 0, 0, 0
        for parameter in chosen:
            mask, earlier = _mask(parameter), _mask(before[parameter.path])
            total, hidden = total + mask.size, hidden + mask.size - int(mask.sum())
            units = choosing.units(parameter)
            slack += 1 if units.labels is None else int(units.sums(np.ones(units.shape)).max())
            broken = self.rule.broken(earlier, mask, choosing.layouts[parameter.path])
            if broken is not None and self.is_complete:
                raise ContractError(f"Prune: {parameter.path} is not pruned in the pattern {self.pattern}: {broken}")
        if hidden < int(self.share * total) - slack:
            raise ContractError(f"Prune({self.sparsity}) masked {hidden:,} of {total:,} weights")

    @override
    def at(self, strength: float) -> Prune:
        """A share of the sparsity.

        Raises:
            ConfigError: the criterion fits the weights that stay.
        """
        if self.criterion == "compensation":
            raise ConfigError(
                'Prune: criterion="compensation" fits the weights that stay, which training does in a ramp; '
                'ramp by "magnitude", "activation", "fisher" or "movement", or compensate and train then'
            )
        return replace(self, sparsity=self.share * strength)

    def _losses(self, graph: Graph, context: Context, chosen: Parameters) -> Losses:
        """What the criterion says; at a ramp's start nothing goes, by whatever criterion, and nothing is asked."""
        if self.criterion == "magnitude" or not self.share:
            return by_magnitude(graph, chosen)
        if self.fisher is not None:
            return by_fisher(graph, context, chosen, self.fisher)
        if self.criterion == "activation":
            return by_inputs(graph, context, chosen, self.samples)
        if self.criterion == "movement":
            return by_movement(graph, context, chosen)
        assert callable(self.criterion)
        return by_function(graph, context, chosen, self.criterion)

    def _masked(self, graph: Graph, chosen: Parameters, losses: Losses) -> Graph:
        choosing = self._choosing(graph, chosen)
        masks = choosing.masks(chosen, losses)
        return graph.update(
            encodings={p.path: masked(p.encoding, masks[p.path], choosing.pattern_name) for p in chosen}
        )

    def _choosing(self, graph: Graph, chosen: Parameters) -> Choosing:
        return Choosing.on(graph, chosen, self.rule, self.share, self.scope, self.floor)

    def _check_room(self, graph: Graph, chosen: Parameters) -> None:
        self._choosing(graph, chosen).check_room(chosen, by_magnitude(graph, chosen))

    def _unfit(self, graph: Graph) -> Callable[[Parameter], str | None]:
        """Why a parameter is left alone, or None."""
        outputs = output_channels(graph) if self.floor and self.pattern == "columns" else {}

        def unfit(parameter: Parameter) -> str | None:
            if not is_matrix(parameter):
                return f"{parameter.role}: only kernels and embeddings are pruned"
            if parameter.dtype != "float32":
                return f"{parameter.dtype}: only float32 values are pruned"
            if not parameter.size:
                return "it has no values"
            if parameter.path in outputs:
                return "its columns are outputs of the model; with floor=0 they are pruned too"
            return self.rule.unfit(layout_of(graph, parameter))

        return unfit

    def _say(self, before: Graph, after: Graph, context: Context, chosen: Parameters) -> None:
        """Remark on what is left nearly empty, on masks of before, and on a sparsity that whole units do not reach."""
        total = hidden = 0
        for parameter in chosen:
            keep = _mask(after[parameter.path])
            left = int(keep.sum())
            total, hidden = total + keep.size, hidden + keep.size - left
            if left < keep.size and left <= ceil(_LITTLE * (1 - self.share) * keep.size):
                context.remark(f"{parameter.path}: nearly emptied, {left:,} of {keep.size:,} weights stay")
        if hidden < (self.share - _SHORT) * total:
            context.remark(f"{hidden / total:.1%} are zero, of {self.share:.1%} asked for: units go as a whole")
        again = [p for p in chosen if p.encoding.mask is not None and not _mask(p).all()]
        more = [p for p in again if _mask(after[p.path]).sum() < _mask(p).sum()]
        if more:
            context.remark(
                f"{len(more)} tensors had masks: their zeros stay, n:m and blocks of zeros too, and others came on top"
            )


def _sparsity(given: object, rule: Pattern, pattern: object) -> float:
    """The sparsity of a pass.

    Raises:
        ConfigError: it is not from 0 up to what the pattern leaves.
    """
    if given is None and rule.most < 1:
        return rule.most
    if given is None:
        raise ConfigError('Prune: give sparsity, a number from 0 up to 1; the pattern "n:m" alone has one of its own')
    if not is_number(given):
        raise ConfigError(f"Prune: sparsity must be a number from 0 up to 1, got {given!r}")
    if not 0 <= given < 1:
        raise ConfigError(f"Prune: sparsity must be at least 0 and below 1, got {given}")
    if given > rule.most:
        raise ConfigError(f"Prune: the pattern {pattern} leaves {rule.most:g} zero, got sparsity={given:g}")
    return given


def _mask(parameter: Parameter) -> Mask:
    mask = parameter.encoding.mask
    return np.ones(parameter.shape, np.bool_) if mask is None else mask


def _name(criterion: object) -> str:
    return criterion if isinstance(criterion, str) else getattr(criterion, "__name__", repr(criterion))
