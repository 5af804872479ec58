"""`InputMoments`: what each parameter is multiplied by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitwidth.context import Context, check_count
from bitwidth.fitting import Moments
from bitwidth.graph import Graph
from bitwidth.probes import MomentsProbe


@dataclass(frozen=True)
class InputMoments:
    """Mean of x xT and of x over the features x that each parameter meets, in every operation that sums over inputs.

    Dense layers, convolutions of every kind, einsums (attention) and recurrent cells, at each of their steps; for a
    table that is looked up, how often each row is. No labels are needed.

    Attributes:
        samples: how many samples are looked at, at most; the first ones of the data.
        paths: the parameters; None for all with two axes or more.

    Raises:
        ConfigError: a field is out of its range.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from bitwidth.backend import backend_for
        >>> from bitwidth.context import Context
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="hidden")])
        >>> x = np.random.default_rng(0).random((32, 8), np.float32)
        >>> session = backend_for(model).open(model)
        >>> found = Context(session, data=x).ask(InputMoments(samples=32), session.graph)
        >>> found["hidden/kernel"][0].gram.shape
        (1, 8, 8)
    """

    samples: int = 2048
    paths: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_count(self.samples, "InputMoments", "samples")

    def check(self, graph: Graph, context: Context) -> None:
        """Raise before work starts if there are no data."""
        context.session.check_data(context.need_data("InputMoments"), "data")

    def answer(self, graph: Graph, context: Context) -> Mapping[str, tuple[Moments, ...]]:
        """By path, one entry for each part of the parameter that is used by itself; none where it is used otherwise."""
        paths = self.paths
        if paths is None:
            paths = tuple(parameter.path for parameter in graph if len(parameter.shape) >= 2)
        return context.session.probe(graph, MomentsProbe(self.samples, paths), context.need_data("InputMoments"))
