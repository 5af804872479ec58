"""Training that pays for code length: by a price for each bit, or by the size that the file is to have."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log
from typing import Protocol, final

import numpy as np

from bitwidth.backend import Coded, Price, Pricing, Progress
from bitwidth.context import Context
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph, Parameter
from bitwidth.passes.filesize import Size, Sizes, bytes_of
from bitwidth.passes.landing import landed
from bitwidth.passes.roles import is_matrix
from bitwidth.typing import is_number

RAMPED = 0.3  # share of the training over which a price rises
_FALLING, _LONGEST, _BEND = 2_000, 0.6, 1.5  # steps over which the wanted size falls, their share, its curve
_AIM = 1.02  # of the size: a little more than there is room for, since rounding can only make the file smaller
_SLACK = 0.15  # of the size, per training that is left: files get smaller by themselves as the learning rate falls
_LOOSE = 0.98  # of the size: a file below it has room that was not used
_FIRST = 0.1  # of the first price, in units of the loss for all bits that there is room for
_GAIN, _BY_STEP, _AT_ONCE = 24.0, 0.006, 4.0  # of its logarithm for an error: per training, per step at least, at once
_AHEAD, _LONGEST_AHEAD = 1_000, 0.1  # steps after which a price shows, and their share at most
_MOST = 1.0  # of an error that is answered to: a factor of e
_GONE = 8.0  # logarithms below the first price, where it is let go
_PACKED = 16  # how often in a training the file is packed


class Paid(Protocol):
    """A training pass that may pay for bits."""

    @property
    def price(self) -> float | None:
        """Of a bit, in units of the loss."""

    @property
    def size(self) -> Size | None:
        """Of the file."""


def check_paying(item: Paid, owner: str) -> None:
    """Check the fields of a pass.

    Raises:
        ConfigError: one is out of its range, or both are given.
    """
    price = item.price
    if price is not None and not (is_number(price) and 0 <= price < inf):
        raise ConfigError(f"{owner}: price must be a finite number of at least 0, got {price!r}")
    if item.size is not None:
        bytes_of(item.size, owner)
        if price is not None:
            raise ConfigError(f"{owner}: give a price, or the size from which it is found, not both")


def paid_for(graph: Graph, context: Context, only: frozenset[str] | None, owner: str) -> frozenset[str]:
    """Paths of the parameters whose codes a training pays for; a remark names the others that train.

    Raises:
        ConfigError: there are none.
    """
    inside = [p for p in context.selection(graph).chosen if is_matrix(p) and p.is_float and p.trainable]
    inside = [p for p in inside if only is None or p.path in only]
    found = frozenset(p.path for p in inside if _on_integers(p))
    if not found:
        raise ConfigError(
            f"{owner}: price and size pay for the codes of kernels that train on a uniform grid, and there are none: "
            "put Quantize(rate=...), Quantize(step=...) or Quantize(bits=...) before it"
        )
    others = [p.path for p in inside if p.path not in found]
    if others:
        context.remark(f"on no uniform grid, so that their bits cost nothing: {', '.join(others)}")
    return found


def _on_integers(parameter: Parameter) -> bool:
    grid = parameter.encoding.grid
    return parameter.dtype == "float32" and grid is not None and grid.levels.kind == "integers" and parameter.size > 0


def smallest(graph: Graph, sizes: Sizes, paths: frozenset[str]) -> int:
    """Bytes of the file in which all codes of these parameters are zero."""
    return sizes.of(graph.update({path: np.zeros(graph[path].shape, np.float32) for path in paths})).total


@final
@dataclass(frozen=True)
class Payment:
    """What one training pays, and how it ends.

    Attributes:
        pricing: for the training.
        controller: that finds the price, where a size is given.
    """

    pricing: Pricing
    controller: Controller | None = None

    @classmethod
    def of(cls, item: Paid, graph: Graph, context: Context, only: frozenset[str] | None, owner: str) -> Payment | None:
        """The payment of a pass on a graph, or None where it pays nothing.

        Raises:
            ConfigError: nothing can be paid for, or no file of the model is as small as it is to be.
        """
        if item.price is None and item.size is None:
            return None
        paths = paid_for(graph, context, only, owner)
        if item.price is not None:
            return cls(Pricing(paths, ramped(float(item.price))))
        size, sizes = bytes_of(item.size, owner), Sizes(graph, context)
        least = smallest(graph, sizes, paths)
        if size < least:
            raise ConfigError(
                f"{owner}: size={item.size!r} is {size:,} bytes, and the file takes {least:,} with every code at zero: "
                "header, vectors and tables are in it"
            )
        controller = Controller(size, sizes, paths, sizes.of(graph).total)
        return cls(Pricing(paths, controller), controller)

    def settled(self, graph: Graph, context: Context) -> Graph:
        """What training left, in a file of at most the size."""
        if self.controller is None:
            return graph
        found = landed(graph, context, self.pricing.paths, self.controller.size, self.controller.sizes)
        total, size = self.controller.sizes.of(found).total, self.controller.size
        last = self.controller.price
        price = "the price stayed at 0" if self.controller.is_free else f"the last price of a bit was {last:.3g}"
        below = ", which is below it" if total < _LOOSE * size else ""
        context.remark(f"a file of {total:,} bytes, of {size:,} asked for{below}; {price}")
        return found


def ramped(price: float) -> Price:
    """A price that rises in a straight line over the first 30 % of the training."""
    return lambda progress, coded: price * min(1.0, progress.fraction / RAMPED)


@final
class Controller:
    """Finds the price at which the file ends at a size, while the model trains.

    The wanted size falls from that at the start to the size as it would at a steady price. The price's logarithm is the
    integral of the error of the size's logarithm, and a share of that error, both as foreseen for a little later. The
    size is estimated from the entropies of the codes; what the file takes for each of their bits, and besides, is
    measured with the writer now and then.

    Attributes:
        size: bytes of the file.
        sizes: measures files.
        price: the last one.
        is_free: whether no price was ever asked for.

    Args:
        size: bytes of the file.
        sizes: measures files.
        paths: the parameters whose codes are paid for.
        start: bytes of the file as the training begins.
    """

    def __init__(self, size: int, sizes: Sizes, paths: frozenset[str], start: int) -> None:
        self.size, self.sizes, self.price, self.is_free = size, sizes, 0.0, True
        self._paths, self._start = paths, start
        self._first = log(_FIRST / (8 * size))
        self._log: float | None = None
        self._rest, self._share, self._packed = 0.0, 1.0, -1
        self._error = self._speed = 0.0  # of the size's logarithm, and by how much it grows in a whole training

    def __call__(self, progress: Progress, coded: Coded) -> float:
        """The price for the next steps."""
        error = log(self._estimated(progress, coded) / self.wanted(progress))
        error = max(-_MOST, min(_MOST, self._foreseen(error, progress)))
        if self._log is None and error > 0:
            self._log, self.is_free = self._first, False
        if self._log is None:
            return 0.0
        self._log += error * max(_GAIN, _BY_STEP * progress.total) * (progress.fraction - progress.before)
        if self._log < self._first - _GONE:
            self._log = None
        self.price = 0.0 if self._log is None else exp(self._log + _AT_ONCE * error)
        return self.price

    def _foreseen(self, error: float, progress: Progress) -> float:
        """The error a little later, if it goes on as it does now: what a price does shows with a delay."""
        ahead = min(_LONGEST_AHEAD, _AHEAD / progress.total)
        passed = progress.fraction - progress.before
        if passed > 0:
            now = (error - self._error) / passed
            self._speed += min(1.0, 2 * passed / ahead) * (now - self._speed)
        self._error = error
        return error + ahead * self._speed

    def wanted(self, progress: Progress) -> float:
        """Bytes that the file should have by now."""
        aim = _AIM * self.size * (1 + _SLACK * (1 - progress.fraction))
        falling = max(RAMPED, min(_LONGEST, _FALLING / progress.total))
        left = 1 - min(1.0, progress.fraction / falling)
        return float(aim * max(1.0, self._start / aim) ** (left**_BEND))

    def _estimated(self, progress: Progress, coded: Coded) -> float:
        codes = sum(coded.bits.values()) / 8
        turn = int(progress.fraction * _PACKED)
        if turn != self._packed:
            self._packed = turn
            found = self.sizes.of(coded.masters)
            taken = sum(found.parameters[path] for path in self._paths)
            self._rest, self._share = found.total - taken, taken / max(codes, 1.0)
        return self._rest + self._share * codes
