"""Rates and decays of training, as the optimizer sees them step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import bitwidth as bw
from bitwidth.backend import Objective, Training
from bitwidth.backends.tensorflow.training.compiled import Compiled
from bitwidth.backends.tensorflow.training.rates import GENTLE, CountedCosine

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
Y = X @ RNG.normal(size=(6, 2)).astype(np.float32)
STEPS = 5  # of an epoch of 40 samples in batches of 8
ADAM = GENTLE * 1e-3


class Rates(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes down the rate that each step has had."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []
        self.rate = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.rate = float(self.model.optimizer.learning_rate)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(self.rate)  # Keras also begins a step for which there are no data


def network(optimizer: Any = None, **settings: Any) -> Any:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(2)])
    if optimizer is not None:
        model.compile(optimizer, "mse", **settings)
    return model


def rates(model: Any, data: Any = (X, Y), around: Any = lambda tune: tune, **fields: Any) -> list[float]:
    watch = Rates()
    callbacks = [*fields.pop("callbacks", ()), watch]
    tune = bw.Finetune(**{"epochs": 4, "loss": "mse", "batch_size": 8, "callbacks": callbacks, **fields})
    bw.PassManager([around(tune)]).run(model, data)
    return watch.seen


def cosine(rate: float, wait: int, total: int) -> list[float]:
    fall = [rate * 0.5 * (1 + np.cos(np.pi * step / (total - wait))) for step in range(total - wait)]
    return [rate] * wait + fall


def counted(rate: float, epochs: int = 4, clock: int = STEPS) -> list[float]:
    """The rates of the steps that had data, where the optimizer counts `clock` steps in an epoch.

    Keras lets it count one more where an epoch ends because there are no more data, except under XLA or with several
    steps at a time.
    """
    return [r for step, r in enumerate(cosine(rate, clock, epochs * clock)) if step % clock < STEPS]


def schedule() -> Any:
    return keras.optimizers.schedules.PiecewiseConstantDecay([10], [0.01, 0.001])


# ---- rates that nobody has chosen are gentle; others are kept


@pytest.mark.parametrize(
    ("compiled", "fields", "start"),
    [
        (None, {}, ADAM),
        ("adam", {}, ADAM),
        (keras.optimizers.AdamW(weight_decay=0.1), {}, ADAM),
        ("sgd", {}, GENTLE * 1e-2),
        (keras.optimizers.SGD(momentum=0.9), {}, GENTLE * 1e-2),
        (keras.optimizers.Adam(5e-3), {}, 5e-3),
        ("adam", {"learning_rate": "own"}, 1e-3),
        ("adam", {"learning_rate": 0.02}, 0.02),
        ("adam", {"optimizer": "rmsprop"}, GENTLE * 1e-3),
        (keras.optimizers.Adam(5e-3), {"optimizer": "sgd", "learning_rate": "own"}, 1e-2),
    ],
)
def test_where_the_pass_makes_the_optimizer_the_rate_falls(compiled: Any, fields: Any, start: float) -> None:
    seen = rates(network(compiled), **fields)
    np.testing.assert_allclose(seen, cosine(start, 0, 4 * STEPS), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("compiled", "fields", "start"),
    [
        ("adam", {"optimizer": keras.optimizers.Adam()}, 1e-3),
        (None, {"optimizer": {"class_name": "SGD", "config": {"learning_rate": 0.05}}}, 0.05),
        ("adam", {"optimizer": keras.optimizers.Adam(), "learning_rate": 2e-3}, 2e-3),
        ("adam", {"decay": "constant"}, ADAM),
        (None, {"decay": "constant", "learning_rate": 1e-2}, 1e-2),
        ("adam", {"decay": "constant", "learning_rate": "own"}, 1e-3),
        ("adam", {"callbacks": [keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=99)]}, ADAM),
    ],
)
def test_elsewhere_the_rate_stays(compiled: Any, fields: Any, start: float) -> None:
    np.testing.assert_allclose(rates(network(compiled), **fields), [start] * 4 * STEPS, rtol=1e-5)


@pytest.mark.parametrize("where", ["compiled", "given", "compiled with mixed precision"])
def test_a_schedule_of_the_user_is_left_alone(where: str) -> None:
    optimizer = keras.optimizers.Adam(schedule())
    if where == "compiled with mixed precision":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model = network("adam") if where == "given" else network(optimizer)
    seen = rates(model, **({"optimizer": optimizer} if where == "given" else {}))
    np.testing.assert_allclose(seen, [0.01] * 11 + [0.001] * 9, rtol=1e-5)


def test_a_scheduler_of_the_user_sets_the_rate() -> None:
    callback = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    seen = rates(network("adam"), callbacks=[callback], epochs=2)
    np.testing.assert_allclose(seen, [0.1] * STEPS + [0.05] * STEPS, rtol=1e-5)


@pytest.mark.parametrize("kind", [keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler])
def test_two_masters_of_the_rate_are_refused(kind: Any) -> None:
    callback = kind() if kind is keras.callbacks.ReduceLROnPlateau else kind(lambda epoch: 0.1)
    with pytest.raises(bw.errors.ConfigError, match=f"{kind.__name__} both set the learning rate"):
        rates(network("adam"), callbacks=[callback], decay="cosine")


def test_the_result_is_compiled_as_the_model_was() -> None:
    result = bw.PassManager([bw.Finetune(epochs=1)]).run(network("adam"), (X, Y))
    assert float(result.model.optimizer.learning_rate) == pytest.approx(1e-3)


# ---- data that do not tell their length


def batches() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


RAN_OUT = pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, at the end of the first epoch


def of_unknown_length() -> Any:
    return batches().filter(lambda x, y: True)


UNKNOWN: dict[str, Callable[[], Any]] = {
    "filtered": of_unknown_length,
    "from a generator": lambda: tf.data.Dataset.from_generator(
        lambda: iter(batches()),
        output_signature=(tf.TensorSpec((None, 6), tf.float32), tf.TensorSpec((None, 2), tf.float32)),
    ),
    "flat": lambda: tf.data.Dataset.range(2).flat_map(lambda i: batches().take(i + 2)),
}


@RAN_OUT
@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("decay", [None, "cosine"])
def test_the_first_epoch_counts_the_steps(name: str, decay: Any) -> None:
    seen = rates(network("adam"), UNKNOWN[name](), decay=decay)
    clocks = [counted(ADAM, clock=clock) for clock in (STEPS, STEPS + 1)]
    assert any(np.allclose(seen, rates, rtol=1e-4, atol=1e-9) for rates in clocks)


@RAN_OUT
@pytest.mark.parametrize("fields", [{"jit_compile": True}, {"jit_compile": False}])
def test_with_several_steps_at_a_time_the_optimizer_sees_the_same_rates(fields: Any) -> None:
    """SGD on a loss with a constant gradient: how far a bias has moved is the sum of the rates."""

    def loss(targets: Any, outputs: Any) -> Any:
        return keras.ops.mean(outputs, axis=-1)

    ends = {}
    for execution in (1, 2, 5):
        for name, data in (("known", batches()), ("unknown", of_unknown_length())):
            model = network("sgd", steps_per_execution=execution)
            tune = bw.Finetune(epochs=4, loss=loss, learning_rate=0.1, **fields)
            result = bw.PassManager([tune]).run(model, data)
            ends[name, execution] = float(result.model.layers[-1].bias.numpy()[0])
    for execution in (1, 2, 5):
        assert ends["known", execution] == pytest.approx(-0.5 * sum(cosine(0.1, 0, 4 * STEPS)), rel=1e-4)
        clocks = (STEPS, STEPS + 1) if execution == 1 else (STEPS,)
        moved = [-0.5 * sum(counted(0.1, clock=clock)) for clock in clocks]
        assert min(abs(ends["unknown", execution] / m - 1) for m in moved) < 1e-4


@RAN_OUT
def test_one_epoch_of_unknown_length_stays_constant() -> None:
    np.testing.assert_allclose(rates(network("adam"), of_unknown_length(), epochs=1), [ADAM] * STEPS, rtol=1e-5)
    with pytest.raises(bw.errors.ConfigError, match="give steps_per_epoch, or two epochs"):
        rates(network("adam"), of_unknown_length(), epochs=1, decay="cosine")


def test_a_counted_cosine_goes_through_its_configuration() -> None:
    first = CountedCosine(0.1, 3)
    first.count(4)
    again = CountedCosine(**first.get_config())
    steps = np.arange(20)
    np.testing.assert_array_equal([first(step) for step in steps], [again(step) for step in steps])
    assert float(first(12)) == pytest.approx(0, abs=1e-9)


# ---- under a ramp


@pytest.mark.parametrize(("end", "wait"), [(0.75, 15), (0.5, 10), (0.33, 7), (1.0, 20)])
def test_under_a_ramp_the_rate_falls_from_full_strength_on(end: float, wait: int) -> None:
    seen = rates(network("adam"), around=lambda tune: bw.Ramp(bw.Prune(0.5), during=tune, end=end))
    np.testing.assert_allclose(seen, cosine(ADAM, wait, 4 * STEPS), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("of", [bw.Quantize(4), bw.Prune(0.5, where="hidden"), bw.Prune(0.5, scope="local")])
def test_whatever_is_ramped(of: bw.Pass) -> None:
    seen = rates(network(), around=lambda tune: bw.Ramp(of, during=tune, end=0.5), decay="cosine", learning_rate=0.1)
    np.testing.assert_allclose(seen, cosine(0.1, 10, 4 * STEPS), rtol=1e-4, atol=1e-7)


def test_an_optimizer_with_a_rate_of_its_own_class() -> None:
    class Slow(keras.optimizers.SGD):  # type: ignore[misc]
        def __init__(self, learning_rate: float = 0.5, **kwargs: Any) -> None:
            super().__init__(learning_rate, **kwargs)

    class Bare(keras.optimizers.SGD):  # type: ignore[misc]
        def __init__(self, learning_rate: Any, **kwargs: Any) -> None:
            super().__init__(learning_rate, **kwargs)

    training = Training(Objective("mse"), None, decay="constant")
    for optimizer, rate in ((Slow(), GENTLE * 0.5), (Slow(0.4), 0.4), (Bare(0.5), 0.5)):
        fresh = Compiled.of(network(optimizer)).optimizer_for(training, 5, [])
        assert float(fresh.learning_rate) == pytest.approx(rate)
