"""Watch every graph that a run shows to anybody, and find those that changed since they were seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import bitwidth as bw
from bitwidth.backend import Steer, Training
from bitwidth.graph import Graph, Value


def fingerprint(value: Value) -> tuple[str, str]:
    """Of the array and of the float master of a value."""
    arrays = (value.read(), value.master)
    first, second = ("" if a is None else hashlib.sha256(a.tobytes()).hexdigest() for a in arrays)
    return first, second


@dataclass
class Seen:
    """The graphs that were seen, each with its structure, encodings and fingerprints at that time."""

    graphs: list[tuple[str, Graph, tuple[Any, ...]]] = field(default_factory=list)

    def add(self, where: str, graph: Graph) -> None:
        """Take a graph down."""
        if not any(known is graph for _, known, _ in self.graphs):
            self.graphs.append((where, graph, self.state(graph)))

    @staticmethod
    def state(graph: Graph) -> tuple[Any, ...]:
        """All that a graph says."""
        values = {path: fingerprint(graph.values.value(path)) for path in graph.values}
        return (id(graph.structure), [(p.path, id(p.encoding), p.trainable) for p in graph], values)

    def changed(self) -> list[str]:
        """Where the graphs were seen that say something else now, and which values of them changed."""
        found = []
        for where, graph, before in self.graphs:
            now = self.state(graph)
            if now[:2] != before[:2]:
                found.append(f"{where}: structure or encodings")
            found += [f"{where}: {path}" for path in before[2] if before[2][path] != now[2][path]]
        return found


@contextmanager
def watched() -> Iterator[Seen]:
    """Within this context every graph is taken down that a pass, a question or a schedule is given or gives."""
    seen = Seen()
    call, train, ask = bw.Pass.__call__, bw.Context.train, bw.Context.ask

    def watched_call(item: bw.Pass, graph: Graph, context: bw.Context, **options: Any) -> Any:
        seen.add(f"before {item.label}", graph)
        after, record = call(item, graph, context, **options)
        seen.add(f"after {item.label}", after)
        return after, record

    def watched_train(context: bw.Context, graph: Graph, training: Training, steer: Steer | None = None) -> Graph:
        seen.add("before training", graph)

        def watched_steer(progress: Any, masters: Graph) -> Graph:
            seen.add("masters", masters)
            assert steer is not None
            after = steer(progress, masters)
            seen.add("a step's constraints", after)
            return after

        after = train(context, graph, training, None if steer is None else watched_steer)
        seen.add("after training", after)
        return after

    def watched_ask(context: bw.Context, question: Any, graph: Graph, once: bool = False) -> Any:
        seen.add(f"asked {question}", graph)
        return ask(context, question, graph, once)

    with (
        patch.object(bw.Pass, "__call__", watched_call),
        patch.object(bw.Context, "train", watched_train),
        patch.object(bw.Context, "ask", watched_ask),
    ):
        yield seen
