"""How few bits hold the parameters of one number per channel: floats of few mantissa bits, a number of them per role.

Rounding such a parameter moves the outputs of the model; so did rounding the kernels, and by far more. Where the two
moves have parts in common the divergence from the original may grow by ten times what the new move is worth by itself,
or fall, and which of both is not to be told from the values. So it is measured, on the inputs of the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, log2, sqrt

import numpy as np

from bitwidth.analysis import Fisher, divergences
from bitwidth.context import Context
from bitwidth.encodings import FEW_MANTISSA_BITS, Dense, Encoding, Format, rebased
from bitwidth.graph import Graph, Parameter
from bitwidth.probes import OutputProbe
from bitwidth.typing import Array

_LOG = logging.getLogger(__name__)
_SAMPLES, _LEAST = 1024, 16  # that are looked at, at most; fewer than that tell nothing
_GROWTH = 0.01  # of the divergence, at most, with two standard errors
_MOVE = 0.05  # divergence from the model with 16-bit vectors, as a share of that model's own from the original
_NOTHING = 1e-6  # a divergence that nobody needs to spend bits on
_FEW = 0.02  # share of the numbers: a role of fewer takes the most mantissa bits, unsearched
_MOST, _FIRST = 9, 4  # mantissa bits: the most, and those by which a role's sensitivity is told
_MOST_OF_A_FORMAT = 7  # more are those of a float16
_UNSEEN = 6  # mantissa bits without data
_COARSE = 3e-3  # relative squared error of kernels from which on these are safe: that of 4 bits or fewer

Chosen = Mapping[str, int]  # mantissa bits by role


def few_bits(
    before: Graph, after: Graph, context: Context, vectors: Sequence[Parameter], samples: int, with_data: bool
) -> Graph:
    """`after` with its vectors in floats of few mantissa bits where that leaves the outputs alone.

    With data the number of bits of each role is searched: the divergence of the outputs from those of `before`, on at
    most 1,024 samples, may grow by at most 1 % with two standard errors. Without data, with fewer than 16 samples, or
    where no output is of floats, all take 6 mantissa bits beside kernels as coarse as those of 4 bits are, and stay in
    16 bits beside finer ones.

    Args:
        before: the model as the pass got it.
        after: the same with its kernels on grids, and vectors in 16 bits.
        context: of the run.
        vectors: the parameters of one number per channel that were chosen, of `after`.
        samples: how many samples are looked at, at most.
        with_data: whether to look at the data.
    """
    fitting = [p for p in vectors if _mantissa_bits(p.encoding.unmasked) and p.size]
    if not fitting:
        return after
    if not with_data:
        return _by_kernels(before, after, context, fitting, "there is no data")
    judge = _Judge(before, after, context, min(samples, _SAMPLES))
    if not judge.can_tell:
        return _by_kernels(before, after, context, fitting, f"outputs of {_LEAST} samples or more would tell")
    search = _Search(judge, after, fitting)
    found = search.run()
    context.remark(f"vectors: {_words(fitting, search.chosen)}; {judge.words(search.reached)}")
    return found


def held_in(graph: Graph, parameters: Iterable[Parameter], chosen: Chosen) -> Graph:
    """The graph with parameters in as many mantissa bits as their role has; those of other roles stay.

    One that has fewer already stays too, and so does one that would leave the range of floats. More than 7 bits are
    those of a float16 whose last bits are zero, which cost nothing in a file.
    """
    encodings: dict[str, Encoding] = {}
    values: dict[str, Array] = {}
    for parameter in parameters:
        path, bits, held = parameter.path, chosen.get(parameter.role, inf), parameter.encoding.unmasked
        if bits >= _mantissa_bits(held):
            continue
        start = graph.values.value(path).start
        if bits > _MOST_OF_A_FORMAT:
            found = held.project(_rounded(start, int(bits)))
            if np.isfinite(found).all():
                values[path] = parameter.encoding.project(found)
        elif np.isfinite(Dense(format_of(int(bits))).project(start)).all():
            encodings[path] = rebased(parameter.encoding, Dense(format_of(int(bits))))
    return graph.update(values, encodings)


def _rounded(values: Array, mantissa_bits: int) -> Array:
    """Halves go to the even neighbour."""
    share, exponent = np.frexp(values)
    found: Array = np.ldexp(np.rint(np.ldexp(share, mantissa_bits + 1)), exponent - (mantissa_bits + 1))
    return found.astype(np.float32)


def _mantissa_bits(encoding: Encoding) -> float:
    """Of what 16 bits or fewer hold; of nothing else, none that could be fewer."""
    if not isinstance(encoding, Dense) or encoding.format is None or encoding.width > 16:
        return 0
    return 10 if encoding.mantissa_bits is None else encoding.mantissa_bits


def format_of(mantissa_bits: int) -> Format:
    """The format of so many mantissa bits, 1 to 9.

    Example:
        >>> format_of(8), format_of(7), format_of(6), format_of(1)
        ('float16', 'bfloat16', 'e8m6', 'e8m1')
    """
    return (*reversed(FEW_MANTISSA_BITS), "bfloat16", "float16", "float16")[mantissa_bits - 1]


class _Judge:
    """How much further from the original than the model with 16-bit vectors another one is."""

    def __init__(self, before: Graph, after: Graph, context: Context, samples: int) -> None:
        data, session = context.need_data("Quantize"), context.session
        probe, self._likelihoods = OutputProbe(samples), Fisher().likelihoods(before)
        self._outputs: Callable[[Graph], tuple[Array, ...]] = lambda graph: session.probe(graph, probe, data)
        self._given, self._base = self._outputs(before), self._outputs(after)
        self._held = divergences(self._likelihoods, self._given, self._base)

    @property
    def can_tell(self) -> bool:
        """Whether there are outputs to measure, of samples enough."""
        return bool(self._held) and all(len(each) >= _LEAST for each in self._held.values())

    def judge(self, graph: Graph) -> tuple[float, float, float]:
        """Growth of the divergence with two standard errors, growth, and the divergence from the 16-bit model.

        All as shares of the divergence of the 16-bit model, the worst of what there is to measure.
        """
        outputs, worst = self._outputs(graph), (-inf, -inf, 0.0)
        found = divergences(self._likelihoods, self._given, outputs)
        moved = divergences(self._likelihoods, self._base, outputs)
        for name, held in self._held.items():
            more, whole = found[name] - held, max(float(held.mean()), _NOTHING / _GROWTH)
            error = 2 * float(more.std()) / sqrt(len(more))
            each = ((more.mean() + error) / whole, more.mean() / whole, moved[name].mean() / whole)
            worst = tuple(max(float(a), b) for a, b in zip(each, worst, strict=True))  # type: ignore[assignment]
        return worst

    def words(self, growth: float) -> str:
        """What was reached."""
        name, held = next(iter(self._held.items()))
        what = "KL" if name == "kl" else "output error"
        return f"{what} {growth:+.2%} of {held.mean():.3g} with 16 bits, on {len(held):,} samples"


@dataclass
class _Search:
    """The fewest mantissa bits of each role that the judge lets pass, the most sensitive role first.

    Attributes:
        judge: judges a model.
        graph: with vectors in 16 bits.
        vectors: of which the roles are.
        chosen: mantissa bits by role, so far; a role that has none is left in 16 bits.
        reached: growth of the divergence with `chosen`.
    """

    judge: _Judge
    graph: Graph
    vectors: Sequence[Parameter]
    chosen: dict[str, int] = field(default_factory=dict)
    reached: float = 0.0

    def run(self) -> Graph:
        """Search, and the graph with what was found."""
        sizes = {p.role: 0 for p in self.vectors}
        for parameter in self.vectors:
            sizes[parameter.role] += parameter.size
        total = sum(sizes.values())
        few = [role for role, size in sizes.items() if size < _FEW * total]
        moves = {}
        for role in sizes:
            if role not in few:
                moves[role] = self.judge.judge(self._with({role: _FIRST}))[2]
        order = sorted(moves, key=lambda role: -moves[role])
        left = [role for place, role in enumerate(order, 1) if not self._settle(role, moves[role], place / len(order))]
        for role in few:
            self._take(role, _MOST, 1.0)
        for role in (*left, *left):  # what was chosen since may make up for it
            if role not in self.chosen:
                self._settle(role, inf, 1.0)
        for role in sorted(order, key=lambda role: -sizes[role]):  # and leave room
            while self.chosen.get(role, 1) > 1 and self._take(role, self.chosen[role] - 1, 1.0):
                pass
        return self._with(self.chosen)

    def _settle(self, role: str, move: float, share: float) -> bool:
        """Choose the bits of a role, from those on that move outputs little enough; False where all grow too much."""
        least = _FIRST + (log2(max(move, 1e-12) / (_MOVE * share)) / 2 if move < inf else 1)
        return any(self._take(role, bits, share) for bits in range(min(max(1, round(least)), _MOST), _MOST + 1))

    def _take(self, role: str, bits: int, share: float) -> bool:
        bound, growth, move = self.judge.judge(self._with({**self.chosen, role: bits}))
        _LOG.debug("%s in %d mantissa bits: growth %.4f, at most %.4f; moves %.4f", role, bits, growth, bound, move)
        if not (bound <= _GROWTH * share and move <= _MOVE * share):  # NaN passes neither
            return False
        self.chosen[role], self.reached = bits, growth
        return True

    def _with(self, chosen: Chosen) -> Graph:
        return held_in(self.graph, self.vectors, chosen)


def _by_kernels(before: Graph, after: Graph, context: Context, vectors: Sequence[Parameter], why: str) -> Graph:
    errors = []
    for parameter in after:
        if parameter.encoding.grid is not None and parameter.size and before[parameter.path].encoding.grid is None:
            given = before.values[parameter.path].astype(np.float64)
            power = float(np.square(given).sum())
            errors.append(float(np.square(after.values[parameter.path] - given).sum()) / power if power else 0.0)
    error = float(np.median(errors)) if errors else 0.0
    if error < _COARSE:
        context.remark(f"vectors: in 16 bits, as kernels with a relative squared error of {error:.2g} ask; {why}")
        return after
    chosen: dict[str, int] = {p.role: _UNSEEN for p in vectors}
    context.remark(f"vectors: {_words(vectors, chosen)}, by the error of the kernels; {why}")
    return held_in(after, vectors, chosen)


def _words(vectors: Sequence[Parameter], chosen: Chosen) -> str:
    return ", ".join(f"{role} {_name(chosen.get(role))}" for role in sorted({p.role for p in vectors}))


def _name(mantissa_bits: int | None) -> str:
    if mantissa_bits is None:
        return "16-bit"
    return f"{format_of(mantissa_bits)}{f' of {mantissa_bits} bits' if mantissa_bits > _MOST_OF_A_FORMAT else ''}"
