"""A file into a model: what does not fit is refused, and a user's own model is filled whole or not at all."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import bitwidth as bw
from bitwidth.artifact import read_content
from bitwidth.backends.tensorflow.constraints.activations import attached_to
from bitwidth.backends.tensorflow.models.promises import kept_promises
from bitwidth.errors import BitwidthError, CorruptFileError, FileError, ModelError, UnsafeFileError
from tests.artifact.earlier import framed, pack
from tests.artifact.test_fuzz import unframed
from tests.zoo import MODELS, batch

Header = dict[str, Any]


def saved(model: Any, path: Path, *passes: bw.Pass) -> Path:
    bw.PassManager([*passes]).run(model).save(path)
    return path


def rewritten(path: Path, change: Callable[[Header, list[bytes]], None]) -> None:
    """Change header and chunks of a file, as version 2 has them, with checksums that fit."""
    header, chunks = unframed(pack(read_content(path)))
    change(header, chunks)
    path.write_bytes(framed(json.dumps(header).encode(), chunks))


def state(model: Any) -> list[bytes]:
    """All that a load may change in a model."""
    held = [np.asarray(variable.numpy()).tobytes() for variable in model.variables]
    words = [str(layer.get_vocabulary()).encode() for layer in model.layers if hasattr(layer, "get_vocabulary")]
    return [*held, *words, repr(attached_to(model)).encode(), repr(kept_promises(model)).encode()]


# ---- a user's own model


def swapped_shape(header: Header, chunks: list[bytes]) -> None:
    """The last parameter of another shape, in both places that say so."""
    header["parameters"][-1]["shape"] = [1, *header["parameters"][-1]["shape"]]
    header["variables"][-1][1] = [1, *header["variables"][-1][1]]


def damaged_late(header: Header, chunks: list[bytes]) -> None:
    chunks[-1] = b"\xff" * len(chunks[-1])


def without_the_last(header: Header, chunks: list[bytes]) -> None:
    del header["parameters"][-1], header["variables"][-1], chunks[-1]


def another_dtype(header: Header, chunks: list[bytes]) -> None:
    header["variables"][0][2] = header["parameters"][0]["dtype"] = "float16"


@pytest.mark.parametrize("change", [swapped_shape, damaged_late, without_the_last, another_dtype])
@pytest.mark.parametrize("name", ["mlp", "convnet_bn", "attention_encoder"])
def test_a_model_is_not_filled_by_half(name: str, change: Any, tmp_path: Path) -> None:
    path = saved(MODELS[name](), tmp_path / "m.bw", bw.Quantize(4))
    rewritten(path, change)
    mine = MODELS[name]()
    for variable in mine.variables:
        variable.assign(variable.numpy() * 0 + 7)
    before = state(mine)
    with pytest.raises(BitwidthError):
        bw.load(path, model=mine)
    assert state(mine) == before


def test_damage_that_only_a_whole_reading_finds(tmp_path: Path) -> None:
    path = saved(MODELS["convnet_bn"](), tmp_path / "m.bw", bw.Quantize(4))
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    mine = MODELS["convnet_bn"]()
    for variable in mine.variables:
        variable.assign(variable.numpy() * 0 + 7)
    before = state(mine)
    with pytest.raises(CorruptFileError):
        bw.load(path, model=mine)
    assert state(mine) == before


@pytest.mark.parametrize("place", [0, 1, 5])
def test_variables_whose_assignment_fails_are_put_back(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(MODELS["convnet_bn"](), tmp_path / "m.bw", bw.Quantize(4))
    mine = MODELS["convnet_bn"]()
    for variable in mine.variables:
        variable.assign(variable.numpy() * 0 + 7)
    before, assigned = state(mine), []
    original = keras.Variable.assign

    def failing(self: Any, value: Any) -> Any:
        assigned.append(self)
        if len(assigned) > place:
            raise RuntimeError("no more")
        return original(self, value)

    monkeypatch.setattr(keras.Variable, "assign", failing)
    with pytest.raises((RuntimeError, BitwidthError)):
        bw.load(path, model=mine)
    monkeypatch.undo()
    assert len(assigned) == place + 1
    assert state(mine) == before


@keras.saving.register_keras_serializable("building")
class Glossary(layers.Layer):  # type: ignore[misc]
    """A layer with words of its own, which it checks when it loads them."""

    words = "a"

    def call(self, x: Any) -> Any:
        return x

    def save_assets(self, folder: str) -> None:
        Path(folder, "words").write_text(self.words, "utf-8")

    def load_assets(self, folder: str) -> None:
        self.words = Path(folder, "words").read_text("utf-8")
        if self.words == "bad":
            raise ValueError("these are bad words")

    def get_vocabulary(self) -> str:
        return self.words


def glossary(words: str) -> Any:
    layer = Glossary(name="glossary")
    layer.words = words
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d"), layer], name="g")


def test_assets_that_a_layer_refuses_are_put_back_with_all_else(tmp_path: Path) -> None:
    path, mine = saved(glossary("bad"), tmp_path / "m.bw", bw.Quantize(4)), glossary("mine")
    before = state(mine)
    with pytest.raises(ModelError, match=r"m\.bw: glossary: its assets cannot be loaded: these are bad words"):
        bw.load(path, model=mine)
    assert state(mine) == before
    assert bw.load(saved(glossary("good"), path, bw.Quantize(4)), model=mine) is mine
    assert mine.layers[-1].words == "good"


def test_grids_and_promises_of_before_stay_on_an_error(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    mine = bw.PassManager([bw.Quantize(4, activations=8)]).run(MODELS["mlp"](), data=data).model
    before = state(mine)
    path = saved(MODELS["mlp"](), tmp_path / "m.bw", bw.Prune(0.5))
    rewritten(path, damaged_late)
    with pytest.raises(BitwidthError):
        bw.load(path, model=mine)
    assert state(mine) == before


# ---- what does not fit


def text_file(tmp_path: Path) -> Path:
    model = MODELS["text_model"]()
    lookup = layers.StringLookup(name="late")
    lookup.adapt(np.array(["x", "y"]))
    return saved(model, tmp_path / "m.bw", bw.Quantize(4))


def assets(path: Path) -> list[list[Any]]:
    found: list[list[Any]] = unframed(pack(read_content(path)))[0]["assets"]
    return found


@pytest.mark.parametrize("what", ["missing", "for no layer", "not text", "of another name", "empty"])
def test_vocabularies_that_do_not_fit_are_refused(what: str, tmp_path: Path) -> None:
    path = text_file(tmp_path)
    listed = assets(path)
    assert listed, "the model has an asset"

    def change(header: Header, chunks: list[bytes]) -> None:
        if what == "missing":
            del header["assets"][-1], chunks[-1]
        elif what == "for no layer":
            header["assets"].append(["9999/vocabulary.txt", 1])
            chunks.append(b"a")
        elif what == "of another name":
            header["assets"][-1][0] = header["assets"][-1][0].replace("vocabulary", "words")
        else:
            chunks[-1] = b"\xff\xfe\x00" if what == "not text" else b""
            header["assets"][-1][1] = len(chunks[-1])

    rewritten(path, change)
    mine = MODELS["text_model"]()
    before = state(mine)
    for model in (None, mine):
        with pytest.raises((ModelError, FileError)):
            bw.load(path, model=model)
    assert state(mine) == before


@pytest.mark.parametrize("name", ["mlp", "convnet_bn", "lstm_gru_bidirectional", "subclassed_residual"])
def test_exchanged_paths_are_refused(name: str, tmp_path: Path) -> None:
    path = saved(MODELS[name](), tmp_path / "m.bw", bw.Quantize(4))

    def change(header: Header, chunks: list[bytes]) -> None:
        first, last = header["parameters"][0], header["parameters"][-2]
        assert first["path"] != last["path"]
        first["path"], last["path"] = last["path"], first["path"]

    rewritten(path, change)
    with pytest.raises((ModelError, CorruptFileError), match="calls the parameter"):
        bw.load(path)


@pytest.mark.parametrize("dtype", ["float64", "int32", "float16"])
def test_values_of_another_dtype_than_the_variables_are_refused(dtype: str, tmp_path: Path) -> None:
    """A model in float64 or half precision, whose configuration says float32: nothing is cast."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d", dtype="float64")], name="m")
    if dtype != "float64":
        model.layers[0].bias = None
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d", dtype="float16")], name="m")
    path = saved(model, tmp_path / "m.bw")

    def change(header: Header, chunks: list[bytes]) -> None:
        header["architecture"]["config"]["layers"][1]["config"]["dtype"]["config"]["name"] = "float32"

    rewritten(path, change)
    with pytest.raises(ModelError, match="dtype"):
        bw.load(path)
    other = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d")], name="m")
    before = state(other)
    with pytest.raises(ModelError, match="dtype"):
        bw.load(path, model=other)
    assert state(other) == before


@pytest.mark.parametrize(("path", "role"), [("hidden/kernel", "state"), ("dropout/seed_generator_state", "kernel")])
def test_roles_that_values_of_a_dtype_cannot_have_are_refused(path: str, role: str, tmp_path: Path) -> None:
    file = saved(MODELS["dropout_seeded"](), tmp_path / "m.bw", bw.Quantize(4))

    def change(header: Header, chunks: list[bytes]) -> None:
        entry = next(entry for entry in header["parameters"] if entry["path"] == path)
        entry["role"] = role

    rewritten(file, change)
    with pytest.raises(CorruptFileError, match=f"have no role '{role}'"):
        bw.load(file)


# ---- nothing outside the model changes


def surroundings() -> dict[str, Any]:
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    return {
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "format": keras.config.image_data_format(),
        "backend": keras.config.backend(),
        "policy": keras.config.dtype_policy().name,
        "interactive": keras.config.is_interactive_logging_enabled(),
        "traceback": keras.config.is_traceback_filtering_enabled(),
        "flash": keras.config.is_flash_attention_enabled(),
        "registry": dict(keras.saving.get_custom_objects()),
        "python": random.getstate(),
        "numpy": (numpy_state[0], numpy_state[1].tobytes(), *numpy_state[2:]),
        "tensorflow": tf.random.get_global_generator().state.numpy().tobytes(),
        "keras": keras.random.uniform((1,), seed=5).numpy().tobytes(),
        "folder": Path.cwd(),
        "files": sorted(Path.cwd().iterdir()),
        "environment": dict(os.environ),
        "eager": tf.config.functions_run_eagerly(),
        "initialized": keras.Variable("zeros", shape=(1,)).numpy().tolist(),
    }


CHANGERS = ["set_floatx", "set_dtype_policy", "set_backend", "set_epsilon", "set_image_data_format",
            "enable_unsafe_deserialization", "disable_traceback_filtering", "enable_interactive_logging"]  # fmt: skip


@pytest.fixture
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_in")
@pytest.mark.parametrize("changer", ["", *CHANGERS])
def test_loading_changes_nothing_outside_of_the_model(changer: str, tmp_path: Path) -> None:
    path = saved(MODELS["dropout_seeded"](), tmp_path / "m.bw", bw.Quantize(4))
    if changer:

        def change(header: Header, chunks: list[bytes]) -> None:
            named = {"module": "keras.config", "class_name": "function", "config": changer, "registered_name": changer}
            header["architecture"]["config"]["layers"][2]["config"]["activation"] = named

        rewritten(path, change)
    before = surroundings()
    if changer:
        with pytest.raises(UnsafeFileError, match=changer):
            bw.load(path)
    else:
        bw.load(path)
    assert surroundings() == before


@pytest.mark.usefixtures("_in")
def test_the_draws_after_a_load_are_those_without_it(tmp_path: Path) -> None:
    path = saved(MODELS["dropout_seeded"](), tmp_path / "m.bw", bw.Quantize(4))
    draws = []
    for load in (False, True):
        keras.utils.clear_session()
        keras.utils.set_random_seed(4)
        if load:
            bw.load(path)
        draws.append([random.random(), np.random.rand(), float(tf.random.uniform(())), float(keras.random.uniform(()))])  # noqa: NPY002
    assert draws[0] == draws[1]


# ---- honest files


@pytest.mark.parametrize("name", [name for name in MODELS if name != "subclassed_unserialisable"])
def test_models_come_back_and_go_on(name: str, tmp_path: Path) -> None:
    result = bw.PassManager([bw.Quantize(8)]).run(MODELS[name]())
    result.save(tmp_path / "m.bw")
    model = bw.load(tmp_path / "m.bw")
    for found, wanted in zip(model.variables, result.model.variables, strict=True):
        assert np.asarray(found.numpy()).tobytes() == np.asarray(wanted.numpy()).tobytes()
    inputs = batch(name, 4)
    for found, wanted in zip(keras.tree.flatten(model(inputs)), keras.tree.flatten(result.model(inputs)), strict=True):
        np.testing.assert_array_equal(found, wanted)
    mine = bw.load(tmp_path / "m.bw", model=MODELS[name]())
    for found, wanted in zip(mine.variables, model.variables, strict=True):
        assert np.asarray(found.numpy()).tobytes() == np.asarray(wanted.numpy()).tobytes()
    again = bw.PassManager([]).run(model)
    assert abs(again.size - result.size) < 10  # names that Keras counts up
