"""Scales and levels that train: gradients against numpy, what is tracked and when, and what is left afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import bitwidth as bw
from bitwidth.backends.tensorflow.constraints.lowering import LearnedVariable, Lowering, lower, straight_through
from bitwidth.backends.tensorflow.constraints.views import attached, parameters_of
from bitwidth.backends.tensorflow.session import KerasSession
from bitwidth.data import digits
from bitwidth.encodings import (
    Encoding,
    Escaped,
    IntegerLevels,
    LevelRows,
    Masked,
    Quantized,
    TableLevels,
    least_format,
    prefix,
    spread,
    uniform_levels,
)
from bitwidth.fitting import fit, fit_scale
from tests import zoo

RNG = np.random.default_rng(5)
VALUES = RNG.standard_normal((6, 10)).astype(np.float32)
UPSTREAM = RNG.standard_normal((6, 10)).astype(np.float32)
KEEP = RNG.random((6, 10)) > 0.4
PLANE = np.abs(VALUES) > 1.5
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X, Y = (part[:256] for part in digits().train)


def narrow(bits: int, block: tuple[int, ...]) -> Quantized:
    """A grid that clips many values."""
    wide = fit_scale(VALUES, uniform_levels(bits), block)
    return Quantized(wide.levels, wide.scale * np.float32(0.5), block)


ONES = np.ones((1, 10), np.float32)
ROWS = Quantized(
    LevelRows((TableLevels((-1.0, 0.5, 2.0)), TableLevels((-3.0, 1.0)))),
    ONES * np.float32(0.6),
    (6, 1),
    row=np.arange(10, dtype=np.int32).reshape(1, 10) % 2,
)
PREFIX = prefix(narrow(8, (6, 1)), 3)
assert isinstance(PREFIX, Quantized)
GRIDS: dict[str, Quantized] = {
    "per channel": narrow(3, (6, 1)),
    "per group": narrow(3, (2, 1)),
    "ragged groups": narrow(3, (4, 1)),
    "groups of both axes": narrow(3, (4, 3)),
    "per tensor": narrow(3, (6, 10)),
    "a scale of any shape": Quantized(IntegerLevels(-3, 3), np.array(0.4, np.float32), ()),
    "one bit": narrow(1, (6, 1)),
    "8 bits": narrow(8, (6, 1)),
    "prefix": PREFIX,
    "zero point": Quantized(IntegerLevels(0, 15), ONES * np.float32(0.1), (6, 1), np.full((1, 10), 6, np.int32)),
    "bias": Quantized(IntegerLevels(-3, 3), ONES * np.float32(0.3), (6, 1), bias=ONES * np.float32(0.2)),
    "zero scale": Quantized(IntegerLevels(-3, 3), ONES * np.float32(0), (6, 1)),
    "table": Quantized(TableLevels((-2.0, -0.5, 0.0, 1.0)), ONES * np.float32(0.6), (6, 1)),
    "rows": ROWS,
}


def ends(grid: Quantized) -> tuple[Any, Any]:
    """The outermost levels of each block, in units of the scale."""
    if isinstance(grid.levels, LevelRows):
        tables = [table.array for table in grid.levels.rows]
        return tuple(np.array([table[place] for table in tables])[grid.row] for place in (0, -1))  # type: ignore[return-value]
    if isinstance(grid.levels, TableLevels):
        return grid.levels.array[0], grid.levels.array[-1]
    if isinstance(grid.levels, IntegerLevels):
        zero = 0 if grid.zero_point is None else grid.zero_point
        return grid.levels.bounds[0] - zero, grid.levels.bounds[1] - zero
    return grid.levels.integer_bounds


def expected(grid: Quantized, upstream: Any) -> Any:
    """Esser et al. 2020, equation 3, times the scale: the gradient of r in `scale * exp(r)`."""

    def full(side: Any) -> Any:
        return np.broadcast_to(spread(np.asarray(side), grid.block, VALUES.shape), VALUES.shape)

    bias = 0.0 if grid.bias is None else full(grid.bias)
    low, high = (np.broadcast_to(end, grid.scale.shape) for end in ends(grid))
    scale, x = full(grid.scale).astype(np.float64), VALUES.astype(np.float64) - bias
    divisor = np.where(scale > 0, scale, 1)
    level, normal = (grid.project(VALUES).astype(np.float64) - bias) / divisor, x / divisor
    inside = (x >= full(low) * scale) & (x <= full(high) * scale)
    each = upstream * scale * np.where(inside, level - normal, level)
    block = grid.block or VALUES.shape
    total = np.array([[rows.sum() for rows in cut(columns, block[0], 0)] for columns in cut(each, block[1], 1)]).T
    count = np.prod(np.minimum(block, VALUES.shape))
    return total.reshape(grid.scale.shape) / np.sqrt(count * max(np.abs(low).max(), np.abs(high).max()))


def cut(array: Any, size: int, axis: int) -> list[Any]:
    """Pieces of `size` along an axis, the last one as long as it comes."""
    return np.split(array, range(size, array.shape[axis], size), axis=axis)


def gradients(lowering: Lowering, xla: bool = False) -> list[Any]:
    master = tf.Variable(VALUES)

    @tf.function(jit_compile=xla)  # type: ignore[untyped-decorator]
    def slopes() -> Any:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(straight_through(lowering)(tf.convert_to_tensor(master)) * UPSTREAM)
        return tape.gradient(total, [master, *(variable._value for variable in lowering.learned)])

    return [gradient.numpy() for gradient in slopes()]


def learning(encoding: Encoding) -> Lowering:
    lowering = lower(encoding, VALUES.shape)
    assert lowering is not None
    lowering.learn()
    assert lowering.learned
    return lowering


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("name", GRIDS)
def test_gradients_of_scales_are_those_of_numpy(name: str, xla: bool) -> None:
    grid = GRIDS[name]
    master, scale = gradients(learning(grid), xla)
    np.testing.assert_array_equal(master, UPSTREAM)
    np.testing.assert_allclose(scale, expected(grid, UPSTREAM), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("name", ["per channel", "ragged groups", "per tensor", "table"])
def test_masked_and_escaped_values_add_nothing(name: str) -> None:
    grid = GRIDS[name]
    master, scale = gradients(learning(Masked(KEEP, grid)))
    np.testing.assert_array_equal(master, UPSTREAM * KEEP)
    np.testing.assert_allclose(scale, expected(grid, UPSTREAM * KEEP), rtol=2e-4, atol=2e-6)
    both = Masked(KEEP, Escaped.of(VALUES, PLANE, grid))
    np.testing.assert_allclose(
        gradients(learning(both))[1], expected(grid, UPSTREAM * KEEP * ~PLANE), rtol=2e-4, atol=2e-6
    )


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("name", GRIDS)
def test_nothing_learned_yet_reads_what_numpy_decodes(name: str, xla: bool) -> None:
    read = tf.function(straight_through(learning(GRIDS[name])), jit_compile=xla)
    np.testing.assert_array_equal(read(tf.constant(VALUES)).numpy(), GRIDS[name].project(VALUES))


@pytest.mark.parametrize("name", GRIDS)
def test_what_is_baked_holds_what_was_read(name: str) -> None:
    grid = GRIDS[name]
    lowering = learning(grid)
    assert lowering.baked(grid, VALUES) is grid
    moved = RNG.normal(0, 0.2, grid.scale.shape).astype(np.float32)
    lowering.learned[0].assign(moved)
    baked = lowering.baked(grid, VALUES)
    assert isinstance(baked, Quantized)
    assert grid.broken_by(baked) is None
    assert least_format(np.atleast_1d(baked.scale)).width == 16
    np.testing.assert_allclose(baked.scale, grid.scale * np.exp(moved), rtol=1e-3)
    held = baked.project(VALUES)
    np.testing.assert_array_equal(baked.project(held), held)
    close = np.isclose(straight_through(lowering)(tf.constant(VALUES)).numpy(), held, rtol=2e-3, atol=1e-6)
    assert close.mean() > 0.95


def test_a_codebook_learns_its_levels() -> None:
    grid = fit("codebook", 2, VALUES, (6, 1))
    assert isinstance(grid.levels, TableLevels)
    lowering = learning(grid)
    assert len(lowering.learned) == 2
    _, _, levels = gradients(lowering)
    index = np.searchsorted(grid.levels.thresholds, VALUES / grid.scale)
    sums = np.bincount(index.ravel(), (UPSTREAM * grid.scale).ravel(), len(grid.levels.values))
    sums *= np.abs(grid.levels.array).max() * (grid.levels.array != 0)
    np.testing.assert_allclose(levels, sums / np.sqrt(6 * np.abs(grid.levels.array).max()), rtol=1e-3, atol=1e-5)
    lowering.learned[1].assign([0.3, -0.1, 0.0, 0.1])
    baked = lowering.baked(grid, VALUES)
    assert isinstance(baked, Quantized)
    assert isinstance(baked.levels, TableLevels)
    assert baked.levels.free
    assert baked.levels.values != grid.levels.values
    held = baked.project(VALUES)
    np.testing.assert_allclose(straight_through(lowering)(tf.constant(VALUES)).numpy(), held, rtol=1e-2, atol=1e-2)


def test_powers_of_two_and_tables_of_a_user_keep_their_levels() -> None:
    for rule in ("power_of_two", bw.BitRule([1, 2, 5], symmetric=True)):
        assert len(learning(fit(rule, 3, VALUES, (6, 1))).learned) == 1


def test_steps_chosen_for_a_rate_stay() -> None:
    lowering = lower(Quantized(IntegerLevels(), ONES * np.float32(0.1), (6, 1)), VALUES.shape)
    assert lowering is not None
    lowering.learn()
    assert not lowering.learned


def test_an_update_forgets_what_was_learned_only_where_the_scale_changes() -> None:
    whole = Masked(KEEP, narrow(8, (6, 1)))
    lowering = learning(whole)
    lowering.learned[0].assign(ONES)
    for bits in (4, 2, 8):
        lowering.update(prefix(whole, bits))
        np.testing.assert_array_equal(lowering.learned[0].numpy(), ONES)
    lowering.update(Masked(~KEEP, whole.base))
    np.testing.assert_array_equal(lowering.learned[0].numpy(), ONES)
    lowering.update(Masked(KEEP, narrow(4, (6, 1))))
    np.testing.assert_array_equal(lowering.learned[0].numpy(), 0 * ONES)


def network() -> Any:
    layers = [keras.layers.Flatten(), keras.layers.Dense(32, "relu", name="hidden"), keras.layers.Dense(10, name="out")]
    return zoo.filled(keras.Sequential([keras.Input((8, 8, 1)), *layers]))


def tune(**fields: Any) -> bw.Finetune:
    return bw.Finetune(
        **{"epochs": 1, "loss": LOSS, "batch_size": 64, "learning_rate": 1e-2, "learn_steps": True, **fields}
    )


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Sees the learned scales, and what an optimizer keeps about them."""

    def __init__(self, then: Callable[[Any], None] | None = None) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.then = then

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append([v.numpy().copy() for v in self.model.trainable_variables if isinstance(v, LearnedVariable)])
        if self.then is not None:
            self.then(self.model)


@pytest.mark.parametrize("bits", [2, 3])
def test_learned_scales_lower_the_loss(bits: int) -> None:
    losses = []
    for learn in (True, False):
        passes = [bw.Quantize(bits), tune(epochs=10, learn_steps=learn)]
        losses.append(bw.PassManager(passes).run(network(), (X, Y), (X, Y)).report.passes[1].metrics["loss"])
    assert losses[0] < losses[1]


def test_the_result_is_on_its_learned_grid_and_in_its_file(tmp_path: Any) -> None:
    model = network()
    start = bw.PassManager([bw.Prune(0.5), bw.Quantize(3)]).run(model)
    result = bw.PassManager([tune(epochs=3)]).run(start, (X, Y))
    before, after = (r.graph["hidden/kernel"].encoding.unmasked for r in (start, result))
    assert isinstance(before, Quantized)
    assert isinstance(after, Quantized)
    assert (before.scale != after.scale).mean() > 0.5
    assert least_format(after.scale).format == "float16"
    assert after.bits == 3
    result.save(tmp_path / "model.bw")
    loaded = bw.load(tmp_path / "model.bw")
    for one, other in zip(loaded.variables, result.model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    mask = result.graph["hidden/kernel"].encoding.mask
    assert mask is not None
    assert not np.count_nonzero(loaded.get_layer("hidden").kernel.numpy()[~mask])


@pytest.mark.parametrize("settings", [{"run_eagerly": True}, {"jit_compile": True}, {"jit_compile": False}])
def test_learned_scales_are_variables_of_the_model_while_it_trains(settings: dict[str, Any]) -> None:
    model, watch = network(), Watch()
    if "run_eagerly" in settings:
        model.compile("adam", LOSS, run_eagerly=True)
        settings = {}
    session = KerasSession(model)
    names = [variable.path for variable in session.model.variables]
    bw.PassManager([bw.Quantize(3), tune(callbacks=[watch], epochs=2, **settings)]).run(model, (X, Y))
    assert [array.shape for array in watch.seen[0]] == [(1, 32), (1, 10)]
    assert all(array.any() for array in watch.seen[0])
    assert [variable.path for variable in model.variables] == names


def test_nothing_is_left_behind_also_when_training_raises() -> None:
    def fail(model: Any) -> None:
        raise RuntimeError("stop")

    graph = bw.PassManager([bw.Quantize(3)]).run(network()).graph
    lowerings = {p.index: made for p in graph if (made := lower(p.encoding, p.shape)) is not None}
    for lowering in lowerings.values():
        lowering.learn()
    model = network()
    before, names = list(map(id, model.variables)), set(model.__dict__)
    with attached(model, lowerings):
        assert len(model.variables) == len(before) + 2
        assert len(parameters_of(model)) == len(before)
    assert list(map(id, model.variables)) == before
    assert set(model.__dict__) == names
    with pytest.raises(RuntimeError, match="stop"):
        bw.PassManager([bw.Quantize(3), tune(callbacks=[Watch(fail)])]).run(model, (X, Y))
    assert list(map(id, model.variables)) == before


def test_checkpoints_hold_the_model_and_best_weights_come_back(tmp_path: Any) -> None:
    saved = tmp_path / "epoch.weights.h5"
    stop = keras.callbacks.EarlyStopping("loss", patience=0, restore_best_weights=True, min_delta=100.0)
    watch = Watch(lambda model: model.load_weights(saved))
    callbacks = [keras.callbacks.ModelCheckpoint(saved, save_weights_only=True), watch, stop]
    result = bw.PassManager([bw.Quantize(3), tune(epochs=5, callbacks=callbacks)]).run(network(), (X, Y))
    assert len(watch.seen) == 2
    grid = result.graph["hidden/kernel"].encoding
    start = bw.PassManager([bw.Quantize(3)]).run(network()).graph["hidden/kernel"].encoding
    assert isinstance(grid, Quantized)
    assert isinstance(start, Quantized)
    np.testing.assert_allclose(grid.scale, start.scale * np.exp(watch.seen[0][0]), rtol=1e-3)
    network().load_weights(saved)


def test_weight_decay_leaves_scales_alone() -> None:
    """A decay of everything within a step: masters vanish, r would be pulled back to nothing."""
    watch = Watch()
    optimizer = keras.optimizers.AdamW(1e-2, weight_decay=99.0)
    item = tune(optimizer=optimizer, learning_rate=None, callbacks=[watch], epochs=3, batch_size=256)
    optimizer.exclude_from_weight_decay(var_names=["kernel", "bias"])
    bw.PassManager([bw.Quantize(3), item]).run(network(), (X, Y))
    assert max(np.abs(watch.seen[2][0]).max(), np.abs(watch.seen[2][1]).max()) > 0.02


def test_mixed_precision_with_loss_scaling_learns() -> None:
    model = zoo.MODELS["mixed_float16"]()
    inputs = zoo.batch("mixed_float16", 32)
    targets, watch = np.zeros(model(inputs).shape, np.float32), Watch()
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2))
    item = bw.Finetune(3, loss="mse", optimizer=optimizer, callbacks=(watch,), batch_size=8, learn_steps=True)
    bw.PassManager([bw.Quantize(3), item]).run(model, (inputs, targets))
    assert any(array.any() for array in watch.seen[-1])


class OwnStep(keras.Model):  # type: ignore[misc]
    """A train step of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(4, name="dense")

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(data[0]) - data[1]))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


def test_a_train_step_of_ones_own_learns() -> None:
    model, watch = OwnStep(), Watch()
    inputs = RNG.standard_normal((32, 6)).astype(np.float32)
    model(inputs)
    item = bw.Finetune(1, optimizer="adam", callbacks=(watch,), batch_size=8, learn_steps=True)
    bw.PassManager([bw.Quantize(3), item]).run(model, (inputs, inputs[:, :4]))
    assert watch.seen[0][0].any()


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("kind", [keras.layers.LSTM, keras.layers.GRU])
def test_recurrent_kernels_learn_their_scales(kind: Any, jit: bool) -> None:
    """The view is computed once in front of the loop; the gradient comes back to the scales all the same."""
    model = zoo.filled(keras.Sequential([keras.Input((7, 3)), kind(4, name="cell")]))
    inputs, watch = RNG.standard_normal((32, 7, 3)).astype(np.float32), Watch()
    item = bw.Finetune(
        1, loss="mse", optimizer="adam", callbacks=(watch,), batch_size=8, jit_compile=jit, learn_steps=True
    )
    bw.PassManager([bw.Quantize(3), item]).run(model, (inputs, np.ones((32, 4), np.float32)))
    assert len(watch.seen[0]) == 2
    assert all(array.any() for array in watch.seen[0])


def test_where_learns_there_only() -> None:
    watch = Watch()
    start = bw.PassManager([bw.Quantize(3)]).run(network())
    result = bw.PassManager([bw.Where(tune(callbacks=[watch]), "out")]).run(start, (X, Y))
    assert [array.shape for array in watch.seen[0]] == [(1, 10)]
    assert result.graph["hidden/kernel"].encoding.state().arrays["scale"].tolist() == (
        start.graph["hidden/kernel"].encoding.state().arrays["scale"].tolist()
    )


@pytest.mark.parametrize("bits", [2, 4])
def test_narrowing_with_learned_steps(bits: int) -> None:
    watch = Watch()
    ramp = bw.Ramp(bw.Quantize(bits), during=tune(epochs=4, callbacks=[watch]), steps=3)
    result = bw.PassManager([ramp, tune()]).run(network(), (X, Y))
    assert result.graph["hidden/kernel"].encoding.bits == bits
    assert all(array.any() for array in watch.seen[-1])


@pytest.mark.parametrize("rule", ["ternary", "binary", "codebook", "power_of_two"])
def test_every_rule_trains_and_stays_exact(rule: Any, tmp_path: Any) -> None:
    quantize = bw.Quantize(rule=rule) if rule in ("ternary", "binary") else bw.Quantize(3, rule=rule)
    result = bw.PassManager([quantize, tune(epochs=2)]).run(network(), (X, Y))
    kernel = result.graph.values["hidden/kernel"]
    assert result.graph["hidden/kernel"].encoding.bits <= 3
    result.save(tmp_path / "model.bw")
    np.testing.assert_array_equal(bw.load(tmp_path / "model.bw").get_layer("hidden").kernel.numpy(), kernel)


def test_escaped_values_train_and_are_kept(tmp_path: Any) -> None:
    passes = [bw.Quantize(3, escape=bw.Escape(quantile=0.02)), tune(epochs=2)]
    start = bw.PassManager(passes[:1]).run(network())
    result = bw.PassManager(passes).run(network(), (X, Y))
    encoding, first = (r.graph["hidden/kernel"].encoding for r in (result, start))
    assert isinstance(encoding, Escaped)
    assert isinstance(first, Escaped)
    assert (encoding.values != first.values).any()
    result.save(tmp_path / "model.bw")
    loaded = bw.load(tmp_path / "model.bw").get_layer("hidden").kernel.numpy()
    np.testing.assert_array_equal(loaded, result.graph.values["hidden/kernel"])


def test_learn_steps_is_checked() -> None:
    with pytest.raises(bw.errors.ConfigError, match="learn_steps"):
        tune(learn_steps="yes")
