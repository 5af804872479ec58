"""`functionalized`: a model of any form as a Functional model, which loads without the classes that made it."""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from bitwidth.backends.tensorflow.constraints.activations import attach, attached_to, detach
from bitwidth.backends.tensorflow.internals import layers as tracked
from bitwidth.backends.tensorflow.internals.symbolic import mask_of, operations_behind, rename
from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.backends.tensorflow.models.agreement import check_same, outputs_of, tolerance, tried
from bitwidth.backends.tensorflow.models.architecture import built_again, configuration_of, finalize
from bitwidth.backends.tensorflow.models.assets import assets_of, load_assets
from bitwidth.backends.tensorflow.models.check import check_model
from bitwidth.backends.tensorflow.models.composites import around_composites, is_composite, kept
from bitwidth.backends.tensorflow.models.copying import copy_model
from bitwidth.backends.tensorflow.models.deferred import give_value
from bitwidth.backends.tensorflow.models.masks import carrying
from bitwidth.backends.tensorflow.models.promises import inputs_kept, keep_promises, kept_promises
from bitwidth.backends.tensorflow.models.symbolic import Failure, Inlining
from bitwidth.backends.tensorflow.models.tables import Tables
from bitwidth.backends.tensorflow.reading.graphs import traced
from bitwidth.backends.tensorflow.reading.inlining import inline_functions
from bitwidth.backends.tensorflow.reading.naming import Names, names_of, unique
from bitwidth.backends.tensorflow.reading.tracing import FuncTrace
from bitwidth.errors import ModelError, Refused
from bitwidth.text import brief
from bitwidth.typing import Array, Model, Nest

_LOG = logging.getLogger(__name__)


def functionalized(model: Model, example: Nest = None, keep: str | Sequence[str] = ()) -> Model:
    """A Functional model of Keras's own layers and operations that computes what a model computes.

    Args:
        model: a built model; not changed.
        example: inputs, for a model that does not know its own.
        keep: paths of layers, or patterns of them, that stay layers as they are.

    Returns:
        An uncompiled model with its own variables. A model that is a graph of Keras's own layers already is copied.

    Raises:
        ConfigError, SelectionError: as `kept` for `keep`.
        ModelError: a layer cannot be inlined, with its path and class, why, and what to do; or the model that was built
            computes something else.
    """
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about masks and the like, as when the model was built
        return _functionalized(model, example, keep, started)


def _functionalized(model: Model, example: Nest, keep: str | Sequence[str], started: float) -> Model:
    given = check_model(model)
    if not tracked.is_own(model) and not any(_is_opaque(layer) for layer in tracked.layers_of(model)):
        found = copy_model(model)
        detach(found)
        attach(found, attached_to(model))
        keep_promises(found, kept_promises(model), inputs_kept(model))
        return found
    work = copy_model(model)
    names = names_of(work)
    detach(work, names)
    trace = traced(work, example, names)
    inputs, _ = tried(work, trace.specs, _rows(work))
    expected = [_outputs(work, inputs, training) for training in (False, True)]
    made, tables = _built(work, trace, kept(keep, names), inputs)
    left = _left_behind(trace, made, tables)
    found = _rebuilt(made, trace)
    _check(found, inputs, expected, model)
    _keep_held(model, given, names, made, found, tables)
    _LOG.info(
        "%s: made functional in %.2f seconds; own layers in it: %s; left behind, as no output depends on it: %s",
        model.name,
        time.perf_counter() - started,
        ", ".join(sorted({layer.name for layer in tracked.layers_of(found) if tracked.is_own(layer)})) or "none",
        ", ".join(left) or "nothing",
    )
    return found


def _is_opaque(layer: Any) -> bool:
    return is_composite(layer) or bool(around_composites(layer))


# ---- the graph


def _built(work: Model, trace: FuncTrace, keep: set[int], sample: Nest) -> tuple[Model, Tables]:
    """A Functional model of the layers of a copy, each under the name that it will have."""
    inputs = _inputs(work, trace.specs)
    batch = _dense(inputs, work)
    zero = keras.ops.sum(keras.ops.zeros_like(batch[:1, ...], dtype="int32"))
    inlining = Inlining(work, trace.names, keep, tables := Tables(trace.names, keep, zero), batch)

    def anchored(leaf: Any) -> Any:
        return leaf if leaf is None else keras.ops.add(leaf, keras.ops.cast(zero, _dtype(leaf)))

    name = f"{work.name!r} ({type(work).__name__})"
    try:
        outputs = inlining.outputs(inputs, anchored)
    except Refused as refusal:
        raise ModelError(f"functionalize: the model {name} cannot be inlined: {refusal.reason}") from refusal
    if inlining.failures:
        raise ModelError(_failed(work, inlining.failures))
    flat = keras.tree.flatten(outputs)
    if not all(isinstance(output, keras.KerasTensor) for output in flat):
        raise ModelError(f"functionalize: an output of {name} is no tensor that depends on its inputs")
    made = _named(inputs, outputs, trace.names, work.name)
    lost = [theirs and not ours for theirs, ours in zip(_masked(work, sample), _masked(made, sample), strict=True)]
    if any(lost):
        flat = [
            carrying(output, mask_of(output)) if gone and mask_of(output) is not None else output
            for output, gone in zip(flat, lost, strict=True)
        ]
        made = _named(inputs, keras.tree.pack_sequence_as(outputs, flat), trace.names, work.name)
    return made, tables


def _masked(model: Model, sample: Nest) -> list[bool]:
    """Whether Keras puts a mask on each output of a model.

    Raises:
        ModelError: the model does not run.
    """
    try:
        with keras.StatelessScope():
            return [mask_of(output) is not None for output in keras.tree.flatten(model(sample, training=False))]
    except Exception as error:
        raise ModelError(f"functionalize: what was made of {model.name!r} does not run: {brief(error)}") from error


def _failed(work: Model, failures: Sequence[Failure]) -> str:
    shown = "; ".join(f"{failure.path} ({failure.kind}): {failure.reason}" for failure in dict.fromkeys(failures))
    paths = list(dict.fromkeys(failure.path for failure in failures))
    return (
        f"functionalize: layers of {work.name!r} cannot be inlined: {shown}. Or keep them as layers, which need their "
        f"class when the model is loaded: keep={paths}"
    )


def _inputs(work: Model, specs: Nest) -> Nest:
    """Inputs as a model declares them, else of the specs, named by their keys."""
    declared = tracked.declared_inputs(work)
    if declared is not None:
        return keras.tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, sparse=t.sparse, name=t.name), declared
        )
    taken: set[str] = set()
    made = []
    for path, spec in keras.tree.flatten_with_path(specs):
        name = unique("_".join(map(str, path)).replace("/", "_") or "inputs", taken)
        name = f"inputs_{name}" if name.isdigit() else name
        made.append(keras.Input(batch_shape=tuple(spec.shape), dtype=spec.dtype.name, name=name))
    return keras.tree.pack_sequence_as(specs, made)


def _dense(inputs: Nest, work: Model) -> TFTensor:
    """An input of which constants can be made that depend on the inputs."""
    for tensor in keras.tree.flatten(inputs):
        if not tensor.sparse:
            return tensor
    raise ModelError(f"functionalize: {work.name!r} takes only sparse inputs, which is not supported")


def _dtype(leaf: Any) -> str:
    return str(keras.backend.standardize_dtype(getattr(leaf, "dtype", np.asarray(leaf).dtype)))


def _named(inputs: Nest, outputs: Nest, names: Names, title: str) -> Model:
    """A Functional model in which all names are told apart.

    A layer has the last name of its path where no other layer has it, else its whole path; an operation that of its
    kind.
    """
    made = {id(operation): operation for operation, _ in operations_behind(outputs)}
    paths = {key: names.layer_path(item) for key, item in made.items() if isinstance(item, keras.Layer)}
    last = Counter((path or made[key].name).rpartition("/")[2] for key, path in paths.items())
    taken = {tensor.name for tensor in keras.tree.flatten(inputs)}
    for key, operation in made.items():
        if isinstance(operation, keras.layers.InputLayer):
            continue
        if key in paths:
            path = paths[key] or operation.name
            if tracked.is_own(operation) and not _says_its_name(operation):
                path = operation.name  # else it would have another one when it is loaded
            name = path.rpartition("/")[2]
            rename(operation, unique(name if last[name] == 1 else path.replace("/", "_"), taken))
        else:
            rename(operation, unique(re.sub(r"_\d+$", "", operation.name), taken))
    return keras.Model(inputs, outputs, name=title)


def _says_its_name(layer: Any) -> bool:
    """Whether the configuration of a layer holds its name."""
    try:
        return "name" in layer.get_config()
    except Exception:  # a user's get_config may raise anything
        return False


# ---- its values


def _rebuilt(made: Model, trace: FuncTrace) -> Model:
    """The model that the configuration of one makes, with its values."""
    config, reason = configuration_of(made)
    if config is None:
        raise ModelError(f"functionalize: the model cannot be built from plain data: {reason}")
    found = built_again(config, trace.specs, made)
    if len(found.variables) != len(made.variables):
        held: dict[int, list[str]] = {}
        for path, layer, _ in names_of(made).layers:
            for variable in tracked.own_variables(layer):
                held.setdefault(id(variable), []).append(path)
        shared = next((paths for paths in held.values() if len(paths) > 1), [])
        raise ModelError(
            f"functionalize: two layers hold one variable ({', '.join(shared)}), which no configuration can say: "
            "call one layer twice, or read the embeddings of an Embedding"
        )
    for new, variable in zip(found.variables, made.variables, strict=True):
        give_value(new, variable)
        new.trainable = variable.trainable
    for new, layer in zip(tracked.layers_of(found), tracked.layers_of(made), strict=True):
        if new.trainable != layer.trainable:
            new.trainable = layer.trainable
    load_assets(found, assets_of(made))
    finalize(found)
    return found


def _left_behind(trace: FuncTrace, made: Model, tables: Tables) -> list[str]:
    """The variables that no output depends on, by path.

    Raises:
        ModelError: an output depends on a variable that is not among those that were carried over.
    """
    layers = {id(layer) for layer in made.layers}
    held = {id(variable) for variable in made.variables}
    held |= {id(variable) for table, variable in tables.layers if id(table) in layers}
    left = []
    for path, variable, _ in trace.names.variables:
        if id(variable) in held:
            continue
        if any(reader.live for reader in trace.readers(variable)):
            raise ModelError(
                f"functionalize: {path} is read in a way that cannot be followed (in an object that is neither a layer "
                "nor a list or dict, or as values); keep layers and variables in attributes, lists or dicts"
            )
        left.append(path)
    return left


def _keep_held(model: Model, given: Names, names: Names, made: Model, found: Model, tables: Tables) -> None:
    """Carry over what earlier passes promised: how variables are held, and how layers take their inputs."""
    promises = kept_promises(model)
    places = {id(variable): index for index, (_, variable, _) in enumerate(names.variables)}
    tables_of = {id(table.embeddings): variable for table, variable in tables.layers}
    held = {}
    for index, variable in enumerate(made.variables):
        before = tables_of.get(id(variable), variable)
        encoding = promises.get(places.get(id(before), -1))
        if encoding is None:
            continue
        if tuple(before.shape) != tuple(variable.shape) and not encoding.summary().is_plain:
            raise ModelError(
                f"functionalize: {before.path} is held as {encoding.describe()}, and has another shape here: "
                "make the model functional before it is compressed"
            )
        held[index] = encoding
    keep_promises(found, held, inputs_kept(model))
    layers = {path: layer for path, layer, _ in names.layers}
    now = names_of(made)
    grids = {now.layer_path(layers[path]): inputs for path, inputs in attached_to(model, given).items()}
    attach(found, {path: inputs for path, inputs in grids.items() if path is not None})


# ---- what it computes


def _rows(model: Model) -> list[int]:
    """How many rows each table has."""
    return [layer.input_dim for layer in tracked.layers_of(model) if isinstance(layer, keras.layers.Embedding)]


def _outputs(model: Model, inputs: Nest, training: bool) -> list[Array] | None:
    """What a model gives, flat, without a trace in it; None where it does not run in training."""
    try:
        with keras.StatelessScope(), _same_draws(), inline_functions():
            return outputs_of(model, inputs, training)
    except Exception:  # a user's call raises anything
        if not training:
            raise
        return None


@contextmanager
def _same_draws() -> Iterator[None]:
    """Within this context every draw of a generator is its first, so that the order of calls makes no difference."""
    original = keras.random.SeedGenerator.next
    keras.random.SeedGenerator.next = lambda self, ordered=True: self.state.value * 1
    try:
        yield
    finally:
        keras.random.SeedGenerator.next = original


def _check(found: Model, inputs: Nest, expected: list[list[Array] | None], model: Model) -> None:
    """Raise unless a model computes what another one did, in inference and in training."""
    for training, before in zip((False, True), expected, strict=True):
        if before is None:
            continue
        now = _outputs(found, inputs, training)
        mode = "training" if training else "inference"
        why = (
            f"the call of {type(model).__name__} does in {mode} what cannot be followed: it branches on training or on "
            "values, draws random numbers itself, or keeps a state"
        )
        if now is None or len(now) != len(before):
            raise ModelError(f"functionalize: {why}")
        check_same(before, now, tolerance(found), "the functional model", why)
