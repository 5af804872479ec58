"""The fuzzer of `bitwidth.load`: `python -m tests.backends.tensorflow.fuzzing SEED FIRST COUNT`.

Files of small models are changed by one who speaks the format and Keras's configurations. A case ends in an error of
the library, or in a model whose variables are what the numpy reader finds in the file, and which is saved and loaded
again; and it leaves no trace outside of the model. The process reports as JSON the cases that did not.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np

import bitwidth as bw
from bitwidth.artifact import read_content
from bitwidth.errors import BitwidthError, ModelError
from tests.artifact import mutations
from tests.zoo import MODELS

SECONDS = 30  # of the processor, for one case: a model is built, and perhaps traced and built twice more
MEMORY = 1 << 30  # that a run of cases may need beyond what honest files need
NAMES = ("mlp", "convnet_bn", "nested_shared", "subclassed_residual", "text_model", "attention_encoder", "einsum_dense")
PASSES: list[bw.Pass] = [bw.Quantize(4), bw.Quantize(8), bw.Prune(0.5)]


class TooLong(BaseException):
    """A case took too long; no `except Exception` catches it."""


@cache
def honest() -> tuple[bytes, ...]:
    """Files of small models, each held in another way."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(NAMES):
            path = Path(folder, "m.bw")
            bw.PassManager([PASSES[place % len(PASSES)]]).run(MODELS[name]()).save(path)
            found.append(path.read_bytes())
    return tuple(found)


# ---- mutations of configurations


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """The objects in a configuration: what has a class and settings."""
    for parent, key in mutations.places({"root": node}):
        item = parent[key]
        if isinstance(item, dict) and "class_name" in item and isinstance(item.get("config"), dict):
            yield item


MODULES = ["keras.layers", "keras", "keras.ops", "keras.utils", "keras.config", "keras.saving", "keras.activations",
           "keras.src.ops.numpy", "keras.src.ops.core", "keras.initializers", "builtins", "os", None]  # fmt: skip
CLASSES = ["Dense", "Lambda", "TFSMLayer", "Activation", "Layer", "InputLayer", "Sequential", "Add", "Multiply", "Map",
           "Embedding", "LSTM", "Flatten", "Dropout", "Zeros", "L2", "MaxNorm", "DTypePolicy", "Adam", "Model",
           "BatchNormalization", "StringLookup", "GetItem", "Normalization", "Reshape", "Residual"]  # fmt: skip
FUNCTIONS = ["relu", "get_file", "load_model", "set_floatx", "tanh", "enable_unsafe_deserialization", "sin", "print"]
WORDS = ["relu", "same", "valid", "float16", "float64", "mixed_float16", "int32", "string", "/etc/hostname", "gs:x"]
VALUES: list[Any] = [0, -1, 1, 2, 3, 5, 10**5, 10**9, 10**30, 0.5, None, True, [3], [None, 6], {}, [], *WORDS]


def another_class(parts: Any, rng: random.Random) -> None:
    item = rng.choice(list(objects(parts.header["architecture"])))
    item["class_name"] = rng.choice(CLASSES)
    item["module"] = rng.choice([item.get("module"), *MODULES])
    item["registered_name"] = rng.choice([item["class_name"], None, "zoo>Residual", "zoo>Mixture"])


def another_setting(parts: Any, rng: random.Random) -> None:
    item = rng.choice(list(objects(parts.header["architecture"])))["config"]
    item[rng.choice([*item, "vocabulary", "activation", "dtype", "layers", "stateful"])] = rng.choice(VALUES)


def a_function(parts: Any, rng: random.Random) -> None:
    item = rng.choice(list(objects(parts.header["architecture"])))["config"]
    name = rng.choice(FUNCTIONS)
    named = {"module": rng.choice(MODULES), "class_name": "function", "config": name, "registered_name": name}
    item[rng.choice([*item, "activation"])] = named


def a_shape(parts: Any, rng: random.Random) -> None:
    """Numbers in the settings changed where the values then still fit, or not."""
    places = [(n, k) for n, k in mutations.places(parts.header["architecture"]) if type(n[k]) is int]
    node, key = rng.choice([place for place in places if place[1] != "depth"])  # a class of ours makes so many layers
    node[key] = rng.choice([node[key] + 1, node[key] - 1, node[key] * 2, 10**6, 10**12, 0, -node[key], None])


def a_call(parts: Any, rng: random.Random) -> None:
    """Another tensor, another argument, another layer in a graph."""
    calls = [n[k] for n, k in mutations.places(parts.header["architecture"]) if k == "inbound_nodes" and n[k]]
    node = rng.choice(rng.choice(calls))
    choice = rng.randrange(4)
    if choice == 0:
        histories = [n[k] for n, k in mutations.places(node) if k == "keras_history"]
        rng.choice(histories)[rng.randrange(3)] = rng.choice(["x", "logits", "tokens", 0, 1, -1, 99])
    elif choice == 1:
        node["kwargs"][rng.choice(["training", "mask", "name", "mode", "axis"])] = rng.choice(VALUES)
    elif choice == 2:
        node["args"].append(copy.deepcopy(rng.choice([*node["args"], *VALUES])))
    else:
        constant = {
            "value": rng.choice([[1.0, 2.0], [[1]], 3.0, ["a"], [[1], [1, 2]]]),
            "dtype": rng.choice(["float32", "object"]),
        }
        node["args"] = [
            *node["args"],
            {"class_name": rng.choice(["__numpy__", "__tensor__", "__slice__"]), "config": constant},
        ]


def an_exchange(parts: Any, rng: random.Random) -> None:
    """Two objects of the configuration in each other's place, or one gone, or twice."""
    left, right = rng.choices(list(objects(parts.header["architecture"])), k=2)
    key = rng.choice(["config", "class_name", "build_config", "name"])
    left[key], right[key] = copy.deepcopy(right[key]), copy.deepcopy(left[key])


def the_layers(parts: Any, rng: random.Random) -> None:
    lists = [
        n[k] for n, k in mutations.places(parts.header["architecture"]) if k == "layers" and isinstance(n[k], list)
    ]
    chosen = rng.choice(lists)
    place, choice = rng.randrange(len(chosen)), rng.randrange(3)
    if choice == 0:
        del chosen[place]
    elif choice == 1:
        chosen.insert(place, copy.deepcopy(rng.choice(chosen)))
    else:
        rng.shuffle(chosen)


OF_KERAS: list[mutations.Mutation] = [
    *(another_class, another_setting, another_setting, a_function, a_shape, a_shape, a_call, a_call, an_exchange),
    the_layers,
]
ALL = [*OF_KERAS, *OF_KERAS, *mutations.GENERAL, *mutations.GROUPS]


def case(seed: int, number: int) -> bytes:
    """The bytes of a case."""
    rng = random.Random(f"load:{seed}:{number}")
    return mutations.mutate(rng.choice(honest()), rng, ALL)


# ---- judging


def judged(data: bytes, folder: Path) -> bool:
    """Whether a file gives a model; raises unless it is refused, or the model is right and goes on."""
    path = folder / "m.bw"
    path.write_bytes(data)
    outside = around(folder)
    try:
        model = bw.load(path)
    except BitwidthError as error:
        _check(str(error).isprintable(), "a message that a terminal obeys")
        _check(around(folder) == outside, "something outside of the model has changed")
        return False
    _check(around(folder) == outside, "something outside of the model has changed")
    expected = [parameter.values for parameter in read_content(path).parameters]
    assert_equal(model, expected)
    again = folder / "again.bw"
    try:
        bw.PassManager([]).run(model).save(again, architecture=True)
    except ModelError as error:  # a configuration of calls that Keras builds and cannot call
        _check("cannot be traced" in str(error), str(error))
        return True
    assert_equal(bw.load(again), expected)
    again.unlink()
    return True


def _check(holds: bool, message: str) -> None:
    assert holds, message


def assert_equal(model: Any, expected: list[Any]) -> None:
    for variable, values in zip(model.variables, expected, strict=True):
        found = np.asarray(variable.numpy())
        found = found.astype(np.float32) if found.dtype.kind == "V" or str(found.dtype) == "bfloat16" else found
        assert found.dtype == values.dtype, f"{variable.path}: {found.dtype} for {values.dtype}"
        assert found.tobytes() == values.tobytes(), f"{variable.path} has other values"


def around(folder: Path) -> list[Any]:
    """What a load must leave as it was."""
    settings = [keras.config.floatx(), keras.config.dtype_policy().name, keras.config.backend(), keras.config.epsilon()]
    files = sorted(p.name for place in (folder, Path.cwd()) for p in place.iterdir())
    registry = sorted(keras.saving.get_custom_objects())
    return [settings, files, registry, random.getstate(), dict(os.environ), Path.cwd()]


def run(seed: int, first: int, count: int) -> dict[str, Any]:
    """Judge cases one after the other: how many gave a model, and what was wrong with which."""
    read, wrong = 0, {}
    honest()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as name:
        for number in range(first, first + count):
            data = case(seed, number)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                read += judged(data, Path(name))
            except (Exception, TooLong):
                wrong[number] = traceback.format_exc(limit=-6)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            if number % 50 == 0:
                keras.backend.clear_session()
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return {"read": read, "wrong": wrong, "grown": grown}


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong


if __name__ == "__main__":
    signal.signal(signal.SIGPROF, _too_long)
    print(json.dumps(run(*map(int, sys.argv[1:]))))
