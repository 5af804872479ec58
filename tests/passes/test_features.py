"""ShrinkDense(inputs=): fewer features of a flat input, and data that have all of them or those that are left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import bitwidth as bw
from bitwidth.errors import BitwidthError, ConfigError, DataError
from tests import reference

ROWS, FEATURES = 320, 10
TOLD = (0, 3, 7)  # the columns that the target depends on
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def table() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, FEATURES)).astype("float32") + 5
    return x, (x[:, TOLD].sum(axis=1) > x[:, TOLD].sum(axis=1).mean()).astype("int32")


@pytest.fixture(scope="module")
def model(table: Any) -> Any:
    """A network with adapted statistics in front, trained."""
    x, y = table
    keras.utils.set_random_seed(0)
    statistics = layers.Normalization(name="statistics")
    statistics.adapt(x)
    stack = [keras.Input((FEATURES,), name="table"), statistics, layers.Dense(16, "relu", name="hidden")]
    found = keras.Sequential([*stack, layers.Dense(2, name="out")])
    found.compile(keras.optimizers.Adam(1e-2), LOSS, metrics=["accuracy"])
    found.fit(x, y, epochs=15, verbose=0)
    return found


def test_the_features_that_matter_stay(model: Any, table: Any) -> None:
    x, y = table
    result = bw.PassManager([bw.ShrinkDense(inputs=4), bw.Finetune(epochs=8)]).run(model, table, seed=0)
    assert result.kept_inputs is not None
    assert set(TOLD) < set(result.kept_inputs)
    assert result.model.input_shape == (None, 4)
    right = result.model.predict(x[:, result.kept_inputs], verbose=0).argmax(-1) == y
    assert right.mean() > 0.9
    assert any("columns of the inputs that stay" in line for line in result.report.passes[0].remarks)


def test_cuts_add_up_and_travel_with_model_file_and_result(model: Any, table: Any, tmp_path: Path) -> None:
    x, _ = table
    passes = [bw.ShrinkDense(inputs=7), bw.Quantize(bits=8), bw.ShrinkDense(keep=0.5, inputs=5)]
    result = bw.PassManager(passes).run(model, table)
    assert result.graph.structure.kept_inputs is not None
    assert result.graph.structure.kept_inputs.widths == (FEATURES, 7, 5)
    assert result.model.get_layer("hidden").kernel.shape == (5, 8)
    result.save(tmp_path / "five.bw")
    assert bw.inspect(tmp_path / "five.bw").kept_inputs == result.kept_inputs
    assert f"kept inputs: {', '.join(map(str, result.kept_inputs or ()))}" in str(bw.inspect(tmp_path / "five.bw"))
    loaded = bw.load(tmp_path / "five.bw")
    assert np.array_equal(loaded(x[:, result.kept_inputs]), result.model(x[:, result.kept_inputs]))
    assert bw.Result.from_bytes(result.to_bytes()).kept_inputs == result.kept_inputs
    for start in (result, loaded, result.model):
        later = bw.PassManager([bw.ShrinkDense(inputs=3)]).run(start, x)
        assert set(later.kept_inputs or ()) < set(result.kept_inputs or ())
        later.save(tmp_path / "three.bw")
        assert bw.inspect(tmp_path / "three.bw").kept_inputs == later.kept_inputs
    assert not bw.diff(tmp_path / "five.bw", tmp_path / "three.bw").architecture


def test_an_update_carries_the_features_that_are_left(model: Any, table: Any, tmp_path: Path) -> None:
    x, _ = table
    first = bw.PassManager([bw.ShrinkDense(inputs=7), bw.Quantize(bits=8)]).run(model, x)
    first.save(tmp_path / "old.bw")
    chains: dict[str, list[bw.Pass]] = {"same": [bw.Quantize(bits=6)], "fewer": [bw.ShrinkDense(inputs=5)]}
    for name, passes in chains.items():
        later = bw.PassManager(passes).run(first, x)
        later.save(tmp_path / f"{name}.bw", base=tmp_path / "old.bw")
        found = bw.load(tmp_path / f"{name}.bw", base=tmp_path / "old.bw")
        kept = bw.open(found).graph.structure.kept_inputs
        assert kept is not None
        assert kept.columns == later.kept_inputs
        assert found.input_shape == later.model.input_shape


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches by their number."""

    def __init__(self, x: Any, y: Any) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return self.x[32 * index : 32 * index + 32], self.y[32 * index : 32 * index + 32]


def _generated(x: Any, y: Any) -> Iterator[Any]:
    return (pair for pair in [(x[:160], y[:160]), (x[160:], y[160:])] * 8)


FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "arrays": lambda x, y: (x, y),
    "tensors": lambda x, y: (tf.constant(x), y),
    "weighted": lambda x, y: (x, y, np.ones(len(y), "float32")),
    "sparse": lambda x, y: (tf.sparse.from_dense(x), y),
    "dataset": lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)).batch(32),
    "pydataset": lambda x, y: Batches(x, y),
    "generator": _generated,
}


@pytest.fixture(scope="module")
def six(model: Any, table: Any) -> Any:
    """The network with six features, and after an epoch on arrays."""
    cut = bw.PassManager([bw.ShrinkDense(inputs=6)]).run(model)
    return cut, bw.PassManager([bw.Finetune(epochs=1)]).run(cut, table, seed=1)


@pytest.mark.parametrize(
    ("form", "width"), [*((form, FEATURES) for form in FORMS), ("arrays", 6), ("dataset", 6), ("pydataset", 6)]
)
def test_data_have_all_columns_or_those_that_are_left(six: Any, table: Any, form: str, width: int) -> None:
    x, y = table
    result, expected = six
    data = FORMS[form](x if width == FEATURES else x[:, result.kept_inputs], y)
    validation = FORMS[form](x, y) if form in ("weighted", "dataset", "pydataset") else None
    tune = bw.Finetune(epochs=1, steps_per_epoch=10 if form == "generator" else None)
    later = bw.PassManager([tune]).run(result, data, validation=validation, seed=1)
    if form not in ("dataset", "pydataset", "generator"):  # these have an order of their own
        for path in expected.graph.values:
            assert np.allclose(later.graph.values[path], expected.graph.values[path], atol=1e-5), path
    assert later.kept_inputs == result.kept_inputs


def test_data_of_another_width_are_refused_before_work_starts(model: Any, table: Any) -> None:
    x, y = table
    result = bw.PassManager([bw.ShrinkDense(inputs=6)]).run(model)
    for width in (5, 7, 11):
        wrong = np.zeros((ROWS, width), "float32")
        with pytest.raises(DataError, match=f"{width} columns, and the model takes 6, chosen of 10"):
            bw.PassManager([bw.Finetune(epochs=1)]).run(result, (wrong, y))
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    spread = tf.distribute.MirroredStrategy(["CPU:0"]).experimental_distribute_dataset(batches)
    with pytest.raises(DataError, match="choose its columns before"):
        bw.PassManager([bw.Finetune(epochs=1)]).run(result, spread)


def several() -> Any:
    one, two = keras.Input((4,), name="one"), keras.Input((5,), name="two")
    return keras.Model([one, two], layers.Dense(2)(layers.Concatenate()([one, two])))


def image() -> Any:
    return keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(3)])


def scaled() -> Any:
    given = keras.Input((6,))
    return keras.Model(given, layers.Dense(2)(given * np.arange(1, 7, dtype="float32")))


@pytest.mark.parametrize(
    ("build", "inputs", "words"),
    [
        (several, 3, "for one flat input, and the model has several: inputs, inputs_1"),
        (image, 3, "whose features dense layers read; the model has none"),
        (scaled, 3, "the model has none: a constant of shape"),
        (lambda: keras.Sequential([keras.Input((4,)), layers.Dense(2)]), 5, "inputs=5, and .* has 4 features"),
    ],
)
def test_models_without_such_features_are_refused_by_plan_and_run(build: Any, inputs: int, words: str) -> None:
    manager, model = bw.PassManager([bw.ShrinkDense(inputs=inputs)]), build()
    for call in (manager.plan, manager.run):
        with pytest.raises(ConfigError, match=words):
            call(model)


@pytest.mark.parametrize("inputs", [0, -1, 1.5, True, "3"])
def test_a_number_of_features_is_a_positive_integer(inputs: Any) -> None:
    with pytest.raises(ConfigError, match="inputs"):
        bw.ShrinkDense(inputs=inputs)


def test_a_plan_shows_the_features_of_each_cut(model: Any) -> None:
    plan = bw.PassManager([bw.ShrinkDense(inputs=7), bw.ShrinkDense(inputs=3)]).plan(model)
    shown = [line for record in plan.passes for line in record.remarks if line.startswith("columns of the inputs")]
    assert [line.count(",") for line in shown] == [6, 2]


def test_features_that_several_layers_read_go_together() -> None:
    given = keras.Input((8,))
    left, right = layers.Dense(6, "relu", name="left")(given), layers.Dense(6, "relu", name="right")(given[:, :3])
    model = keras.Model(given, layers.Dense(2)(layers.Concatenate()([left, right])))
    result = bw.PassManager([bw.ShrinkDense(inputs=5)]).run(model)
    kept = result.kept_inputs or ()
    assert len(kept) == 5
    x = np.random.default_rng(0).standard_normal((4, 8)).astype("float32")
    assert result.model.get_layer("right").kernel.shape[0] == sum(column < 3 for column in kept)
    gone = [column for column in range(8) if column not in kept]
    x[:, gone] = 0
    assert np.allclose(result.model(x[:, kept]), model(x), atol=1e-5)


def test_features_that_go_in_pairs_are_not_torn_apart() -> None:
    given = keras.Input((8,))
    product = layers.Multiply()([given[:, :4], given[:, 4:]])
    model = keras.Model(given, layers.Dense(2)(product))
    result = bw.PassManager([bw.ShrinkDense(inputs=5)]).run(model)
    assert len(result.kept_inputs or ()) == 6
    assert "6 features stay, not 5: some go together" in result.report.passes[0].remarks


def test_given_statistics_are_cut_with_the_features() -> None:
    mean, variance = np.arange(6.0).tolist(), [2.0] * 6
    x = np.random.default_rng(0).standard_normal((4, 6)).astype("float32")
    for given in ({"mean": [1.5] * 6, "variance": variance}, {"mean": 0.5, "variance": 2.0}):
        stack = [keras.Input((6,)), layers.Normalization(**given), layers.Dense(4, "relu"), layers.Dense(2)]
        model = keras.Sequential(stack)
        result = bw.PassManager([bw.ShrinkDense(inputs=4)]).run(model)
        kept = list(result.kept_inputs or ())
        again = keras.Sequential.from_config(result.model.get_config())
        again.set_weights(result.model.get_weights())
        assert np.allclose(again(x[:, kept]), result.model(x[:, kept]), atol=1e-6)
    stack = [keras.Input((6,)), layers.Normalization(mean=mean, variance=variance), layers.Dense(2)]
    with pytest.raises(ConfigError, match="a constant of shape"):
        bw.PassManager([bw.ShrinkDense(inputs=4)]).run(keras.Sequential(stack))


def test_a_file_that_names_other_features_than_the_model_takes_is_refused(model: Any, tmp_path: Path) -> None:
    result = bw.PassManager([bw.ShrinkDense(inputs=6)]).run(model)
    result.save(tmp_path / "six.bw")
    with pytest.raises(BitwidthError):
        bw.load(tmp_path / "six.bw", model=model)
    assert bw.PassManager([bw.Quantize(bits=8)]).run(model).kept_inputs is None


def test_another_backend_takes_all_columns_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 6)).astype("float32"), rng.standard_normal((64, 2)).astype("float32")
    tune = bw.Finetune(epochs=1, loss="mse")
    result = bw.PassManager([bw.ShrinkDense(inputs=4), tune]).run(reference.Network([6, 8, 2]), (x, y))
    assert result.model.widths == [4, 8, 2]
    later = bw.PassManager([tune, bw.ShrinkDense(inputs=2)]).run(result, (x, y))
    assert set(later.kept_inputs or ()) < set(result.kept_inputs or ())
