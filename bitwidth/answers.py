"""Answers to questions about a model, kept while they hold.

Here belongs when an answer still holds and how much is kept. The questions themselves belong in `bitwidth.analysis`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from math import inf, sqrt
from typing import Any, TypeVar

import numpy as np

from bitwidth.graph import Graph, Structure
from bitwidth.typing import Array

Answer = TypeVar("Answer")
_LOG = logging.getLogger(__name__)
LIMIT = 1 << 30  # bytes of answers that are kept between runs


class Answers:
    """Answers by question, of a model on some data with some seed.

    In a single run, answers are forgotten with the next change of a value: they are large, and a model rarely becomes
    again what it was. Between runs on an opened model it does, so they are kept by what the values are.

    Args:
        opened: the graph that many runs start from; None for a single run.
        limit: bytes of the answers that are kept between runs, at most; the least recently used ones go first.
    """

    def __init__(self, opened: Graph | None = None, limit: int = LIMIT) -> None:
        self._opened, self._limit = opened, limit
        self._kept: dict[Any, tuple[Any, int]] = {}  # an answer, and its bytes
        self._latest: dict[Any, tuple[Structure, tuple[int, ...], Any]] = {}

    def get(self, question: Any, graph: Graph, find: Callable[[], Answer], once: bool = False) -> Answer:
        """The answer about `graph`: the one that is known, or a new one.

        Args:
            question: what is asked; equal questions have equal answers.
            graph: what it is asked about.
            find: finds the answer.
            once: whether it is asked once in a run, so that it need not be held through the run.
        """
        if self._opened is not None and graph.structure is self._opened.structure:
            return self._between_runs((question, *_contents(graph, self._opened)), find)
        tokens = graph.values.token()
        for known, (structure, held, _) in tuple(self._latest.items()):
            if structure is not graph.structure or held != tokens:
                del self._latest[known]
        if question not in self._latest:
            found = find()
            if once:
                return found
            self._latest[question] = (graph.structure, tokens, found)
        else:
            _LOG.debug("%s: known from before, nothing has changed since", type(question).__name__)
        answer: Answer = self._latest[question][2]
        return answer

    def _between_runs(self, key: Any, find: Callable[[], Answer]) -> Answer:
        if key in self._kept:
            _LOG.debug("%s: known from an earlier run", type(key[0]).__name__)
            self._kept[key] = self._kept.pop(key)  # the last one now
            known: Answer = self._kept[key][0]
            return known
        found = find()
        self._kept[key] = found, size_of(found)
        while sum(size for _, size in self._kept.values()) > self._limit:
            del self._kept[next(iter(self._kept))]
        return found


class NearAnswers:
    """Answers within one run that hold while the weights have moved little."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[Mapping[str, Array], Any]] = {}

    def get(self, question: Any, graph: Graph, drift: float, find: Callable[[], Answer]) -> Answer:
        """The answer about weights that differ from those of `graph` by at most `drift` of their norm, or a new one."""
        weights = {p.path: graph.values[p.path] for p in graph if p.is_float and len(p.shape) >= 2}
        if question not in self._known or distance(self._known[question][0], weights) > drift:
            self._known[question] = (weights, find())
        else:
            _LOG.debug("%s: taken again, the weights have moved little", type(question).__name__)
        answer: Answer = self._known[question][1]
        return answer


def _contents(graph: Graph, opened: Graph) -> tuple[int | bytes, ...]:
    """What stands for the values of a graph: a token for those of the opened one, a digest of what others are."""
    return tuple(
        graph.values.value(path).token
        if graph.values.same(opened.values, path)
        else blake2b(np.ascontiguousarray(graph.values[path]).view(np.uint8).data, digest_size=16).digest()
        for path in graph.values
    )


def size_of(answer: Any) -> int:
    """Bytes of the arrays in an answer: an array, or a mapping, sequence or dataclass of answers.

    Example:
        >>> size_of({"kernel": (np.zeros(3), np.zeros(2, np.float32))})
        32
    """
    if isinstance(answer, np.ndarray):
        return answer.nbytes
    if isinstance(answer, Mapping):
        return sum(map(size_of, answer.values()))
    if isinstance(answer, tuple | list):
        return sum(map(size_of, answer))
    if is_dataclass(answer):
        return sum(size_of(getattr(answer, field.name)) for field in fields(answer))
    return 0


def distance(before: Mapping[str, Array], after: Mapping[str, Array]) -> float:
    """How far weights have moved: the norm of the change over that of the weights before; infinite for others.

    Example:
        >>> round(distance({"kernel": np.array([3.0, 4.0])}, {"kernel": np.array([3.0, 4.5])}), 6)
        0.1
    """
    if before.keys() != after.keys() or any(before[path].shape != after[path].shape for path in before):
        return inf
    change = sum(float(np.square(after[path] - before[path], dtype=np.float64).sum()) for path in before)
    size = sum(float(np.square(array, dtype=np.float64).sum()) for array in before.values())
    return sqrt(change / size) if size else inf
