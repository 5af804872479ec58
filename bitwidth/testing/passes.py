"""A conformance suite for passes: what every pass must do, whoever wrote it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitwidth.backend import Objective, backend_for
from bitwidth.context import Context, NoDataError
from bitwidth.encodings import Encoding
from bitwidth.errors import BitwidthError, ConfigError, ContractError, SelectionError
from bitwidth.graph import Graph, cut_between
from bitwidth.loading import load
from bitwidth.passes import (
    CorrectBias,
    Finetune,
    Pass,
    PassManager,
    Prune,
    Quantize,
    Ramp,
    Repeat,
    TrainingPass,
    Where,
)
from bitwidth.passes.base import off_grid
from bitwidth.result import Result
from bitwidth.testing.asserting import require, same_bits
from bitwidth.typing import Array, Data, Model


def check_pass(
    item: Pass,
    model: Model,
    data: Data = None,
    validation: Data = None,
    *,
    during: TrainingPass | None = None,
    depth: int = 1,
) -> Result:
    """Check that a pass conforms; return the result of running it on the model.

    It is a frozen dataclass and goes through a recipe unchanged (if it has a name). A run leaves the model untouched,
    accounts for every parameter, writes the same bytes twice, and loads from its file bit for bit. After `Prune` and
    `Quantize` it keeps every mask and grid, or refuses. In `Where` it changes nothing outside. `plan` works without
    data. Where it defines `at`, a ramp of it really does something. Within the other passes that are made of passes it
    does as well, or is refused by `plan` and `run` alike.

    Args:
        item: the pass.
        model: a small built model with a kernel or two.
        data: what the pass needs, as for `PassManager.run`.
        validation: likewise.
        during: the training for ramps; None for one epoch with the compiled loss, else the mean squared error. Where it
            cannot train on the data (there are none, or no targets) there is no ramp.
        depth: how many passes deep it is put into others: 2 means within each pair, which takes 20 runs or so.

    Raises:
        AssertionError: naming the rule that does not hold.
    """
    check_configuration(item)
    before = _values(model)
    result = PassManager([item]).run(model, data, validation)
    require(_equal(before, _values(model)), f"{item.label} changed the user's model")
    check_report(item, result)
    again = PassManager([item]).run(model, data, validation)
    require(_bytes(again) == _bytes(result), f"{item.label}: the same run gave other bytes")
    check_file(item, result, model)
    check_promises_kept(item, model, data, validation)
    check_scope(item, model, data, validation)
    PassManager([item]).plan(model, data)
    during = _training(model, data, during)
    if during is not None:
        check_real_ramp(item, model, data, during)
    check_inside(item, model, data, during, depth)
    return result


def check_configuration(item: Pass) -> None:
    """It is a frozen dataclass, equal to one built from its fields, and to what is built from its recipe."""
    kind: Any = type(item)
    require(is_dataclass(item) and kind.__dataclass_params__.frozen, f"{item.label} is not a frozen dataclass")
    rebuilt = kind(**{field.name: getattr(item, field.name) for field in fields(item)})
    require(rebuilt == item, f"{item.label} built from its own fields differs")
    json.dumps(item.config)
    manager = PassManager([item])
    try:
        recipe = manager.to_recipe()
    except ConfigError:
        require(not kind.name or _has_code(item), f"{item.label} is named {kind.name!r} but has no recipe")
        return
    require(bool(kind.name), f"{item.label} has a recipe but no name")
    text = json.dumps(recipe)
    back = json.dumps(PassManager.from_recipe(text).to_recipe())
    require(back == text, f"{item.label}: its recipe comes back as another")


def check_report(item: Pass, result: Result) -> None:
    """Every parameter is touched or skipped with a reason, and values lie on their encodings."""
    for record in result.report:
        paths = [parameter.path for parameter in record.parameters]
        require(sorted(paths) == sorted(result.graph.parameters), f"{item.label}: parameters missing from its report")
    for parameter in result.graph:
        if parameter.is_float:
            off = off_grid(parameter.encoding, result.graph.values[parameter.path])
            require(not off, f"{item.label}: {off} values of {parameter.path} lie off {parameter.encoding.describe()}")
    require(_equal(result.graph.values, _values(result.model)), f"{item.label}: result.model differs from result.graph")
    json.dumps(result.report.to_dict())
    require(bool(str(result.report)), "the report prints nothing")


def check_file(item: Pass, result: Result, model: Model) -> None:
    """The file restores every value, to the bit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.bw")
        try:
            result.save(path)
            loaded = load(path)
        except BitwidthError:
            result.save(path, architecture=False)
            loaded = load(path, model=PassManager([]).run(model).model)
        require(path.stat().st_size == result.size, f"{item.label}: Result.size is not the size of the file")
    expected = list(result.graph.values.values())
    found = list(_values(loaded).values())
    same = len(expected) == len(found) and all(same_bits(a, b) for a, b in zip(expected, found, strict=True))
    require(same, f"{item.label}: the loaded model differs from the compressed one")


def check_promises_kept(item: Pass, model: Model, data: Data, validation: Data) -> None:
    """After pruning and quantizing, the pass keeps masks and grids, or is refused."""
    first = PassManager([Prune(0.5), Quantize(4)]).run(model)
    kept = {parameter.path: parameter.encoding for parameter in first.graph}
    try:
        second = PassManager([item]).run(first, data, validation)
    except (ConfigError, ContractError):
        return
    cut = cut_between(first.graph, second.graph)
    for parameter in second.graph:
        if parameter.path in cut.made:
            require(
                not _promises(kept[cut.made[parameter.path][0]]), f"{item.label} made {parameter.path} of a promise"
            )
            continue
        left = cut.encoding(parameter.path, kept[parameter.path])
        broken = left.broken_by(parameter.encoding)
        require(broken is None, f"{item.label} broke a promise about {parameter.path}: {broken}")
        mask = left.mask
        if mask is not None:
            back = np.count_nonzero(second.graph.values[parameter.path][~mask])
            require(back == 0, f"{item.label} brought {back} pruned values of {parameter.path} back")


def check_scope(item: Pass, model: Model, data: Data, validation: Data) -> None:
    """In `Where`, nothing trainable outside the selection changes but what is cut off, or said to be refitted."""
    before = backend_for(model).open(model, data).graph
    chosen = next((p.path for p in before if p.role == "kernel"), None)
    if chosen is None:
        return
    try:
        result = PassManager([Where(item, chosen)]).run(model, data, validation)
    except (SelectionError, ConfigError):
        return
    after, (record,) = result.graph, result.report.passes
    for parameter in before:
        if parameter.path not in (chosen, *record.refitted) and parameter.trainable:
            left = after.structure.cut.take(parameter.path, before.values[parameter.path])
            same = same_bits(left, after.values[parameter.path])
            require(same, f"Where({item.label}, {chosen!r}) changed {parameter.path}")


def check_real_ramp(item: Pass, model: Model, data: Data, during: TrainingPass) -> None:
    """A pass that changes something by itself, and defines `at`, changes something in a ramp too."""
    try:
        ramp = Ramp(item, during)
    except ConfigError:
        return  # it defines no `at`, or refuses to be ramped
    alone = PassManager([item]).run(model, data).report.passes[0].touched
    plain, ramped = (PassManager([one]).run(model, data).graph for one in (during, ramp))
    differs = any(
        plain[p.path].encoding.describe() != p.encoding.describe()
        or not same_bits(plain.values[p.path], ramped.values[p.path])
        for p in ramped
    )
    require(differs or not alone, f"a ramp of {item.label} does nothing: it ends where {during.label} alone does")


def inside(item: Pass, during: TrainingPass | None, depth: int = 1) -> Iterator[Pass]:
    """Yield a pass within each pass that is made of passes, up to `depth` deep; those that cannot be built left out.

    Args:
        item: the pass.
        during: the training for ramps; None for no ramps.
        depth: how deep; 0 for not at all.
    """
    if depth < 1:
        return
    makers: list[Callable[[Pass], Pass]] = [
        lambda inner: PassManager([inner]),
        lambda inner: Where(inner, "*"),
        lambda inner: Repeat(inner, 2),
        lambda inner: CorrectBias(inner, samples=16),
    ]
    if during is not None:
        makers.append(lambda inner: Ramp(inner, during))
    for make in makers:
        try:
            made = make(item)
        except ConfigError:
            continue  # no ramp of it, or no correction of a training
        yield made
        yield from inside(made, during, depth - 1)


def check_inside(item: Pass, model: Model, data: Data, during: TrainingPass | None, depth: int = 1) -> None:
    """Within the passes made of passes it runs and accounts for every parameter, or `plan` refuses it as `run` does."""
    for made in inside(item, during, depth):
        manager = PassManager([made])
        planned = ran = None
        try:
            manager.plan(model, data)
        except BitwidthError as error:
            planned = error
        try:
            result = manager.run(model, data)
        except NoDataError:
            continue
        except BitwidthError as error:
            ran = error
        require(ran is None or planned is not None, f"{made.label}: planned, and then refused: {ran}")
        if ran is None:
            check_report(made, result)


def _training(model: Model, data: Data, given: TrainingPass | None) -> TrainingPass | None:
    """The training for ramps, if there is one that can train on the data."""
    session = backend_for(model).open(model, data)
    loss = None if session.can_measure(Objective()) else "mse"
    during = given or Finetune(epochs=1, loss=loss, batch_size=8)
    try:
        during.check(session.graph, Context(session, data))
    except BitwidthError:
        return None
    return during


def check_ramp(item: Pass) -> None:
    """`at(1)` is the pass itself, and every strength between is a pass of its kind."""
    require(item.at(1.0) == item, f"{item.label}.at(1) is another pass")
    for strength in (0.0, 0.25, 0.5, 0.75):
        require(type(item.at(strength)) is type(item), f"{item.label}.at({strength}) is of another kind")


def _promises(encoding: Encoding) -> bool:
    return encoding.mask is not None or not encoding.summary().is_plain


def _values(model: Model) -> Mapping[str, Array]:
    graph: Graph = backend_for(model).open(model).graph
    return {path: np.array(graph.values[path]) for path in graph.values}


def _equal(left: Mapping[str, Array], right: Mapping[str, Array]) -> bool:
    return set(left) == set(right) and all(same_bits(left[path], right[path]) for path in left)


def _bytes(result: Result) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.bw")
        result.save(path, architecture=False)
        return path.read_bytes()


def _has_code(item: Pass) -> bool:
    values: list[Any] = [getattr(item, field.name) for field in fields(item)]
    return any(callable(value) or isinstance(value, tuple) for value in values)
