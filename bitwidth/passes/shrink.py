"""`Shrink` and `ShrinkDense`: fewer units, so that layers are really smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Self

import numpy as np
from typing_extensions import override

from bitwidth.analysis import Fisher, InputMoments
from bitwidth.analysis.cost import cost_of
from bitwidth.context import NOT_SELECTED, Context, check_choice, check_count
from bitwidth.encodings import pattern_of_mask
from bitwidth.errors import ConfigError, ModelError, Refused
from bitwidth.graph import Graph, Where, check_where, frozen_where
from bitwidth.graph.labels import Coupling, Group, Removal, couple
from bitwidth.passes.base import Pass, check_finite
from bitwidth.passes.features import features_of
from bitwidth.passes.keeping import Weigh, Width
from bitwidth.passes.keywords import keywords_from
from bitwidth.passes.reestablish import check_patterns, in_pattern, named_again
from bitwidth.passes.refit import refitted
from bitwidth.passes.units import Criterion, rankings
from bitwidth.typing import Array

_CRITERIA = ("magnitude", "activation", "fisher", "reconstruction", None)


@keywords_from(1)
@dataclass(frozen=True)
class Shrink(Pass, name="shrink"):
    """Remove units for good: of dense and recurrent layers, channels, attention heads and their widths.

    What the operations of the model tie together goes together (see `bitwidth.graph.labels`): the outputs of a kernel,
    its bias, the normalisation behind it, and the inputs of all that reads them, through flatten, concat, residual
    additions, shared layers. The result is a plain model with smaller layers. Each removal is a transaction: the
    smaller model is built and has to compute what the model computes with zeros for what is gone, or nothing is changed
    and the report has the reason.

    With data, what reads removed units is solved again by least squares on what the smaller model gives (no labels are
    needed). Masks and grids stay in force; on a grid the solution is rounded with feedback.

    Attributes:
        keep: share of each group's units that stay, a float in (0, 1]: `max(1, floor(keep * units))` of them. Exactly
            one of `keep`, `units`, `macs` and `parameters` is given.
        units: how many units of each group stay; a group that has fewer is left alone.
        macs: share of the model's multiply-accumulate operations that stays, spread over the groups by what units cost
            and save.
        parameters: the same for parameters.
        criterion: by what units are ranked: `"magnitude"` is the norm of the weights that make a unit; `"activation"`
            the power that it contributes to what reads it; `"fisher"` the sum over its weights of w^2 times the
            diagonal Fisher (Molchanov et al. 2019, "Importance estimation for neural network pruning", section 3.1);
            `"reconstruction"` removes one by one what least squares makes up for best (`bitwidth.fitting.removal`).
            None for `"reconstruction"` with data and `"magnitude"` without.
        where: parameters; a group is cut where all the kernels that make its units are among them. What reads the
            units is cut and refitted wherever it is.
        multiple_of: what numbers of units are multiples of, rounded down; one multiple stays at least.
        refit: whether what reads removed units is solved again; needs data, and is left out without.
        inexact: whether groups are cut too whose removal is not the same as zeros: a width that a LayerNormalization
            takes means over, say.
        samples: how many samples of the data are looked at; the first ones.

    Raises:
        ConfigError: no or several widths, or one that is out of its range.

    Example:
        >>> import bitwidth as bw
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(4)])
        >>> bw.PassManager([Shrink(keep=0.5)]).run(model).model.get_layer("hidden").units
        8
    """

    cuts: ClassVar[bool] = True

    keep: float | None = None
    _: KW_ONLY
    units: int | None = None
    macs: float | None = None
    parameters: float | None = None
    criterion: Criterion | None = None
    where: Where = None
    multiple_of: int = 1
    refit: bool = True
    inexact: bool = False
    samples: int = 1024

    def __post_init__(self) -> None:
        self._check_width()
        check_choice(self.criterion, _CRITERIA, self.label, "criterion")
        check_count(self.samples, self.label, "samples")
        for name in ("refit", "inexact"):
            check_choice(getattr(self, name), (True, False), self.label, name)
        check_where(self.where, self.label)
        object.__setattr__(self, "where", frozen_where(self.where))

    def _check_width(self) -> None:
        self.width.check(self.label)

    @property
    def width(self) -> Width:
        """How much stays."""
        return Width(self.keep, self.units, self.macs, self.parameters, self.multiple_of)

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """A group can be cut, and there are data where the criterion needs them."""
        self._check_cut(graph, self._coupled(graph), context)
        if self.criterion == "fisher":
            Fisher(self.samples).check(graph, context)
        elif self.criterion in ("activation", "reconstruction") or (self.refit and context.data is not None):
            InputMoments(self.samples).check(graph, context)

    def _check_cut(self, graph: Graph, coupling: Coupling, context: Context) -> None:
        """Units can be removed, as far as that can be told before they are chosen."""
        if not self.width.is_given:
            return
        counts, groups = self._counts(graph, coupling, context.fresh_notes())
        known = None if self.width.is_budget else counts
        check_patterns(graph, coupling, groups, known, self.multiple_of, self.label)
        if self.width.is_budget:
            self.width.check_room(groups, self._weigh(graph, coupling), self.label)
        if graph.structure.own_code and graph.structure is context.session.graph.structure:
            left = {group.name: counts.get(group.name, group.size // 2) for group in groups}
            smaller = {group.name: list(range(max(1, left[group.name]))) for group in groups}
            self._check_possible(graph, context, coupling, smaller)

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Choose units, refit what reads them, and go on with the smaller model."""
        coupling = self._coupled(graph)
        kept = self._chosen(graph, coupling, context, self._criterion(context))
        refit = self.refit and context.data is not None
        if not refit:
            context.remark("nothing refitted" if not self.refit else "nothing refitted: there are no data")
        try:
            return self._removed(graph, context, self._checked(graph, Removal(coupling, kept)), refit)
        except ModelError as error:
            kept = self._possible(graph, context, coupling, kept, error)
            return self._removed(graph, context, self._checked(graph, Removal(coupling, kept)), refit)

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """The groups, with as many units as would stay; which ones is found by magnitude."""
        coupling = self._coupled(graph)
        kept = self._chosen(graph, coupling, context, "magnitude")
        if self._criterion(context) != "magnitude":
            context.remark("planned by magnitude: as many units, but a run takes others")
        removal = self._checked(graph, Removal(coupling, kept))
        self._say(graph, context, removal)
        left, _ = in_pattern(graph, removal)
        return named_again(graph, removal.predicted(left), removal)

    @override
    def ensures(self, before: Graph, after: Graph, context: Context) -> None:
        """All values are finite; shapes are compared as the smaller model is built."""
        check_finite(after, self.label)

    @override
    def at(self, strength: float) -> Self:
        raise ConfigError(
            f"{self.label} cannot be ramped: units that are gone do not come back. Remove some at a time with "
            f"Repeat(PassManager([{self.label}(...), Finetune(...)]), times=...)"
        )

    def _criterion(self, context: Context) -> Criterion:
        return self.criterion or ("magnitude" if context.data is None else "reconstruction")

    def _removed(self, graph: Graph, context: Context, removal: Removal, refit: bool) -> Graph:
        given = graph
        graph, gone = in_pattern(graph, removal)
        changed: Mapping[str, Array] = refitted(graph, context, removal, self.samples) if refit else {}
        after = named_again(given, context.session.rebuild(graph.update(changed), removal), removal)
        self._say(graph, context, removal)
        context.notes.refitted.update(gone)
        for path, count in gone.items():
            pattern = pattern_of_mask(given[path].encoding)
            context.remark(f"{path}: {count:,} more weights are zero, so that what is left is {pattern}")
        if changed:
            context.notes.refitted.update(changed)
            context.remark(f"refitted: {', '.join(changed)}")
        return after

    def _check_possible(
        self, graph: Graph, context: Context, coupling: Coupling, kept: Mapping[str, list[int]]
    ) -> None:
        """Raise if the model computes with sizes that it does not show, so that no group can be cut."""
        kept = {name: units for name, units in kept.items() if len(units) < coupling[name].size}
        if not kept:
            return
        try:
            context.session.check_rebuild(graph, Removal(coupling, kept))
        except ModelError as error:
            self._possible(graph, context.fresh_notes(), coupling, kept, error)

    def _possible(
        self, graph: Graph, context: Context, coupling: Coupling, kept: Mapping[str, list[int]], failed: ModelError
    ) -> dict[str, list[int]]:
        """The groups that can be cut by themselves; for the others a remark says why not.

        Raises:
            ModelError: there is none; why all of them failed together is the reason.
        """
        bound: list[set[str]] = []
        for name in kept:
            if not any(name in names for names in bound):
                bound.append({name, *coupling[name].same_size} & set(kept))
        found: dict[str, list[int]] = {}
        for names in bound:
            part = {name: kept[name] for name in kept if name in names}
            try:
                context.session.check_rebuild(graph, Removal(coupling, part))
            except ModelError as error:
                context.remark(f"{', '.join(part)}: left alone, {error}")
            else:
                found |= part
        if not found:
            raise ModelError(f"{self.label}: nothing could be removed: {failed}") from failed
        return found

    def _coupled(self, graph: Graph) -> Coupling:
        return couple(graph)

    def _checked(self, graph: Graph, removal: Removal) -> Removal:
        """A removal that the patterns of masks allow."""
        counts = {name: np.size(units) for name, units in removal.kept.items()}
        groups = [removal.coupling[name] for name in counts]
        check_patterns(graph, removal.coupling, groups, counts, self.multiple_of, self.label)
        return removal

    def _chosen(self, graph: Graph, coupling: Coupling, context: Context, criterion: Criterion) -> dict[str, list[int]]:
        """By the name of each group that is cut, the units that stay."""
        context.remark(f"units ranked by {criterion}")
        return self._kept(graph, coupling, context, criterion) if self.width.is_given else {}

    def _kept(self, graph: Graph, coupling: Coupling, context: Context, criterion: Criterion) -> dict[str, list[int]]:
        counts, groups = self._counts(graph, coupling, context)
        for frozen in coupling.frozen:
            context.notes.skipped.setdefault(frozen.path, f"axis {frozen.axis} stays: {frozen.reason}")
        gone = None if self.width.is_budget else {group.name: group.size - counts[group.name] for group in groups}
        ranked = rankings(graph, context, groups, criterion, self.samples, gone)
        if self.width.is_budget:
            weigh = self._weigh(graph, coupling)
            budget = self.width.check_room(groups, weigh, self.label)
            counts = self.width.within(groups, ranked, weigh, budget)
        kept = {}
        for group in groups:
            if counts[group.name] < group.size:
                gone_ = set(ranked[group.name].order[: group.size - counts[group.name]].tolist())
                kept[group.name] = [unit for unit in range(group.size) if unit not in gone_]
        return kept

    def _say(self, graph: Graph, context: Context, removal: Removal) -> None:
        """Remark on what is left of each group and of the model."""
        coupling, kept = removal.coupling, removal.kept
        for name, units in kept.items():
            context.remark(f"{name}: {np.size(units)} of {coupling[name].size} units stay")
        if any(coupling[name].input for name in kept):
            found = removal.kept_inputs(graph)
            assert found is not None
            context.remark(f"columns of the inputs that stay: {', '.join(map(str, found.columns))}")
        before, after = cost_of(graph, coupling), cost_of(graph, coupling, kept)
        for name, was, now in (("parameters", before.parameters, after.parameters), ("MACs", before.macs, after.macs)):
            context.remark(f"{name}: {was:,} to {now:,} ({now / max(was, 1):.1%})")

    def _weigh(self, graph: Graph, coupling: Coupling) -> Weigh:
        """What the budget is of, with so many units left in groups."""

        def weigh(counts: Mapping[str, int]) -> float:
            found = cost_of(graph, coupling, {name: range(count) for name, count in counts.items()})
            return float(found.parameters if self.macs is None else found.macs)

        return weigh

    def _counts(self, graph: Graph, coupling: Coupling, context: Context) -> tuple[dict[str, int], list[Group]]:
        """The groups that are cut, and how many units of each stay, where that is given.

        Raises:
            ConfigError: no group can be cut; with the reasons.
        """
        inside = context.selection(graph, self.where).paths
        reasons = {group.name: self._unfit(graph, group, inside) for group in coupling.groups}
        counts = {}
        for group in coupling.groups:
            try:
                counts[group.name] = self.width.of(group)
            except Refused as refusal:
                reasons[group.name] = reasons[group.name] or refusal.reason
        groups = [
            group for group in coupling.groups if not any(reasons.get(name) for name in (group.name, *group.same_size))
        ]
        for group in coupling.groups:
            if group not in groups:
                other = next((name for name in group.same_size if reasons.get(name)), "")
                why = reasons[group.name] or f"its layer is made with {other}, which is left alone"
                for member in group.producers or group.members:
                    context.notes.skipped.setdefault(member.path, why)
        if not groups:
            given = [reason for reason in reasons.values() if reason] or [item.reason for item in coupling.frozen]
            raise ConfigError(f"{self.label}: nothing to remove: {'; '.join(dict.fromkeys(given)) or 'no units'}")
        return counts, groups

    def _unfit(self, graph: Graph, group: Group, inside: frozenset[str]) -> str | None:
        """Why a group is left alone."""
        made = [member.path for member in group.producers]
        if group.input:
            return f"its units are features of the model's input {group.input}"
        if not made:
            return "nothing in the model makes its units"
        if not all(path in inside for path in made):
            return NOT_SELECTED
        if not group.exact and not self.inexact:
            return f"removing is not the same as zeros there: {'; '.join(group.reasons)}"
        return None


@keywords_from(1)
@dataclass(frozen=True)
class ShrinkDense(Shrink, name="shrink_dense"):
    """`Shrink` for dense layers: groups whose units are all made by Dense layers, and the features of a flat input.

    100 units at `keep=7/8` become 87: rounded down.

    With `inputs=7` the model takes 7 features afterwards. `result.kept_inputs` has their columns, as the data had them
    before the first cut; so has the file. Data for the passes behind it, for validation and for later runs have all
    columns or those that are left: they are told apart by their number.

    Attributes:
        inputs: how many features of the model's flat input stay, of shape (batch, features): those that the criterion
            says are missed most. With it, `keep` and the other widths may be left out, and nothing else is cut then.

    Example:
        >>> import bitwidth as bw
        >>> import keras
        >>> layers = [keras.Input((8,)), keras.layers.Dense(100, "relu", name="hidden"), keras.layers.Dense(4)]
        >>> bw.PassManager([ShrinkDense(keep=7 / 8)]).run(keras.Sequential(layers)).model.get_layer("hidden").units
        87
        >>> result = bw.PassManager([ShrinkDense(inputs=5)]).run(keras.Sequential(layers))
        >>> result.model.input_shape, len(result.kept_inputs)
        ((None, 5), 5)
    """

    inputs: int | None = None

    @override
    def __post_init__(self) -> None:
        if self.inputs is not None:
            check_count(self.inputs, self.label, "inputs")
        super().__post_init__()

    @override
    def _check_width(self) -> None:
        if self.inputs is None or self.width.is_given:
            self.width.check(self.label)

    @override
    def _check_cut(self, graph: Graph, coupling: Coupling, context: Context) -> None:
        """As for `Shrink`, and the model has one flat input of as many features."""
        super()._check_cut(graph, coupling, context)
        if self.inputs is not None:
            features = features_of(graph, coupling, self.inputs, self.label)
            groups = features.groups(coupling)
            counts = {groups[0].name: self.inputs} if len(groups) == 1 else None
            check_patterns(graph, coupling, groups, counts, 1, self.label)

    @override
    def _coupled(self, graph: Graph) -> Coupling:
        return couple(graph, inputs=self.inputs is not None)

    @override
    def _chosen(self, graph: Graph, coupling: Coupling, context: Context, criterion: Criterion) -> dict[str, list[int]]:
        kept = super()._chosen(graph, coupling, context, criterion)
        if self.inputs is None:
            return kept
        features = features_of(graph, coupling, self.inputs, self.label)
        groups = features.groups(coupling)
        gone = {groups[0].name: features.size - self.inputs} if len(groups) == 1 else None
        left = features.left(rankings(graph, context, groups, criterion, self.samples, gone), self.inputs)
        count = features.count(left)
        if count > self.inputs:
            context.remark(f"{count} features stay, not {self.inputs}: some go together")
        return kept | left

    @override
    def _unfit(self, graph: Graph, group: Group, inside: frozenset[str]) -> str | None:
        kinds = {graph.layers[graph[member.path].layer].kind for member in group.producers}
        if kinds - {"Dense"}:
            return f"its units are made by {', '.join(sorted(kinds - {'Dense'}))}"
        return super()._unfit(graph, group, inside)
