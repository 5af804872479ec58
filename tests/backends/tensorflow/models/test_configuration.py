"""Configurations of strangers: what is not allowed never reaches Keras, and every honest one is read.

Nothing here runs anything: each name is only put where a configuration could put it, and must be refused there.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from bitwidth.backend import Objective, Training
from bitwidth.backends.tensorflow.models.allowed import OPERATIONS, REFUSED_LAYERS, Kind, classes, functions
from bitwidth.backends.tensorflow.models.architecture import rebuild
from bitwidth.backends.tensorflow.models.configuration import Configuration
from bitwidth.backends.tensorflow.models.plain_data import NotAllowedError
from bitwidth.backends.tensorflow.training.compiled import Compiled
from bitwidth.errors import BitwidthError, ConfigError, UnsafeFileError
from tests.zoo import MODELS

Config = dict[str, Any]
INPUTS = {"shape": [None, 4], "dtype": "float32"}


def plain(item: Any) -> Any:
    """As a file holds it."""
    return json.loads(json.dumps(keras.saving.serialize_keras_object(item)))


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Keras is asked to make; it makes none of it."""
    calls: list[Any] = []

    def spy(config: Any, *_: Any, **__: Any) -> Any:
        calls.append(config)
        raise RuntimeError("a spy")

    monkeypatch.setattr(keras.saving, "deserialize_keras_object", spy)
    return calls


def dense(**settings: Any) -> Config:
    return {"module": "keras.layers", "class_name": "Dense", "config": {"name": "d", "units": 2, **settings}}


def stack(*parts: Any) -> Config:
    """A Sequential model of layers."""
    start = plain(layers.InputLayer((4,), name="x"))
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [start, *parts]}}


def graph(layer: Config, args: list[Any] | None = None, **kwargs: Any) -> Config:
    """A Functional model that calls one layer or operation."""
    x = {"class_name": "__keras_tensor__", "config": {**INPUTS, "keras_history": ["x", 0, 0]}}
    call = {"args": [x] if args is None else args, "kwargs": kwargs}
    parts = [
        {**plain(layers.InputLayer((4,), name="x")), "name": "x", "inbound_nodes": []},
        {**layer, "name": "y", "inbound_nodes": [call]},
    ]
    settings = {"name": "m", "layers": parts, "input_layers": ["x", 0, 0], "output_layers": ["y", 0, 0]}
    return {"module": "keras.src.models.functional", "class_name": "Functional", "config": settings}


def tensor(layer: str = "x", node: int = 0) -> Config:
    return {"class_name": "__keras_tensor__", "config": {**INPUTS, "keras_history": [layer, node, 0]}}


# ---- every public name of the installed Keras, in every kind of place


@cache
def public() -> dict[str, Any]:
    """Everything that the public modules of Keras hold, by its whole name."""
    found: dict[str, Any] = {}

    def visit(module: ModuleType, name: str) -> None:
        for key in dir(module):
            if key.startswith("_") or f"{name}.{key}" in ("keras.src", "keras.tree"):
                continue
            item, whole = getattr(module, key), f"{name}.{key}"
            if isinstance(item, ModuleType):
                if item.__name__.startswith("keras") and whole not in found:
                    visit(item, whole)
            else:
                found[whole] = item

    visit(keras, "keras")
    return found


def as_class(module: str, name: str) -> Config:
    return {"module": module, "class_name": name, "config": {}, "registered_name": None}


def as_function(module: str, name: str) -> Config:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


PLACES: dict[str, tuple[Kind, Callable[[Any], Config]]] = {
    "a layer of a stack": (Kind.LAYER, lambda item: stack(item)),
    "a layer of a graph": (Kind.LAYER, lambda item: graph(item)),
    "a wrapped layer": (
        Kind.LAYER,
        lambda item: stack({"module": "keras.layers", "class_name": "TimeDistributed", "config": {"layer": item}}),
    ),
    "an activation": (Kind.ACTIVATION, lambda item: stack(dense(activation=item))),
    "an initializer": (Kind.INITIALIZER, lambda item: stack(dense(kernel_initializer=item))),
    "a regularizer": (Kind.REGULARIZER, lambda item: stack(dense(activity_regularizer=item))),
    "a constraint": (Kind.CONSTRAINT, lambda item: stack(dense(bias_constraint=item))),
    "a dtype": (Kind.POLICY, lambda item: stack(dense(dtype=item))),
}


def expected(kind: Kind, item: Any, name: str) -> bool:
    """Whether an object of Keras belongs in a place, told without the lists of the reader."""
    home = getattr(item, "__module__", "") or ""
    if not isinstance(item, type):
        activation = home.startswith("keras.src.activations.activations")
        return kind is Kind.ACTIVATION and callable(item) and (activation or name in functions(kind))
    if kind in (Kind.LAYER, Kind.ACTIVATION):
        inside = home.startswith(("keras.src.layers", "keras.src.models"))
        return issubclass(item, keras.Layer) and inside and item.__name__ not in REFUSED_LAYERS
    bases = {
        Kind.INITIALIZER: keras.initializers.Initializer,
        Kind.REGULARIZER: keras.regularizers.Regularizer,
        Kind.CONSTRAINT: keras.constraints.Constraint,
        Kind.POLICY: keras.DTypePolicy,
    }
    return issubclass(item, bases[kind])


@pytest.mark.parametrize("place", list(PLACES))
@pytest.mark.parametrize("form", [as_class, as_function])
def test_no_other_public_name_of_keras_reaches_it(
    place: str, form: Callable[[str, str], Config], reached: list[Any]
) -> None:
    kind, put = PLACES[place]
    assert len(public()) > 1000
    let_through = set()
    for whole, item in public().items():
        module, _, name = whole.rpartition(".")
        before = len(reached)
        with pytest.raises(BitwidthError):
            rebuild(put(form(module, name)), INPUTS)
        if len(reached) > before:
            let_through.add(whole)
            assert expected(kind, item, name), f"{whole} reached Keras as {place}"
    if form is as_class or kind is Kind.ACTIVATION:
        assert let_through, "nothing at all may stand here?"


@pytest.mark.parametrize("place", list(PLACES))
def test_no_name_of_another_package_reaches_keras(place: str, reached: list[Any]) -> None:
    _, put = PLACES[place]
    for module, name in [
        ("builtins", "print"),
        ("os", "getcwd"),
        ("json", "JSONDecoder"),
        ("numpy", "ones"),
        ("tensorflow", "identity"),
        ("keras.src.saving.saving_api", "load_model"),
        ("keras.src.layers.core.lambda_layer", "Lambda"),
        ("bitwidth", "load"),
        ("", "Dense"),
        ("keras.layers.", "Dense"),
        ("keras", "layers.Dense"),
        ("keras.layers", "core.Dense"),
    ]:
        for form in (as_class, as_function):
            with pytest.raises(UnsafeFileError):
                rebuild(put(form(module, name)), INPUTS)
    assert not reached


def test_operations_that_take_functions_are_not_listed() -> None:
    """Nor is any that is not in the reviewed lists; each that is exists or is of another version of Keras."""
    taking = {"Map", "Scan", "AssociativeScan", "Cond", "Switch", "WhileLoop", "ForiLoop", "VectorizedMap", "JVP"}
    for names in OPERATIONS.values():
        assert not taking & set(names.split())
    for module in OPERATIONS:
        for name in taking | {"Function"}:
            with pytest.raises(NotAllowedError, match="may be named here"):
                Configuration().read(as_class(module, name), Kind.LAYER, "here")
    found = [f"{module}.{name}" for module, names in OPERATIONS.items() for name in names.split()]
    assert len(set(found)) == len(found)
    assert len(set(found) & set(classes(Kind.LAYER))) > 0.8 * len(found)


# ---- what else may not be said


def array(value: Any, dtype: str) -> Config:
    return {"class_name": "__numpy__", "config": {"value": value, "dtype": dtype}}


def twice(config: Config) -> Config:
    config["config"]["layers"] *= 2
    return config


WORD = {"module": "keras.layers", "class_name": "StringLookup"}
REFUSED: dict[str, Config] = {
    "a lambda": stack(dense(activation={"class_name": "__lambda__", "config": {"value": ["", None, None]}})),
    "a lambda as a layer": graph({"class_name": "__lambda__", "config": {"value": ["", None, None]}}),
    "a type spec": graph(dense(), [tensor(), {"class_name": "__typespec__", "config": [], "spec_name": "TensorSpec"}]),
    "bytes": graph(dense(), [tensor(), {"class_name": "__bytes__", "config": {"value": "a"}}]),
    "a vocabulary in a file": stack({**WORD, "config": {"vocabulary": "words.txt"}}),
    "a vocabulary elsewhere": stack({**WORD, "config": {"vocabulary": "https://example.com/words"}}),
    "a vocabulary of objects": stack({**WORD, "config": {"vocabulary": [{"class_name": "x", "config": {}}]}}),
    "a path": stack(dense(units="/etc/hostname")),
    "a path upwards": stack(dense(units="..")),
    "a path at home": stack(dense(units="~root")),
    "an address": stack(dense(units="http://example.com")),
    "a bucket": stack(dense(units="gs:bucket")),
    "a drive": stack(dense(units="C:\\x")),
    "a NUL": stack(dense(units="a\0b")),
    "a path among the arguments of a call": graph(dense(), [tensor(), "/etc/hostname"]),
    "an address among them": graph(dense(), None, mode="http://example.com"),
    "an object among them": graph(dense(), [tensor(), as_class("keras.layers", "Dense")]),
    "a function among them": graph(dense(), [tensor(), as_function("keras.activations", "relu")]),
    "a call without a tensor": graph(as_class("keras.src.ops.numpy", "Add"), [1.0, 2.0]),
    "a tensor of no layer": graph(dense(), [tensor("z")]),
    "a tensor of a negative node": graph(dense(), [tensor("x", -1)]),
    "a tensor without a history": graph(dense(), [{"class_name": "__keras_tensor__", "config": {**INPUTS}}]),
    "a constant of objects": graph(dense(), [tensor(), array(["a"], "object")]),
    "a constant of texts": graph(dense(), [tensor(), array(["a"], "float32")]),
    "a ragged constant": graph(dense(), [tensor(), array([[1], [1, 2]], "float32")]),
    "a wide dtype": graph(dense(), [tensor(), array([1], "<U999999999")]),
    "an own dtype": stack(dense(dtype="int8_from_float32")),
    "a quantized policy": stack(dense(dtype=as_class("keras.dtype_policies", "QuantizedDTypePolicy"))),
    "settings that are a list": stack({"module": "keras.layers", "class_name": "Dense", "config": []}),
    "a class that is a number": stack({"module": "keras.layers", "class_name": 5, "config": {}}),
    "a module that is a list": stack({"module": ["keras.layers"], "class_name": "Dense", "config": {}}),
    "an activation that is a list": stack(dense(activation=["relu"])),
    "an activation that is nothing's name": stack(dense(activation="reloo")),
    "an initializer that is a number": stack(dense(kernel_initializer=5)),
    "two layers of one name": twice(graph(dense())),
    "no model": {"a": 1},
    "a text": "Dense",  # type: ignore[dict-item]
}  # fmt: skip


@pytest.mark.parametrize("what", list(REFUSED))
def test_refused_before_keras_sees_it(what: str, reached: list[Any]) -> None:
    with pytest.raises(UnsafeFileError):
        rebuild(REFUSED[what], INPUTS)
    assert not reached


def test_calls_in_the_form_of_old_files_are_refused(reached: list[Any]) -> None:
    config = graph(dense())
    config["config"]["layers"][1]["inbound_nodes"] = [[["x", 0, 0, {}]]]
    with pytest.raises(UnsafeFileError, match="arguments of a call"):
        rebuild(config, INPUTS)
    assert not reached


@pytest.mark.parametrize("depth", [50, 5_000, 100_000])
def test_deep_nesting_ends_in_an_error(depth: int, reached: list[Any]) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    for config in (stack(dense(units=value)), graph(dense(), [tensor(), value])):
        with pytest.raises(BitwidthError):
            rebuild(config, INPUTS)


NO_SHAPES: list[Any] = [[-1], "x", [1] * 40, [4.0], None, {}]
NO_INPUTS: list[Any] = [
    *(None, 5, [], {}, {"shape": [None, 4]}, {"list": 3}, {"dict": []}, {"list": [{"shape": [True], "dtype": "bool"}]}),
    *({"shape": shape, "dtype": "float32"} for shape in NO_SHAPES),
    *({"shape": [4], "dtype": dtype} for dtype in (["float32"], None, "object", "resource", "<U9")),
]


@pytest.mark.parametrize("inputs", NO_INPUTS)
def test_inputs_that_are_none(inputs: Any) -> None:
    with pytest.raises(UnsafeFileError):
        rebuild(stack(dense()), inputs)


def test_what_models_were_compiled_with_does_not_reach_keras(reached: list[Any]) -> None:
    inner = {**stack(dense()), "compile_config": {"optimizer": "adam", "loss": as_function("keras.utils", "get_file")}}
    config = {**stack(inner, dense()), "compile_config": {"loss": as_function("keras.utils", "get_file")}}
    with pytest.raises(BitwidthError, match="a spy"):
        rebuild(config, INPUTS)
    assert "compile_config" not in json.dumps(reached)
    assert "get_file" not in json.dumps(reached)


def test_the_configuration_is_not_changed() -> None:
    config = plain(MODELS["attention_encoder"]())
    before = json.dumps(config)
    Configuration().read(config, Kind.LAYER, "here")
    assert json.dumps(config) == before


# ---- classes and functions of the user's own


@keras.saving.register_keras_serializable("configuration")
class Gate(layers.Layer):  # type: ignore[misc]
    """A layer of the process."""

    def __init__(self, units: int = 2, note: str = "", inner: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.note, self.inner = units, note, inner

    def get_config(self) -> Config:
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "units": self.units, "note": self.note, "inner": inner}

    @classmethod
    def from_config(cls, config: Config) -> Any:
        return cls(**{**config, "inner": keras.saving.deserialize_keras_object(config["inner"])})

    def call(self, x: Any) -> Any:
        return x * 0.5


@keras.saving.register_keras_serializable("configuration")
class Ramp(keras.initializers.Initializer):  # type: ignore[misc]
    """An initializer of the process."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return keras.ops.zeros(shape, dtype)


@keras.saving.register_keras_serializable("configuration")
class Cut(keras.losses.Loss):  # type: ignore[misc]
    """A loss of the process."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.abs(y_true - y_pred), -1)


@keras.saving.register_keras_serializable("configuration")  # type: ignore[untyped-decorator]
def bent(x: Any) -> Any:
    """A function of the process."""
    return keras.ops.maximum(x, 0.1 * x)


def loose(x: Any) -> Any:
    """A function that the caller gives."""
    return keras.ops.tanh(x)


def own(cls: str, **settings: Any) -> Config:
    return {"module": __name__, "class_name": cls, "config": settings, "registered_name": f"configuration>{cls}"}


def test_classes_and_functions_of_the_process_stand_in_places_of_their_kind() -> None:
    gate = own("Gate", name="g", note="/any/text:of its own", inner=plain(layers.LeakyReLU(0.2)))
    function = {"module": __name__, "class_name": "function", "config": "configuration>bent", "registered_name": None}
    config = stack(gate, dense(activation=function, kernel_initializer=own("Ramp")))
    model = rebuild(config, INPUTS)
    assert type(model.layers[0]).__name__ == "Gate"
    assert model.layers[0].note == "/any/text:of its own"
    assert isinstance(model.layers[0].inner, layers.LeakyReLU)
    assert model.layers[1].activation is bent
    assert isinstance(model.layers[1].kernel_initializer, Ramp)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("a layer of a stack", "Ramp"),
        ("a wrapped layer", "Cut"),
        ("a layer of a stack", "bent"),
        ("an activation", "Cut"),
        ("an activation", "Ramp"),
        ("an initializer", "Gate"),
        ("an initializer", "Cut"),
        ("a regularizer", "Gate"),
        ("a constraint", "Ramp"),
        ("a dtype", "Gate"),
        ("a dtype", "bent"),
    ],
)
def test_not_in_places_of_another_kind(place: str, name: str, reached: list[Any]) -> None:
    for item in (own(name), as_function(__name__, f"configuration>{name}"), f"configuration>{name}"):
        with pytest.raises(UnsafeFileError):
            rebuild(PLACES[place][1](item), INPUTS)
    assert not reached


@pytest.mark.parametrize("inner", [as_function("keras.utils", "get_file"), as_class("keras.layers", "Lambda"),
                                   {"class_name": "__lambda__", "config": {"value": ["", None, None]}},
                                   [{"deep": as_function("keras.saving", "load_model")}]])  # fmt: skip
def test_objects_within_an_own_class_are_such_as_may_be_named(inner: Any, reached: list[Any]) -> None:
    with pytest.raises(UnsafeFileError):
        rebuild(stack(own("Gate", inner=inner)), INPUTS)
    assert not reached


def test_the_callers_own_objects_are_known_and_others_are_not(reached: list[Any]) -> None:
    config = stack(dense(activation={"module": __name__, "class_name": "function", "config": "loose"}))
    with pytest.raises(UnsafeFileError, match="custom_objects"):
        rebuild(config, INPUTS)
    assert not reached
    with pytest.raises(BitwidthError, match="a spy"):
        rebuild(config, INPUTS, {"loose": loose})


def test_a_word_that_names_an_own_class_is_refused_where_keras_would_take_the_class(
    reached: list[Any],
) -> None:
    for settings in ({"mode": "configuration>Gate"}, {"deep": [{"in": "loose"}]}):
        for custom in ({"loose": loose}, {"loose": Gate}):
            with pytest.raises(UnsafeFileError, match="is the name of a registered class or function"):
                rebuild(graph(dense(), None, **settings), INPUTS, custom)
    with pytest.raises(UnsafeFileError, match="is the name of"):
        rebuild(stack(dense(units="loose")), INPUTS, {"loose": Gate})
    assert not reached


def test_functions_of_files_of_keras_3_6_are_found_by_the_end_of_their_name() -> None:
    read = Configuration().read(as_function("builtins", "bent"), Kind.ACTIVATION, "here")
    assert keras.activations.get(read) is bent


def test_a_class_is_no_function_though_its_name_ends_alike(reached: list[Any]) -> None:
    """A registered class of the name of one of Keras's, in the form in which functions are named."""
    for name in ("Gate", "configuration>Gate", "Ramp"):
        for place in ("a layer of a stack", "an activation", "an initializer"):
            with pytest.raises(UnsafeFileError):
                rebuild(PLACES[place][1](as_function("keras.layers", name)), INPUTS)
    assert not reached


# ---- honest configurations


@pytest.mark.parametrize("name", [name for name in MODELS if "unserialisable" not in name])
def test_models_of_the_zoo_are_read(name: str) -> None:
    model = MODELS[name]()
    made = Configuration().read(plain(model), Kind.LAYER, "here")
    assert type(keras.saving.deserialize_keras_object(made)) is type(model)


ARGUMENTS: Config = {
    "units": 3, "filters": 4, "kernel_size": 3, "pool_size": 2, "rate": 0.5, "output_dim": 4, "input_dim": 5,
    "num_heads": 2, "key_dim": 3, "head_dim": 3, "num_query_heads": 2, "num_key_value_heads": 1, "n": 2,
    "equation": "ab,bc->ac", "output_shape": (3,), "dims": (2, 1), "target_shape": (2, 2), "axes": 1, "size": 2,
    "height": 4, "width": 4, "num_tokens": 5, "num_bins": 5, "factor": 0.2, "stddev": 0.1, "activation": "relu",
    "scale": 2.0, "output_size": 2, "max_number": 3, "groups": 2, "height_factor": 0.1, "width_factor": 0.1,
    "init_values": 0.1, "projection_dim": 3, "drop_path_rate": 0.1, "shape": (4,), "vocabulary": None,
}  # fmt: skip
FIXED: dict[str, Config] = {
    "CategoryEncoding": {"num_tokens": 5},
    "Discretization": {"bin_boundaries": [0.0, 1.0]},
    "InputLayer": {"shape": (4,)},
    "RandomPosterization": {"factor": 4},
}
NOT_ALONE = {"Layer", "Functional", "Model", "STFTSpectrogram"}  # without settings, or (the last) in need of scipy


def made_of(cls: type[Any]) -> Any:
    """A layer of a class, with initializers, regularizers and constraints where it takes them."""
    given: Config = {}
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        name, required = parameter.name, parameter.default is parameter.empty
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if name == "layer":
            given[name] = layers.LSTM(3) if cls is layers.Bidirectional else layers.Dense(3)
        elif name in ("cell", "cells", "layers"):
            choices = {"cell": layers.LSTMCell(3), "cells": [layers.LSTMCell(3), layers.GRUCell(2)]}
            given[name] = choices.get(name, [layers.Rescaling(2.0)])
        elif required:
            given[name] = ARGUMENTS[name]
        elif name.endswith("_initializer"):
            given[name] = keras.initializers.VarianceScaling(seed=3)
        elif name.endswith("_regularizer"):
            given[name] = keras.regularizers.L1L2(0.1, 0.2)
        elif name.endswith("_constraint"):
            given[name] = keras.constraints.MaxNorm(2.0)
    return cls(**given)


LAYERS = [name for name, item in classes(Kind.LAYER).items() if issubclass(item.target, keras.Layer)]


@pytest.mark.parametrize("label", LAYERS)
def test_every_layer_that_may_be_named_is_read_as_it_was_written(label: str) -> None:
    cls = classes(Kind.LAYER)[label].target
    if cls.__name__ in NOT_ALONE:
        return
    layer = cls(**FIXED[cls.__name__]) if cls.__name__ in FIXED else made_of(cls)
    written = plain(layer)
    read = Configuration().read(written, Kind.LAYER, "here")
    assert plain(keras.saving.deserialize_keras_object(json.loads(json.dumps(read)))) == written


def operations() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    ops = keras.ops
    yield "arithmetic", lambda x: (x + 1.0) * x - x / 2.0
    yield "slices", lambda x: x[:, 1:3] + x[..., None, 0]
    yield "einsum", lambda x: ops.einsum("ab,bc->ac", x, ops.ones((4, 2)))
    yield "numpy constants", lambda x: ops.matmul(x, np.ones((4, 3), np.float32))
    yield "shapes", lambda x: ops.transpose(ops.reshape(x, (-1, 2, 2)), (0, 2, 1))
    yield "split", lambda x: ops.concatenate(ops.split(x, 2, axis=1), axis=0)
    yield "modes", lambda x: ops.pad(x, ((0, 0), (1, 1)), mode="reflect")
    yield "casts", lambda x: ops.cast(ops.argmax(x, -1), "float32")
    yield "softmax", lambda x: ops.softmax(x, axis=-1)
    yield "conditions", lambda x: ops.where(x > 0, x, ops.zeros_like(x))
    yield "activations of operations", lambda x: layers.Activation(ops.sin)(x)
    yield "a layer as an activation", lambda x: layers.Dense(2, activation=layers.LeakyReLU(0.1))(x)
    yield (
        "a seed generator",
        lambda x: layers.Dense(2, kernel_initializer=keras.initializers.HeNormal(keras.random.SeedGenerator(3)))(x),
    )
    yield "dicts of tensors", lambda x: {"a/b": layers.Dense(2)(x), "c": [x, x]}
    yield (
        "policies",
        lambda x: layers.Dense(2, dtype="mixed_float16")(layers.Dense(2, dtype=keras.DTypePolicy("float64"))(x)),
    )
    yield "masks", lambda x: layers.LSTM(3)(layers.Masking(0.5)(ops.reshape(x, (-1, 2, 2))))
    yield "initial states", lambda x: layers.GRU(4)(x[:, :, None], initial_state=x)


@pytest.mark.parametrize(("label", "body"), list(operations()), ids=[name for name, _ in operations()])
def test_operations_in_graphs_compute_the_same_when_they_are_read(label: str, body: Callable[[Any], Any]) -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, body(x))
    again = keras.saving.deserialize_keras_object(Configuration().read(plain(model), Kind.LAYER, "here"))
    again.set_weights(model.get_weights())
    batch = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    first, second = keras.tree.flatten(model(batch)), keras.tree.flatten(again(batch))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- the same reader serves recipes

OBJECTIVES = [
    as_function("keras.utils", "get_file"),
    as_class("keras.layers", "Dense"),
    as_class("keras.utils", "Sequence"),
    as_class("os", "getcwd"),
    {"class_name": "Mean", "config": {"name": "x", "fn": as_class("keras.layers", "Dense")}},
    {"class_name": "MeanMetricWrapper", "config": {"fn": as_function("keras.saving", "load_model")}},
    own("Gate"),
]


@pytest.mark.parametrize("config", OBJECTIVES)
def test_recipes_name_losses_metrics_and_optimizers_only(config: Config, reached: list[Any]) -> None:
    compiled, model = Compiled(Objective()), MODELS["mlp"]()
    with pytest.raises(ConfigError):
        compiled.compile(model, Objective(loss=config))
    with pytest.raises(ConfigError):
        compiled.compile(model, Objective(loss="mse", metrics=[config]))
    for optimizer in (config, {"class_name": "Adam", "config": {"learning_rate": config}}):
        with pytest.raises(ConfigError):
            compiled.optimizer_for(Training(Objective(), None, optimizer=optimizer), 3, ())
    assert not reached


def test_losses_metrics_optimizers_and_schedules_are_made() -> None:
    compiled, model = Compiled(Objective()), MODELS["mlp"]()
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([5], [0.1, 0.01])
    training = Training(Objective(), None, optimizer=plain(keras.optimizers.AdamW(schedule)))
    optimizer = compiled.optimizer_for(training, 3, ())
    assert type(optimizer).__name__ == "AdamW"
    compiled.compile(
        model, Objective(own("Cut"), None, [plain(keras.metrics.MeanAbsoluteError())]), optimizer=optimizer
    )
    assert isinstance(model.loss, Cut)
    lower = {"class_name": "adam", "config": {"learning_rate": 0.5}}
    assert float(compiled.optimizer_for(Training(Objective(), None, optimizer=lower), 3, ()).learning_rate) == 0.5
