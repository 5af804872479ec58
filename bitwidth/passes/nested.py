"""`Nested`: train one model whose codes can be cut to fewer bits."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from itertools import pairwise
from typing import Self

from typing_extensions import override

from bitwidth.backend import Progress
from bitwidth.context import Context, Notes
from bitwidth.encodings import PrefixLevels, Quantized, ordered, prefix, rebased
from bitwidth.errors import ConfigError
from bitwidth.events import Watch
from bitwidth.fitting import fit_scale
from bitwidth.graph import Graph
from bitwidth.passes.base import Pass, TrainingPass
from bitwidth.passes.finetune import Finetune
from bitwidth.passes.keywords import keywords_from
from bitwidth.passes.quantize import Quantize
from bitwidth.passes.ramp import Ramp
from bitwidth.passes.stages import frozen_apart
from bitwidth.passes.wrapping import Wrapping
from bitwidth.typing import is_integer


@keywords_from(2)
@dataclass(frozen=True)
class Nested(Wrapping, name="nested"):
    """Quantize, and train so that the first bits of the codes make a good model too.

    Every step of the training runs at one of the widths, in turn: layers read the first bits of their codes
    (`bitwidth.encodings.prefix`). Masters, scales and everything else are shared, so one file holds all the models:
    `bw.load(path)` gives the widest, `bw.load(path, bits=4)` reads less of the file and gives a narrower one (Nair et
    al. 2025, "Matryoshka Quantization", section 3; Yu et al. 2021, "Any-Precision Deep Neural Networks", section 3).

    Each width has every n-th step. Scales start where the squared error of the narrowest width is least, since it has
    the furthest to go, and are learned over all widths where `during` learns steps.

    What does not train (frozen layers) stays at the widest width while the others train; the report names it.

    The means and variances of BatchNorm are shared too: they move at every step, whatever its width, and end as
    averages over the widths.

    Attributes:
        of: how to quantize; the symmetric uniform rule, with `bits`.
        widths: the widths in bits, falling: first those of `of`, none below 2.
        during: the training.

    Raises:
        ConfigError: a field is out of its range, or the fields do not fit each other.

    Example:
        >>> from bitwidth import Finetune
        >>> nested = Nested(of=Quantize(bits=8), widths=(8, 4, 2), during=Finetune(epochs=4, loss="mse"))
        >>> nested.widths
        (8, 4, 2)
    """

    of: Quantize
    widths: tuple[int, ...]
    _: KW_ONLY
    during: TrainingPass

    @override
    def __post_init__(self) -> None:
        if not isinstance(self.of, Quantize):
            raise ConfigError(f"Nested: of must be a Quantize, got {self.of!r}")
        if not isinstance(self.of.bits, int) or self.of.rule != "uniform" or not self.of.symmetric:
            raise ConfigError(
                "Nested: of must be Quantize with bits (one number) and the symmetric uniform rule: other codes "
                "have no first bits"
            )
        if not isinstance(self.during, TrainingPass) or isinstance(self.during, Ramp):
            raise ConfigError(f"Nested: during must be a training pass such as Finetune, got {self.during!r}")
        if isinstance(self.during, Finetune) and self.during.pays:
            raise ConfigError("Nested: what a prefix of codes costs is not known: leave price and size out of `during`")
        if not isinstance(self.widths, list | tuple) or len(self.widths) < 2:
            raise ConfigError(f"Nested: widths must be two or more numbers of bits, got {self.widths!r}")
        widths = tuple(self.widths)
        if any(not is_integer(bits) or bits < 2 for bits in widths):
            raise ConfigError(f"Nested: widths must be integers of at least 2, got {widths!r}")
        if any(wide <= narrow for wide, narrow in pairwise(widths)):
            raise ConfigError(f"Nested: widths must fall, each below the one before, got {widths!r}")
        if widths[0] != self.of.bits:
            raise ConfigError(f"Nested: the first width is that of `of`, {self.of.bits} bits, got {widths[0]}")
        object.__setattr__(self, "widths", widths)

    def width(self, step: int, total: int) -> int:
        """The width in bits at which a step of the training runs, counted from 0; the widest when all are done."""
        return self.widths[0] if step >= total else self.widths[step % len(self.widths)]

    @property
    @override
    def parts(self) -> tuple[Pass, ...]:
        return (self.of, self.during)

    @override
    def at(self, strength: float) -> Self:
        raise ConfigError("Nested cannot be ramped: it trains by itself")

    @override
    def apply(self, graph: Graph, context: Context) -> Graph:
        """Quantize, then train at all widths in turn; the result holds the widest."""
        page = Notes()
        with self.part(0, replace(context, validation=None, notes=page, watch=Watch())) as (of, inner):
            started = self._started(graph, of.apply(graph, inner))
        ramped = frozen_apart(graph, context)
        at = {bits: _first_bits(started, bits, ramped) for bits in self.widths}

        def switch(progress: Progress, masters: Graph) -> Graph:
            return at[self.width(progress.step, progress.total)]

        with self.part(1, replace(context, every_step=True)) as (during, inner):
            assert isinstance(during, TrainingPass)
            trained = during.train(started, inner, switch)
        self._say(context, started, ramped)
        context.notes.take(Notes(remarks=page.remarks))
        return trained

    @override
    def preview(self, graph: Graph, context: Context) -> Graph:
        """Quantized at the full width; not trained."""
        with self.part(1, replace(context, notes=Notes(foreseen=context.notes.foreseen))) as (during, inner):
            during.preview(graph, inner)
        after = super().preview(graph, context)
        self._say(context, after, frozen_apart(graph, context))
        return after

    @property
    @override
    def label(self) -> str:
        return type(self).__name__

    def _say(self, context: Context, started: Graph, ramped: frozenset[str]) -> None:
        context.remark(f"nested widths: {', '.join(map(str, self.widths))} bits")
        inside = context.selection(started, self.of.where).chosen
        whole = [p.path for p in inside if p.path not in ramped and prefix(p.encoding, self.widths[-1]) != p.encoding]
        if whole:
            context.remark(f"not trainable, so at {self.widths[0]} bits in every step: {', '.join(whole)}")

    def _started(self, before: Graph, after: Graph) -> Graph:
        """`after` with the scales that `of` chose moved to where training starts."""
        encodings = {}
        for parameter in after:
            path, encoding = parameter.path, parameter.encoding
            short = ordered(prefix(encoding, self.widths[-1]))
            if short is not None and encoding is not before[path].encoding:
                floats = after.values.value(path).start
                scale = fit_scale(floats, short.levels, short.block, "mse", encoding.mask).scale
                levels = PrefixLevels(short.levels.integer_bounds[1], 0)  # integers whose first bits are to be read
                encodings[path] = rebased(encoding, Quantized(levels, scale, short.block))
        return after.update(encodings=encodings)


def _first_bits(graph: Graph, bits: int, ramped: frozenset[str]) -> Graph:
    """The graph with only the encodings cut: what is in force during a step, never a snapshot."""
    parameters = tuple(replace(p, encoding=prefix(p.encoding, bits)) if p.path in ramped else p for p in graph)
    return Graph(graph.structure, parameters, graph.values)
