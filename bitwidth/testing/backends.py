"""A conformance suite for backends: what a session must do for the passes to work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from bitwidth.backend import Objective, Progress, Session, Training, backend_for
from bitwidth.encodings import Encoding, Masked, Quantized, uniform_levels
from bitwidth.errors import DataError, ModelError
from bitwidth.graph import Chain, Chains, Graph, Stage, cut_between, layer_inputs
from bitwidth.probes import GradientProbe, MomentsProbe, OutputProbe, RangeProbe
from bitwidth.testing.asserting import require, same_bits
from bitwidth.typing import Array, Data, Loss, Model

Make = Callable[[], Any]
SAMPLES = 16


def check_backend(make: Make, data: Data, loss: Loss = "mse", trains: bool = True) -> None:
    """Check that the backend of a model conforms, on a small model.

    Opening copies: neither the model nor an earlier snapshot changes. What is written is computed with. A model that is
    handed over keeps its encodings when it is opened again, and is built again from its architecture to the bit. Layers
    that can be replaced are, as a whole or not at all.
    Measuring and probing leave no trace and give the same twice. Training starts from float masters, ends on every
    grid and under every mask, steers by rising progress, stops when it is told, and leaves alone what it is not given.

    Args:
        make: makes the same model each time: built, with one kernel of two axes or more at least, and of float32.
        data: arrays that the model trains on, `(inputs, targets)`, of at least 16 samples.
        loss: what is minimised.
        trains: False for a backend that does not train: training is left out.

    Raises:
        AssertionError: naming the law that does not hold.
    """
    for check in (check_opening, check_writing, check_handing_over, check_building, check_sharing, check_replacing):
        check(make)
    check_probes(make, data)
    check_bad_data(make, data)
    if trains:
        check_measuring(make, data, loss)
        check_training(make, data, loss)


def check_opening(make: Make) -> None:
    """A graph names every parameter once, with values of its shape that nobody can write to; the model is copied."""
    model = make()
    session = _open(model)
    before = _values(session.graph)
    require(len(before) > 0, "the graph has no parameters")
    for parameter in session.graph:
        values = session.graph.values[parameter.path]
        require(values.shape == parameter.shape, f"{parameter.path}: values of shape {values.shape}")
        require(not values.flags.writeable, f"{parameter.path}: its values can be written to")
        require(str(values.dtype) == parameter.dtype or parameter.dtype == "bfloat16", f"{parameter.path}: its dtype")
    indices = sorted(parameter.index for parameter in session.graph)
    require(indices == list(range(len(before))), "indices of parameters are not 0, 1, 2, ...")
    session.finish(_changed(session.graph))
    _require_values(session.graph, before, "finishing another graph changed the graph that was opened")
    _require_values(_open(model).graph, before, "the user's model was touched")


def check_writing(make: Make) -> None:
    """The model that is handed over holds the values of the graph, and tells when its owner has not changed it."""
    session = _open(make())
    changed = _changed(session.graph)
    finished = session.finish(changed)
    _require_values(_open(finished.model).graph, _values(changed), "the model handed over has other values")
    require(finished.changed(changed) == "", "a model that nobody changed counts as changed")
    require(finished.changed(session.graph) != "", "a model with other values than a graph's counts as unchanged")


def check_handing_over(make: Make) -> None:
    """A model that came out of a session keeps encodings, masks and grids of activations when it is opened again."""
    session = _open(make())
    held = _held(session.graph)
    again = _open(session.finish(held).model).graph
    for parameter in held:
        words = again[parameter.path].encoding.describe()
        require(words == parameter.encoding.describe(), f"{parameter.path}: opened again it is {words}")
    _require_values(again, _values(held), "opened again it has other values")


def check_building(make: Make) -> None:
    """A model is built again from its architecture and stored values, and computes with the same ones."""
    session = _open(make())
    held = _held(session.graph)
    finished, architecture = session.finish(held), session.architecture(held)
    require(architecture.config is not None, f"there is no architecture: {architecture.reason}")

    def stored() -> Iterator[tuple[Array, Encoding]]:
        for parameter in sorted(held, key=lambda p: p.index):
            yield held.values[parameter.path], parameter.encoding

    built = backend_for(finished.model).build(architecture, stored, layer_inputs(held.structure))
    _require_values(_open(built).graph, _values(held), "the model that was built has other values")


def check_sharing(make: Make) -> None:
    """A shared session serves several results that do not know of each other."""
    session = _open(make())
    session.share()
    first, second = _changed(session.graph), _held(session.graph)
    one, other = session.finish(first), session.finish(second)
    _require_values(_open(one.model).graph, _values(first), "a shared session handed over other values")
    _require_values(_open(other.model).graph, _values(second), "a shared session handed over other values")
    require(one.model is not other.model, "two results of a shared session have one model")


def check_replacing(make: Make) -> None:
    """A chain takes the place of a layer, its factors for kernels, or nothing changes; the model is not touched."""
    model = make()
    session = _open(model)
    graph = session.graph
    refused = {layer.path for layer in graph.structure.layers if layer.fixed}
    kernel = next((p for p in _kernels(graph) if len(p.shape) == 2 and p.layer not in refused), None)
    if kernel is None or {use.kind for use in kernel.uses} != {"matmul"}:
        return
    first, last = f"{kernel.layer}_first", kernel.layer
    eye, values = np.eye(kernel.shape[0], dtype=np.float32), graph.values[kernel.path]
    odd = Chain("none/kernel", (Stage("none_first", (0,), eye), Stage("none", (1,), values)))
    for act in (session.check_rebuild, session.rebuild):
        try:
            act(graph, Chains((odd,)))
        except ModelError:
            continue
        require(False, "a layer that the model does not have was replaced")
    chain = Chain(kernel.path, (Stage(first, (0,), eye), Stage(last, (1,), values)))
    session.check_rebuild(graph, Chains((chain,)))
    after = session.rebuild(graph, Chains((chain,)))
    require(set(after.parameters) == set(graph.parameters) | set(chain.kernels), "a chain has other parameters")
    for path, array in {**{path: graph.values[path] for path in graph.values}, **chain.kernels}.items():
        require(same_bits(after.values[path], array), f"{path}: other values than those of the chain")
    require(cut_between(graph, after).made.keys() == chain.kernels.keys(), "the lineage does not tell what was made")
    again = _open(session.finish(after).model).graph
    _require_values(again, _values(after), "the model with a chain that was handed over has other values")
    _require_values(_open(model).graph, _values(graph), "the user's model was touched")


def check_probes(make: Make, data: Data) -> None:
    """Each probe is answered with arrays that fit, the same ones twice, and leaves no trace."""
    session = _open(make())
    graph, before = session.graph, _values(session.graph)
    kernels = tuple(parameter.path for parameter in _kernels(graph))
    for path, parts in session.probe(graph, MomentsProbe(SAMPLES, kernels), data).items():
        for part in parts:
            gram = part.gram
            require(gram.ndim == 3 and gram.shape[1] == gram.shape[2], f"{path}: moments of shape {gram.shape}")
            require(bool(np.allclose(gram, gram.transpose(0, 2, 1), atol=1e-4)), f"{path}: moments not symmetric")
            require(bool((np.linalg.eigvalsh(gram) > -1e-3 * np.abs(gram).max() - 1e-6).all()), f"{path}: negative")
    tensor = graph.structure.inputs[0]
    seen = session.probe(graph, RangeProbe(SAMPLES, (tensor,)), data)[tensor]
    require(seen.low <= float(seen.values.min(initial=np.inf)), "values below the least one")
    require(seen.high >= float(seen.values.max(initial=-np.inf)), "values above the greatest one")
    gradients = GradientProbe(SAMPLES, tuple("gaussian mean" for _ in graph.structure.outputs), "sampled", 0)
    for path, squares in session.probe(graph, gradients, data).items():
        require(squares.shape == graph[path].shape, f"{path}: squared gradients of shape {squares.shape}")
        require(bool((squares >= 0).all()), f"{path}: squared gradients below zero")
    first, second = (session.probe(graph, OutputProbe(SAMPLES), data) for _ in range(2))
    require(all(same_bits(a, b) for a, b in zip(first, second, strict=True)), "outputs differ from call to call")
    require(len(first) == len(graph.structure.outputs), "not one array for each output")
    other = session.probe(_changed(graph), OutputProbe(SAMPLES), data)
    require(not all(same_bits(a, b) for a, b in zip(first, other, strict=True)), "outputs do not depend on the values")
    _require_values(graph, before, "probing left a trace in the graph")
    back = session.probe(graph, OutputProbe(SAMPLES), data)
    require(all(same_bits(a, b) for a, b in zip(first, back, strict=True)), "probing left a trace in the model")


def check_bad_data(make: Make, data: Data) -> None:
    """Data that is empty or not finite is refused, before work starts."""
    session, inputs = _open(make()), data[0]
    session.check_data(data, "data")
    for bad, what in ((inputs[:0], "empty data"), (np.full_like(inputs, np.nan), "data that is not finite")):
        try:
            session.check_data(bad, "data")
        except DataError:
            continue
        require(False, f"{what} is taken")


def check_measuring(make: Make, data: Data, loss: Loss) -> None:
    """Loss and metrics are those of the graph's values, and the same twice."""
    session, objective = _open(make()), Objective(loss)
    require(session.can_measure(objective), "there is a loss, and nothing to measure by")
    session.check_measuring(objective, data)
    first, second = (session.measure(session.graph, objective, data) for _ in range(2))
    require(dict(first) == dict(second), "measuring twice gives two results")
    require("loss" in first, "no loss is measured")
    other = session.measure(_changed(session.graph), objective, data)
    require(other["loss"] != first["loss"], "the loss does not depend on the values")


def check_training(make: Make, data: Data, loss: Loss) -> None:
    """Training holds to encodings, starts from masters, steers, stops, and trains what it is told to."""
    session = _open(make())
    held = _held(session.graph)
    training = Training(Objective(loss), data, epochs=2, batch_size=8, learning_rate=1e-2)
    session.check_training(training)
    asked: list[Progress] = []

    def steer(progress: Progress, masters: Graph) -> Graph:
        asked.append(progress)
        return held

    trained = session.train(held, training, steer).graph
    _require_on_grid(trained)
    moved = [p.path for p in trained if p.trainable and not trained.values.same(held.values, p.path)]
    require(bool(moved), "training moved nothing")
    steps = [progress.step for progress in asked]
    require(steps == sorted(steps) and steps[0] == 0, f"a pass that steers was asked at the steps {steps}")
    require(asked[-1].step == asked[-1].total, "a pass that steers was not asked at the end")
    _check_only(session, held, training)
    _check_stop(session, held, training)


def _check_only(session: Session, held: Graph, training: Training) -> None:
    first = _kernels(held)[0].path
    only = session.train(held, replace(training, only=frozenset([first]))).graph
    for parameter in only:
        same = same_bits(only.values[parameter.path], held.values[parameter.path])
        require(same or parameter.path == first, f"{parameter.path} was trained, and only {first} was to be")


def _check_stop(session: Session, held: Graph, training: Training) -> None:
    seen: list[int] = []

    def stop(step: int, total: int | None) -> bool:
        seen.append(step)
        return step == 2

    _require_on_grid(session.train(held, replace(training, on_step=stop)).graph)
    require(seen == [1, 2], f"told to end after 2 steps, it took those: {seen}")


def _open(model: Model) -> Session:
    return backend_for(model).open(model)


def _kernels(graph: Graph) -> list[Any]:
    found = [p for p in graph if p.is_float and p.dtype == "float32" and len(p.shape) >= 2 and p.trainable]
    require(bool(found), "the model has no float32 kernel of two axes")
    return found


def _changed(graph: Graph) -> Graph:
    """With other values in every kernel."""
    return graph.update({p.path: graph.values[p.path] * 0.5 + 0.25 for p in _kernels(graph)})


def _held(graph: Graph) -> Graph:
    """With kernels on grids of 4 bits, the first of them half pruned."""
    first, *rest = _kernels(graph)
    keep = np.arange(first.size).reshape(first.shape) % 2 == 0
    grids = {p.path: _grid(graph, p) for p in (first, *rest)}
    return graph.update(encodings={**grids, first.path: Masked(keep, grids[first.path])})


def _grid(graph: Graph, parameter: Any) -> Encoding:
    scale = np.abs(graph.values[parameter.path]).max() / 7 + 1e-3
    ones = (1,) * len(parameter.shape)
    return Quantized(uniform_levels(4), np.full(ones, scale, np.float32), parameter.shape)


def _values(graph: Graph) -> dict[str, Array]:
    return {path: np.array(graph.values[path]) for path in graph.values}


def _require_values(graph: Graph, expected: dict[str, Array], message: str) -> None:
    for parameter in graph:
        if parameter.is_float:
            path = parameter.path
            require(path in expected and same_bits(graph.values[path], expected[path]), f"{message}: {path}")


def _require_on_grid(graph: Graph) -> None:
    for parameter in graph:
        if parameter.is_float:
            values = graph.values[parameter.path]
            words = f"{parameter.path}: training left values that {parameter.encoding.describe()} does not hold"
            require(bool(np.array_equal(parameter.encoding.project(values), values)), words)
