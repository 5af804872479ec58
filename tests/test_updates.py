"""`result.save(path, base=...)`, `bw.load(path, base=...)`, `bw.diff`, `bw.artifact.read`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.artifact import open_file, read_content
from bitwidth.artifact.updates import values_hash
from bitwidth.errors import ConfigError, CorruptFileError, FileError

PASSES: dict[str, list[bw.Pass]] = {
    "4 bits": [bw.Quantize(bits=4)],
    "8 bits": [bw.Quantize(bits=8)],
    "pruned": [bw.Prune(0.6, scope="local"), bw.Quantize(bits=4)],
    "pruned, float": [bw.Prune(0.6, scope="local")],
    "codebook": [bw.Quantize(bits=3, rule="codebook")],
    "rate": [bw.Quantize(rate=2.0)],
    "nothing": [],
}


def network(width: int = 24) -> keras.Model:
    keras.utils.clear_session()  # the names of layers are those of the first model
    keras.utils.set_random_seed(5)
    inputs = keras.Input((12, 12, 2))
    x = keras.layers.Conv2D(width, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Dropout(0.1)(x))
    return keras.Model(inputs, keras.layers.Dense(80, name="out")(x), name="net")


def moved(model: keras.Model, amount: float = 1e-3) -> keras.Model:
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(variable + amount * rng.normal(size=variable.shape))
    return model


def save(model: keras.Model, passes: list[bw.Pass], path: Path, **options: Any) -> Path:
    bw.PassManager(passes).run(model).save(path, **options)
    return path


def same(one: keras.Model, other: keras.Model) -> bool:
    weights = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(left, right) for left, right in weights)


@pytest.mark.parametrize("name", list(PASSES))
def test_an_update_gives_the_model_that_the_whole_file_gives(name: str, tmp_path: Path) -> None:
    old = save(network(), PASSES[name], tmp_path / "old.bw")
    result = bw.PassManager(PASSES[name]).run(moved(network()))
    result.save(tmp_path / "new.bw")
    result.save(tmp_path / "update.bw", base=old)
    whole, update = read_content(tmp_path / "new.bw"), read_content(tmp_path / "update.bw", base=old)
    assert whole.architecture == update.architecture
    for one, other in zip(whole.parameters, update.parameters, strict=True):
        assert one.values.tobytes() == other.values.tobytes()
        assert one.encoding.describe() == other.encoding.describe()
        assert one.encoding.state().config == other.encoding.state().config
    assert same(bw.load(tmp_path / "new.bw"), bw.load(tmp_path / "update.bw", base=old))
    ratio = (tmp_path / "update.bw").stat().st_size / (tmp_path / "new.bw").stat().st_size
    assert ratio < (0.9 if "float" in name or name == "nothing" else 0.6)


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_an_update_is_read_at_fewer_bits(bits: int, tmp_path: Path) -> None:
    old = save(network(), PASSES["8 bits"], tmp_path / "old.bw")
    update = save(moved(network()), PASSES["8 bits"], tmp_path / "update.bw", base=old)
    new = save(moved(network()), PASSES["8 bits"], tmp_path / "new.bw")
    assert same(bw.load(new, bits=bits), bw.load(update, bits=bits, base=old))


def test_a_model_that_did_not_change_takes_the_header_only(tmp_path: Path) -> None:
    old = save(network(), PASSES["4 bits"], tmp_path / "old.bw")
    update = save(network(), PASSES["4 bits"], tmp_path / "update.bw", base=old)
    assert update.stat().st_size < 150
    assert same(bw.load(old), bw.load(update, base=old))


def test_layers_that_are_numbered_otherwise(tmp_path: Path) -> None:
    """The second model of a process has other names: parameters are those in the same place."""
    old = save(network(), PASSES["8 bits"], tmp_path / "old.bw")
    keras.layers.Dropout(0.5)
    inputs = keras.Input((12, 12, 2))
    x = keras.layers.Dropout(0.1)(keras.layers.BatchNormalization()(keras.layers.Conv2D(24, 3)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(80)(keras.layers.GlobalAveragePooling2D()(x)))
    model.set_weights(moved(network()).get_weights())
    update = save(model, PASSES["8 bits"], tmp_path / "update.bw", base=old)
    whole = save(model, PASSES["8 bits"], tmp_path / "whole.bw")
    loaded = bw.load(update, base=old)
    assert same(bw.load(whole), loaded)
    assert [variable.path for variable in loaded.variables] == [variable.path for variable in model.variables]
    assert update.stat().st_size < 0.6 * whole.stat().st_size


def test_updates_of_updates(tmp_path: Path) -> None:
    models = [moved(network(), amount) for amount in (0.0, 1e-3, 2e-3)]
    paths = [tmp_path / f"{place}.bw" for place in range(3)]
    save(models[0], PASSES["4 bits"], paths[0])
    save(models[1], PASSES["4 bits"], paths[1], base=paths[0])
    save(models[2], PASSES["4 bits"], paths[2], base=paths[:2])
    whole = save(models[2], PASSES["4 bits"], tmp_path / "whole.bw")
    assert same(bw.load(whole), bw.load(paths[2], base=paths[:2]))
    with pytest.raises(FileError, match=r"1\.bw: holds what changed since a file"):
        bw.load(paths[2], base=paths[1])
    with pytest.raises(FileError, match="holds what changed"):
        bw.load(paths[2], base=paths[1::-1])


def test_a_wrong_or_missing_base_is_named(tmp_path: Path) -> None:
    old = save(network(), PASSES["4 bits"], tmp_path / "old.bw")
    other = save(moved(network(), 1.0), PASSES["4 bits"], tmp_path / "other.bw")
    update = save(moved(network()), PASSES["4 bits"], tmp_path / "update.bw", base=old)
    with open_file(old) as file:
        needed = values_hash(file.parameters())
    with open_file(other) as file:
        found = values_hash(file.parameters())
    with pytest.raises(FileError, match=f"update.bw: .*{needed}: pass that file as base="):
        bw.load(update)
    with pytest.raises(FileError, match=f"update.bw: .*{needed}; those of .*other.bw have {found}"):
        bw.load(update, base=other)
    with pytest.raises(FileError, match="cannot be opened"):
        bw.load(update, base=tmp_path / "none.bw")
    mine = network()
    before = mine.get_weights()
    with pytest.raises(FileError):
        bw.load(update, base=other, model=mine)
    assert all(np.array_equal(one, two) for one, two in zip(before, mine.get_weights(), strict=True))
    for bad in (5, [], [5], {"a": 1}):
        with pytest.raises(ConfigError, match="base must be a path"):
            bw.load(update, base=bad)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="base must be a path"):
            save(network(), [], tmp_path / "new.bw", base=bad)
    assert needed in str(bw.inspect(update))
    assert bw.inspect(update).base == needed
    assert bw.inspect(old).base == ""


def test_the_base_may_be_another_file_of_the_same_values(tmp_path: Path) -> None:
    """It is known by what it holds, not by its bytes."""
    old = save(network(), PASSES["8 bits"], tmp_path / "old.bw")
    update = save(moved(network()), PASSES["8 bits"], tmp_path / "update.bw", base=old)
    again = bw.PassManager([]).run(bw.load(old))
    again.save(tmp_path / "again.bw", architecture=False)
    assert same(bw.load(update, base=old), bw.load(update, base=tmp_path / "again.bw"))


def test_a_base_with_other_parameters_is_refused(tmp_path: Path) -> None:
    old = save(network(), PASSES["4 bits"], tmp_path / "old.bw")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="other")])
    target = tmp_path / "update.bw"
    with pytest.raises(FileError, match="a file of 9 parameters is no base for this model of 2"):
        save(model, [], target, base=old)
    assert not target.exists()
    with pytest.raises(FileError, match="cannot be opened"):
        save(network(), [], target, base=tmp_path / "none.bw")
    assert not target.exists()


def test_a_parameter_of_another_shape_or_encoding_is_stored_whole(tmp_path: Path) -> None:
    old = save(network(), PASSES["4 bits"], tmp_path / "old.bw")
    for width, passes in ((10, PASSES["4 bits"]), (24, PASSES["codebook"]), (24, PASSES["pruned"]), (24, [])):
        update = save(network(width), passes, tmp_path / "update.bw", base=old)
        whole = save(network(width), passes, tmp_path / "whole.bw")
        assert same(bw.load(whole), bw.load(update, base=old))
        content = read_content(update, base=old)
        assert content.architecture == read_content(whole).architecture


def test_a_base_that_was_cut_off_or_altered_is_found(tmp_path: Path) -> None:
    old = save(network(), PASSES["4 bits"], tmp_path / "old.bw")
    update = save(moved(network()), PASSES["4 bits"], tmp_path / "update.bw", base=old)
    data = old.read_bytes()
    old.write_bytes(data[:-1])
    with pytest.raises(CorruptFileError, match=r"old\.bw: cut off"):
        bw.load(update, base=old)
    old.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptFileError, match=r"old\.bw.*altered"):
        bw.load(update, base=old)


def test_an_update_of_a_file_of_version_2(tmp_path: Path) -> None:
    from tests.artifact import earlier

    old = tmp_path / "old.bw"
    old.write_bytes(earlier.pack(read_content(save(network(), PASSES["8 bits"], tmp_path / "three.bw"))))
    update = save(moved(network()), PASSES["8 bits"], tmp_path / "update.bw", base=old)
    new = save(moved(network()), PASSES["8 bits"], tmp_path / "new.bw")
    assert same(bw.load(new), bw.load(update, base=old))


# ---- diff


def test_diff_says_what_changed(tmp_path: Path) -> None:
    old = save(network(), PASSES["4 bits"], tmp_path / "old.bw")
    model = network()
    model.get_layer("out").bias.assign(np.full(80, 0.25))
    new = save(model, PASSES["4 bits"], tmp_path / "new.bw")
    update = save(model, PASSES["4 bits"], tmp_path / "update.bw", base=old)
    found = bw.diff(old, new)
    changed = {one.path: one for one in found.parameters if one.what != "same"}
    assert list(changed) == ["out/bias"]
    assert (changed["out/bias"].values, changed["out/bias"].largest) == (80, 0.25)
    assert found.update_bytes == update.stat().st_size
    assert found.new_bytes == new.stat().st_size
    assert found.architecture
    assert "out/bias" in str(found)
    assert "conv/kernel" not in str(found)
    assert bw.diff(old, update) == bw.diff(old, new).__class__(**{**vars(bw.diff(old, new)), "new": str(update)})


def test_diff_of_models_with_other_parameters(tmp_path: Path) -> None:
    old = save(network(), [], tmp_path / "old.bw")
    inputs = keras.Input((12, 12, 2))
    x = keras.layers.Conv2D(24, 5, name="conv")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(keras.layers.Flatten()(x)))
    found = bw.diff(old, save(model, [], tmp_path / "new.bw"))
    what = {one.path: one.what for one in found.parameters}
    assert what["head/kernel"] == "added"
    assert what["out/kernel"] == what["norm/gamma"] == "removed"
    assert what["conv/kernel"] == "changed"
    assert found.update_bytes is None
    assert "no update is possible" in str(found)
    assert "configurations of the models differ" in str(found)


# ---- read


def test_read_gives_arrays(tmp_path: Path) -> None:
    old = save(network(), PASSES["8 bits"], tmp_path / "old.bw")
    update = save(moved(network()), PASSES["8 bits"], tmp_path / "update.bw", base=old)
    arrays = bw.artifact.read(update, base=old)
    model = bw.load(update, base=old)
    assert list(arrays) == [entry.path for entry in bw.inspect(old).parameters]
    for array, variable in zip(arrays.values(), model.variables, strict=True):
        np.testing.assert_array_equal(array, np.asarray(variable))
    four = bw.artifact.read(old, bits=4)
    assert len(np.unique(four["conv/kernel"][..., 0])) <= 15
    with pytest.raises(ConfigError, match="integer of 2 to 16"):
        bw.artifact.read(old, bits=1)
