"""Training under views: what holds, what stays the user's, and what is refused."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import bitwidth as bw
from bitwidth.backends.tensorflow.session import KerasSession
from bitwidth.data import digits
from bitwidth.encodings import IntegerLevels, Quantized
from bitwidth.probes import MomentsProbe, RangeProbe, StatisticsProbe
from tests import zoo

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X, Y = (part[:256] for part in digits().train)


def network(**settings: Any) -> Any:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu", name="hidden", **settings),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    return zoo.filled(model)


def tune(**fields: Any) -> bw.Finetune:
    return bw.Finetune(**{"epochs": 1, "loss": LOSS, "batch_size": 64, "learning_rate": 1e-2, **fields})


def test_training_lowers_the_loss_under_constraints() -> None:
    passes = [bw.Prune(0.5), bw.Quantize(3), tune(epochs=20)]
    report = bw.PassManager(passes).run(network(), (X, Y), (X, Y)).report
    assert report.passes[2].metrics["loss"] < 0.5 * report.passes[1].metrics["loss"]


@pytest.mark.parametrize("jit", [True, False])
def test_views_are_what_the_model_computes_with(jit: bool) -> None:
    seen: list[float] = []

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            kernel = np.asarray(self.model.get_layer("hidden").kernel.numpy())
            seen.append(len(np.unique(kernel[:, 0])))

    bw.PassManager([bw.Quantize(2), tune(callbacks=[Watch()], jit_compile=jit)]).run(network(), (X, Y))
    assert seen
    assert max(seen) <= 3, "a 2-bit channel holds three values at most"


def test_mixed_float16_trains_under_views() -> None:
    model = zoo.MODELS["mixed_float16"]()
    inputs = zoo.batch("mixed_float16", 32)
    targets = np.zeros(model(inputs).shape, np.float32)
    passes = [bw.Prune(0.5), bw.Quantize(4), tune(loss="mse", epochs=3, batch_size=8)]
    result = bw.PassManager(passes).run(model, (inputs, targets), (inputs, targets))
    assert result.report.passes[2].metrics["loss"] < result.report.passes[1].metrics["loss"]
    assert result.model.dtype_policy.name == model.dtype_policy.name


def test_frozen_layers_stay_frozen() -> None:
    model = network()
    model.get_layer("hidden").trainable = False
    result = bw.PassManager([bw.Quantize(8), tune()]).run(model, (X, Y))
    assert not result.model.get_layer("hidden").trainable_variables
    quantized = bw.PassManager([bw.Quantize(8)]).run(model)
    np.testing.assert_array_equal(result.graph.values["hidden/kernel"], quantized.graph.values["hidden/kernel"])
    assert result.report.passes[1].skipped["hidden/kernel"] == "not trainable"
    assert model.get_layer("hidden").trainable is False


def test_batch_statistics_move_on_their_grid() -> None:
    model = zoo.MODELS["convnet_bn"]()
    inputs = zoo.batch("convnet_bn", 16) + 3
    targets = np.zeros(model(inputs).shape, np.float32)
    result = bw.PassManager([bw.Quantize(8), tune(loss="mse", batch_size=8)]).run(model, (inputs, targets))
    moved = [r for r in result.report.passes[1].touched if r.path.endswith("moving_mean")]
    assert moved
    assert all(record.after in ("float16", "bfloat16") for record in moved)


def test_the_compiled_loss_and_kind_of_optimizer_are_used_as_fresh_objects() -> None:
    model = network()
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, LOSS, metrics=["accuracy"])
    model.fit(X, Y, verbose=0)
    steps, slots = int(optimizer.iterations), [v.numpy().copy() for v in optimizer.variables]
    result = bw.PassManager([bw.Quantize(8), bw.Finetune(epochs=1)]).run(model, (X, Y), (X, Y))
    assert set(result.report.passes[1].metrics) == {"loss", "accuracy"}
    assert int(optimizer.iterations) == steps
    for before, after in zip(slots, optimizer.variables, strict=True):
        np.testing.assert_array_equal(before, after.numpy())
    assert isinstance(result.model.optimizer, keras.optimizers.SGD)
    assert result.model.optimizer is not optimizer
    assert result.model.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"] > 0.2


def test_class_weight_callbacks_and_metrics_reach_fit() -> None:
    epochs: list[int] = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))
    item = tune(epochs=2, class_weight=dict.fromkeys(range(10), 0.0), callbacks=[callback], metrics=["accuracy"])
    report = bw.PassManager([item]).run(network(), (X, Y), (X, Y)).report
    assert epochs == [0, 1]
    assert report.passes[0].history["loss"] == [0.0, 0.0]
    assert "val_accuracy" in report.passes[0].history


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_global_seed_alone() -> None:
    manager = bw.PassManager([bw.Prune(0.5, criterion="fisher"), tune(), bw.Quantize(4), tune()])
    model = network()
    keras.utils.set_random_seed(3)
    expected = keras.random.normal((3,)).numpy(), random.random(), np.random.rand()  # noqa: NPY002
    keras.utils.set_random_seed(3)
    first = manager.run(model, (X, Y), seed=1)
    assert first.size
    np.testing.assert_array_equal(keras.random.normal((3,)).numpy(), expected[0])
    assert (random.random(), np.random.rand()) == expected[1:]  # noqa: NPY002
    second, other = manager.run(model, (X, Y), seed=1), manager.run(model, (X, Y), seed=2)
    for path in first.graph.values:
        np.testing.assert_array_equal(first.graph.values[path], second.graph.values[path])
    assert any((first.graph.values[path] != other.graph.values[path]).any() for path in first.graph.values)


def test_masked_weights_may_come_back_in_a_ramp_and_never_after() -> None:
    masks: list[Any] = []

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            masks.append(self.model.get_layer("hidden").kernel.numpy() != 0)

    prune = bw.Prune(0.8, criterion=bw.Fisher(samples=64))  # what matters changes while the model trains
    ramp = bw.Ramp(prune, during=tune(epochs=6, learning_rate=0.03, callbacks=[Watch()]))
    result = bw.PassManager([ramp, tune()]).run(network(), (X, Y))
    sparsity = [1 - mask.mean() for mask in masks]
    assert sparsity[0] < 0.2
    assert sparsity[-1] > 0.6
    assert result.graph["hidden/kernel"].encoding.mask is not None
    assert not np.count_nonzero(result.graph.values["hidden/kernel"][~result.graph["hidden/kernel"].encoding.mask])
    early, late = masks[len(masks) // 3], masks[-1]
    assert (late & ~early).any(), "no weight came back while the ramp ran"


def test_a_ramp_keeps_the_promises_before_it() -> None:
    first = bw.PassManager([bw.Prune(0.3)]).run(network())
    before = first.graph["hidden/kernel"].encoding.mask
    result = bw.PassManager([bw.Ramp(bw.Prune(0.7), during=tune(epochs=2))]).run(first, (X, Y))
    after = result.graph["hidden/kernel"].encoding.mask
    assert before is not None
    assert after is not None
    assert not (after & ~before).any()


def test_gradual_narrowing() -> None:
    result = bw.PassManager([bw.Ramp(bw.Quantize(2), during=tune(epochs=2))]).run(network(), (X, Y))
    assert len(np.unique(result.graph.values["hidden/kernel"][:, 0])) <= 3


def test_where_trains_one_layer_only() -> None:
    model = network()
    result = bw.PassManager([bw.Where(tune(), "logits")]).run(model, (X, Y))
    np.testing.assert_array_equal(result.graph.values["hidden/kernel"], model.get_layer("hidden").kernel.numpy())
    assert (result.graph.values["logits/kernel"] != model.get_layer("logits").kernel.numpy()).any()


def test_training_goes_on_from_its_masters() -> None:
    """A learning rate too small to move a code in one run moves it in several: the masters are kept between them."""
    small = tune(learning_rate=0.05, optimizer="sgd", batch_size=256)
    once = bw.PassManager([bw.Quantize(4), small]).run(network(), (X, Y))
    often = bw.PassManager([bw.Quantize(4), bw.Repeat(small, times=10)]).run(network(), (X, Y))
    start = bw.PassManager([bw.Quantize(4)]).run(network()).graph.values["hidden/kernel"]
    moved = [int((r.graph.values["hidden/kernel"] != start).sum()) for r in (once, often)]
    assert moved[1] > 3 * moved[0]


class Sly(keras.layers.Layer):  # type: ignore[misc]
    """Keeps the storage of its kernel, which no view can stand in for."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 10), initializer="glorot_uniform")
        self.stored = [self.kernel.value]

    def call(self, inputs: Any) -> Any:
        return tf.matmul(inputs, self.stored[0])


def test_a_variable_read_past_its_view_is_held_and_reported() -> None:
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), Sly(name="sly")])
    result = bw.PassManager([bw.Quantize(4), tune()]).run(model, (X, Y))
    assert "past its view" in result.report.passes[1].skipped["sly/kernel"]
    quantized = bw.PassManager([bw.Quantize(4)]).run(model)
    np.testing.assert_array_equal(result.graph.values["sly/kernel"], quantized.graph.values["sly/kernel"])


def test_results_and_loaded_models_keep_their_promises(tmp_path: Any) -> None:
    first = bw.PassManager([bw.Prune(0.6), bw.Quantize(4)]).run(network())
    first.save(tmp_path / "first.bw")
    for start in (first, first.model, bw.load(tmp_path / "first.bw")):
        second = bw.PassManager([tune(epochs=2)]).run(start, (X, Y))
        mask = first.graph["hidden/kernel"].encoding.mask
        assert mask is not None
        np.testing.assert_array_equal(second.graph["hidden/kernel"].encoding.mask, mask)
        assert second.graph["hidden/kernel"].encoding.bits == 4
        assert not np.count_nonzero(second.model.get_layer("hidden").kernel.numpy()[~mask])


def test_a_loaded_model_changed_by_hand_is_requantized_and_says_so(tmp_path: Any) -> None:
    bw.PassManager([bw.Prune(0.6)]).run(network()).save(tmp_path / "first.bw")
    loaded = bw.load(tmp_path / "first.bw")
    loaded.get_layer("hidden").kernel.assign(loaded.get_layer("hidden").kernel + 0.1)
    graph = bw.read(loaded)
    assert any("hidden/kernel" in note and "re-quantized" in note for note in graph.structure.notes)
    mask = graph["hidden/kernel"].encoding.mask
    assert mask is not None
    assert not np.count_nonzero(graph.values["hidden/kernel"][~mask])


def test_snapshots_keep_what_they_saw() -> None:
    session = KerasSession(network())
    opened = session.graph
    expected = session.model.get_layer("hidden").bias.numpy().copy()
    session.write(opened.update({"hidden/bias": expected + 1}))
    np.testing.assert_array_equal(opened.values["hidden/bias"], expected)


@pytest.mark.parametrize(
    ("passes", "error", "message"),
    [
        ([bw.Finetune(1)], bw.errors.ConfigError, "no loss"),
        ([tune(optimizer="nonsense")], bw.errors.ConfigError, "nonsense"),
        ([bw.Quantize(4, where="hiden")], bw.errors.SelectionError, "did you mean 'hidden"),
        ([bw.Where(bw.Prune(0.5), "nowhere")], bw.errors.SelectionError, "nowhere"),
        ([bw.Prune(0.5, where="hidden/bias")], bw.errors.ConfigError, "only kernels and embeddings"),
    ],
)
def test_errors_come_before_work_starts(passes: list[Any], error: type[Exception], message: str) -> None:
    started: list[int] = []
    watch = keras.callbacks.LambdaCallback(on_train_begin=lambda logs=None: started.append(1))
    with pytest.raises(error, match=message):
        bw.PassManager([tune(callbacks=[watch]), *passes]).run(network(), (X, Y))
    assert not started


def test_inputs_alone_cannot_train() -> None:
    with pytest.raises(bw.errors.DataError, match="no targets"):
        bw.PassManager([tune()]).run(network(), X)
    with pytest.raises(bw.errors.ConfigError, match="needs data"):
        bw.PassManager([tune()]).run(network())


def test_training_that_diverges_is_an_error_and_leaves_the_model_alone() -> None:
    model = network()
    before = model.get_layer("hidden").kernel.numpy().copy()
    with pytest.raises(bw.errors.ContractError, match="not finite"):
        bw.PassManager([tune(optimizer="sgd", learning_rate=1e38, epochs=3)]).run(model, (X, Y))
    np.testing.assert_array_equal(model.get_layer("hidden").kernel.numpy(), before)


def test_recipes_of_keras_objects_do_not_depend_on_what_was_built_before() -> None:
    first, second = (
        bw.PassManager([tune(optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.1))]).to_recipe() for _ in range(2)
    )
    assert first == second
    again = bw.PassManager.from_recipe(first)
    result = again.run(network(), (X, Y))
    assert result.report.passes[0].touched


def test_training_alone_is_seen_by_the_report_and_by_old_snapshots() -> None:
    session = KerasSession(network())
    opened = session.graph
    trained = session.train(opened, bw.backend.Training(bw.backend.Objective(LOSS), (X, Y)))
    assert (trained.graph.values["hidden/kernel"] != opened.values["hidden/kernel"]).any()
    report = bw.PassManager([tune()]).run(network(), (X, Y)).report
    assert {record.path for record in report.passes[0].touched} == set(opened.parameters)


@pytest.mark.parametrize(
    ("data", "fields", "message"),
    [
        ((X[:, :5], Y), {}, "data: the model cannot be called on it"),
        ((X, np.zeros((256, 7))), {}, "data: loss or metrics cannot be computed"),
        ((X, Y), {"loss": "nonsense"}, "nonsense"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat(), {}, "steps_per_epoch"),
    ],
)
def test_data_that_does_not_fit_is_found_before_work_starts(data: Any, fields: Any, message: str) -> None:
    with pytest.raises(bw.errors.BitwidthError, match=message):
        bw.PassManager([tune(**fields)]).run(network(), data)


def test_validation_is_checked_before_work_starts() -> None:
    with pytest.raises(bw.errors.DataError, match="validation: loss or metrics"):
        bw.PassManager([tune(metrics=["nonsense"])]).run(network(), (X, Y), (X, Y))
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat()
    with pytest.raises(bw.errors.DataError, match="no end"):
        bw.PassManager([tune()]).run(network(), (X, Y), endless)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras's own word on any generator's end
def test_endless_data_with_steps_and_a_generator() -> None:
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat()
    ramp = bw.Ramp(bw.Prune(0.5), during=tune(steps_per_epoch=4))
    masks = [p.encoding.mask for p in bw.PassManager([ramp]).run(network(), endless).graph]
    assert any(mask is not None and not mask.all() for mask in masks)
    seen: list[int] = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    batches = ((X[start : start + 64], Y[start : start + 64]) for start in range(0, 256, 64))
    bw.PassManager([tune(callbacks=[count])]).run(network(), batches)
    assert seen == [0, 1, 2, 3], "looking at a generator's first batch must not lose it"


def test_a_model_with_its_own_training_step_needs_no_loss() -> None:
    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(10)

        def call(self, inputs: Any) -> Any:
            return self.dense(tf.reshape(inputs, (-1, 64)))

        def train_step(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self(data[0])))
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"own": loss}

    model = Own()
    model(X[:1])
    tune = bw.Finetune(epochs=2, batch_size=64, learning_rate=1e-2)  # the default falls less than batches differ
    report = bw.PassManager([bw.Quantize(4), tune]).run(model, (X, Y)).report
    assert report.passes[1].history["own"][1] < report.passes[1].history["own"][0]


def test_a_tf_function_on_the_model_is_copied_with_it() -> None:
    model = network()
    model.call = tf.function(model.call)
    before = model(X[:4]).numpy()
    result = bw.PassManager([bw.Prune(0.95)]).run(model)
    assert np.abs(result.model(X[:4]).numpy() - before).max() > 0.1
    np.testing.assert_array_equal(model(X[:4]).numpy(), before)


def test_batch_statistics_follow_the_data_in_small_steps() -> None:
    """Held in 16 bits, steps below half a unit would be lost if each step read them rounded."""
    layer = keras.layers.BatchNormalization(momentum=0.99, name="norm")
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(2, name="out")])
    layer.moving_mean.assign(np.ones(4, np.float32))
    inputs = np.random.default_rng(0).normal(1.03, 0.1, (64, 4)).astype(np.float32)
    targets = np.zeros((64, 2), np.float32)
    item = bw.Finetune(epochs=40, loss="mse", batch_size=16, learning_rate=1e-4)
    result = bw.PassManager([bw.Quantize(8), item]).run(model, (inputs, targets))
    assert result.graph["norm/moving_mean"].encoding.bits == 16
    np.testing.assert_allclose(result.graph.values["norm/moving_mean"], inputs.mean(0), atol=0.01)
    assert (result.graph.values["norm/moving_mean"] != 1).all()


def test_training_starts_from_the_float_weights() -> None:
    """One small step moves codes near a border at once; from the centres of the cells it would move none."""
    step = tune(optimizer="sgd", learning_rate=1e-3, batch_size=256)
    report = bw.PassManager([bw.Quantize(4), step]).run(network(), (X, Y)).report
    assert "hidden/kernel" in {record.path for record in report.passes[1].touched}


class Counter(keras.layers.Layer):  # type: ignore[misc]
    """Counts its calls."""

    def build(self, shape: Any) -> None:
        self.count = self.add_weight(name="count", shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, inputs: Any) -> Any:
        self.count.assign_add(1)
        return inputs


def test_measuring_disturbs_nothing() -> None:
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), Counter(), keras.layers.Dense(10)])
    given = int(model.layers[1].count)
    result = bw.PassManager([bw.Prune(0.5, criterion="fisher"), bw.Quantize(4)]).run(
        model, X, (X, Y), loss=LOSS, metrics=["accuracy"]
    )
    assert set(result.report.passes[1].metrics) == {"loss", "accuracy"}
    assert int(result.model.layers[1].count) == given == int(model.layers[1].count)


class Weighted(keras.losses.Loss):  # type: ignore[misc]
    """A loss whose argument is not in its configuration."""

    def __init__(self, gamma: float = 1.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.gamma * LOSS(y_true, y_pred)


class Constant(keras.metrics.Metric):  # type: ignore[misc]
    """A metric whose argument is not in its configuration."""

    def __init__(self, value: float = 1.0, name: str = "constant") -> None:
        super().__init__(name=name)
        self.given = value

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Nothing to remember."""

    def result(self) -> Any:
        return tf.constant(float(self.given))


def test_losses_metrics_and_optimizers_keep_what_no_configuration_tells() -> None:
    model = network()
    optimizer = keras.optimizers.AdamW(1e-6, weight_decay=1e4)
    optimizer.exclude_from_weight_decay(var_list=[model.get_layer("hidden").kernel])
    metric = Constant(7)
    model.compile(optimizer, Weighted(gamma=100.0), metrics=[metric])
    plain = network()
    plain.compile("sgd", LOSS)
    result = bw.PassManager([bw.Finetune(epochs=1, batch_size=64)]).run(model, (X, Y), (X, Y))
    expected = 100 * plain.evaluate(X, Y, verbose=0)
    assert result.report.initial["loss"] == pytest.approx(expected, rel=1e-3)
    assert result.report.initial["constant"] == 7
    before, after = bw.read(model).values, result.graph.values
    moved = {path: np.abs(after[path] - before[path]).max() for path in after}
    assert moved["hidden/kernel"] < 1e-3 < moved["logits/kernel"]


class OwnCompile(keras.Sequential):  # type: ignore[misc]
    """Compiles in its own way."""

    def compile(self, optimizer: Any, my_loss: Any) -> None:
        super().compile(optimizer=optimizer, loss=my_loss)


def test_a_class_with_its_own_compile() -> None:
    model = OwnCompile([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile("adam", LOSS)
    result = bw.PassManager([bw.Quantize(4), bw.Finetune(epochs=1)]).run(model, (X, Y))
    assert result.model.compiled


def test_a_ramp_over_a_chain_with_validation() -> None:
    chain = bw.PassManager([bw.Prune(0.5), bw.Quantize(4)])
    report = bw.PassManager([bw.Ramp(chain, during=tune(epochs=2))]).run(network(), (X, Y), (X, Y)).report
    assert report.passes[0].metrics["loss"] > 0


def test_a_ramp_that_would_widen_is_refused_before_it_trains() -> None:
    started: list[int] = []
    watch = keras.callbacks.LambdaCallback(on_train_begin=lambda logs=None: started.append(1))
    four = bw.PassManager([bw.Quantize(4)]).run(network())
    with pytest.raises(bw.errors.PromiseError, match="5-bit"):
        bw.PassManager([bw.Ramp(bw.Quantize(5), during=tune(callbacks=[watch]))]).run(four, (X, Y))
    assert not started
    narrower = bw.PassManager([bw.Ramp(bw.Quantize(2), during=tune(callbacks=[watch]))]).run(four, (X, Y))
    assert narrower.graph["hidden/kernel"].encoding.bits == 2
    assert started


def test_where_leaves_batch_statistics_outside_alone() -> None:
    model = zoo.MODELS["convnet_bn"]()
    inputs = zoo.batch("convnet_bn", 16) + 3
    targets = np.zeros(model(inputs).shape, np.float32)
    last = [p.layer for p in bw.read(model) if p.role == "kernel"][-1]
    item = bw.Where(tune(loss="mse", batch_size=8), last)
    result = bw.PassManager([item]).run(model, (inputs, targets))
    given = bw.read(model)
    for parameter in given:
        if not parameter.path.startswith(last):
            np.testing.assert_array_equal(result.graph.values[parameter.path], given.values[parameter.path])
    assert set(result.report.passes[0].skipped.values()) == {"not selected by `where`"}


def test_a_model_made_for_a_batch_size_is_measured_in_it() -> None:
    model = keras.Sequential([keras.Input(batch_shape=(4, 5, 3)), keras.layers.LSTM(4, stateful=True)])
    data = np.ones((8, 5, 3), np.float32), np.ones((8, 4), np.float32)
    item = bw.Finetune(epochs=1, loss="mse", batch_size=4)
    report = bw.PassManager([bw.Quantize(8), item]).run(zoo.filled(model), data, data).report
    assert "val_loss" in report.passes[1].history
    assert set(report.initial) == {"loss"}


def test_layers_are_frozen_as_the_graph_says() -> None:
    model = zoo.MODELS["convnet_bn"]()
    session = KerasSession(model)
    order = [variable.path for variable in session.model.variables]
    frozen = session.graph.freeze(["bn1"])
    session.write(frozen)
    layer = session.model.get_layer("bn1")
    assert not layer.trainable_variables
    assert session.model.get_layer("conv1").trainable_variables
    x = zoo.batch("convnet_bn", 4)
    np.testing.assert_array_equal(np.asarray(session.model(x, training=True)), np.asarray(model(x, training=False)))
    session.write(session.graph)
    assert len(layer.trainable_variables) == 2
    assert [variable.path for variable in session.model.variables] == order
    assert model.get_layer("bn1").trainable


def test_batch_statistics_leave_the_model_as_it_was() -> None:
    session = KerasSession(zoo.MODELS["convnet_bn"]())
    before = [np.array(variable.numpy()) for variable in session.model.variables]
    found = session.probe(session.graph, StatisticsProbe(20, 8), zoo.batch("convnet_bn", 32))
    assert set(found) == {"bn1/moving_mean", "bn1/moving_variance"}
    assert "call" not in vars(session.model.get_layer("bn1"))
    for variable, array in zip(session.model.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable.numpy()), array)
    assert not session.probe(session.graph.freeze(["bn1"]), StatisticsProbe(8, 8), zoo.batch("convnet_bn", 8))


def test_a_result_that_was_trained_by_its_user_is_put_back_where_no_pass_touches_it() -> None:
    first = bw.PassManager([bw.Quantize(4)]).run(network())
    first.model.set_weights([value * 1.37 for value in first.model.get_weights()])
    second = bw.PassManager([]).run(first.model)
    assert any("values were changed" in note for note in second.report.notes)
    for parameter in second.graph:
        np.testing.assert_array_equal(
            second.model.variables[parameter.index].numpy(), second.graph.values[parameter.path]
        )


class Diverges(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x / 0.0


@pytest.mark.parametrize(
    "fields", [{"importance": "inputs"}, {"importance": "fisher"}, {"rounding": "entropy"}], ids=lambda f: str(f)
)
def test_values_that_are_not_finite_are_named(fields: Any) -> None:
    model = keras.Sequential([keras.Input((4,)), Diverges(), keras.layers.Dense(3, name="last")])
    with pytest.raises(bw.errors.ModelError, match=r"last/kernel: .* not finite"):
        bw.PassManager([bw.Quantize(4, **fields)]).run(model, np.ones((8, 4), np.float32))


def test_activations_that_are_not_finite_stay_as_they_are() -> None:
    model = keras.Sequential([keras.Input((4,)), Diverges(), keras.layers.Dense(3, name="last")])
    result = bw.PassManager([bw.Quantize(4, activations=8)]).run(model, np.eye(4, dtype=np.float32))
    assert not result.graph.activations
    assert "not held on a grid, it takes values that are not finite" in result.report.passes[0].remarks[0]


class MakesOne(keras.layers.Layer):  # type: ignore[misc]
    """Its name is not in its configuration, and its call makes a layer that nobody tracks."""

    def __init__(self, units: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.units = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel", initializer="glorot_uniform")

    def call(self, x: Any) -> Any:
        return keras.layers.Activation("relu")(x) @ self.kernel

    def get_config(self) -> dict[str, Any]:
        return {"units": self.units}


def made() -> Any:
    return keras.Sequential([keras.Input((4,)), MakesOne(5), keras.layers.Dense(3)])


@pytest.fixture
def on_grids() -> Any:
    return bw.PassManager([bw.Quantize(8, activations=3)]).run(made(), SAMPLES)


SAMPLES = np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)


def test_layers_that_are_made_in_a_call_have_no_grids(on_grids: Any) -> None:
    assert "inputs on 3-bit grids (2 tensors): " in on_grids.report.passes[0].remarks[0]


@pytest.mark.parametrize("architecture", [True, False])
def test_grids_of_activations_find_layers_of_other_names(on_grids: Any, tmp_path: Any, architecture: bool) -> None:
    on_grids.save(tmp_path / "small.bw", architecture=architecture)
    given = {"custom_objects": {"MakesOne": MakesOne}} if architecture else {"model": made()}
    loaded = bw.load(tmp_path / "small.bw", **given)
    assert str(bw.inspect(tmp_path / "small.bw")).count(": 3-bit") == 2
    assert [layer.name for layer in loaded.layers] != [layer.name for layer in on_grids.model.layers]
    np.testing.assert_array_equal(loaded(SAMPLES), on_grids.model(SAMPLES))


def test_grids_of_activations_stay_inside_another_model(on_grids: Any) -> None:
    inputs = keras.Input((4,))
    result = bw.PassManager([]).run(keras.Model(inputs, on_grids.model(inputs)))
    assert len(result.graph.activations) == 2
    np.testing.assert_array_equal(result.model(SAMPLES), on_grids.model(SAMPLES))


def test_validation_that_can_be_read_once_is_refused_before_work_starts() -> None:
    with pytest.raises(bw.errors.DataError, match="validation is read after each pass"):
        bw.PassManager([bw.Quantize(4)]).run(network(), validation=((X[:8], Y[:8]) for _ in range(3)))


def test_moments_and_ranges_are_those_behind_grids_of_activations() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, name="a"), keras.layers.Dense(3, name="b")])
    session = KerasSession(model)
    graph, tensor = session.graph, session.graph.layers["a"].calls[0].inputs[0]
    between = graph.layers["b"].calls[0].inputs[0]
    grid = Quantized(IntegerLevels(-1, 1), np.asarray(0.5, np.float32), ())
    held = graph.update(activations={tensor: grid})
    taken = grid.project(SAMPLES) @ graph.values["a/kernel"]
    (moments,) = session.probe(held, MomentsProbe(32, ("b/kernel",)), SAMPLES)["b/kernel"]
    np.testing.assert_allclose(moments.mean[0], taken.mean(axis=0), rtol=1e-4, atol=1e-6)
    assert session.probe(held, RangeProbe(32, (between,)), SAMPLES)[between].high == pytest.approx(
        taken.max(), rel=1e-5
    )
    (plain,) = session.probe(graph, MomentsProbe(32, ("b/kernel",)), SAMPLES)["b/kernel"]
    np.testing.assert_allclose(plain.mean[0], (SAMPLES @ graph.values["a/kernel"]).mean(axis=0), rtol=1e-4, atol=1e-6)
