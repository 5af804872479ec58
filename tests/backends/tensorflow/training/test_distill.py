"""Distill: training towards a teacher, on Keras models of many kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import bitwidth as bw
from bitwidth.backends.tensorflow.training.divergence import Divergence
from bitwidth.errors import ConfigError, DataError

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((256, 12)).astype("float32")
Y = X[:, :3].argmax(axis=1).astype("int32")


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(0)
    stack = [keras.Input((12,)), layers.Dense(24, "relu", name="hidden"), layers.Dense(16, "relu", name="second")]
    found = keras.Sequential([*stack, layers.Dense(3, name="out")])
    found.compile(keras.optimizers.Adam(1e-2), LOSS, metrics=["accuracy"])
    found.fit(X, Y, epochs=10, verbose=0)
    return found


def with_norm() -> Any:
    keras.utils.set_random_seed(0)
    stack = [keras.Input((12,)), layers.Dense(24), layers.BatchNormalization(), layers.ReLU(), layers.Dense(3)]
    return keras.Sequential(stack)


def kl(model: Any, other: Any, x: Any = X) -> float:
    one, two = (tf.nn.log_softmax(m(x, training=False)).numpy() for m in (model, other))
    return float((np.exp(one) * (one - two)).sum(axis=-1).mean())


# ---- the loss


def test_the_divergence_is_that_of_the_formula() -> None:
    taught, given = RNG.standard_normal((2, 6, 4)).astype("float32")
    t = 3.0
    p, q = (np.exp(x / t) / np.exp(x / t).sum(axis=1, keepdims=True) for x in (taught, given))
    expected = t * t * (p * np.log(p / q)).sum(axis=1).mean()
    found = Divergence(["categorical logits"], t, [1.0])(tf.constant(taught), tf.constant(given))
    assert np.isclose(found, expected, rtol=1e-5)
    soft = [np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (taught, given)]
    found = Divergence(["categorical probabilities"], t, [1.0])(*map(tf.constant, soft))
    assert np.isclose(found, expected, rtol=1e-4)


def test_yes_and_no_and_means() -> None:
    taught, given = RNG.standard_normal((2, 6, 4)).astype("float32")
    p, q = 1 / (1 + np.exp(-taught)), 1 / (1 + np.exp(-given))
    expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    for form, pair in (("logits", (taught, given)), ("probabilities", (p, q))):
        found = Divergence([f"bernoulli {form}"], 1.0, [1.0])(*map(tf.constant, pair))
        assert np.isclose(found, expected, rtol=1e-4)
    found = Divergence(["gaussian mean"], 5.0, [2.5])(tf.constant(taught), tf.constant(given))
    assert np.isclose(found, np.square(taught - given).mean() / 2.5, rtol=1e-5)


def test_outputs_add_up_and_samples_weigh() -> None:
    taught, given = RNG.standard_normal((2, 6, 4)).astype("float32")
    both = Divergence(["categorical logits", "gaussian mean"], 2.0, [1.0, 1.0])
    alone = [Divergence([kind], 2.0, [1.0]) for kind in ("categorical logits", "gaussian mean")]
    pair = tf.constant(taught), tf.constant(given)
    assert np.isclose(both([pair[0]] * 2, [pair[1]] * 2), sum(float(one(*pair)) for one in alone))
    weights = tf.constant([1.0, 0, 0, 0, 0, 0])
    first = alone[0](pair[0][:1], pair[1][:1])
    assert np.isclose(alone[0](*pair, weights), first / 6, rtol=1e-5)


# ---- the run


def test_no_labels_are_needed_and_the_original_is_approached(model: Any) -> None:
    pruned = bw.PassManager([bw.Prune(0.7)]).run(model)
    result = bw.PassManager([bw.Prune(0.7), bw.Distill(8)]).run(model, X, seed=1)
    assert kl(model, result.model) < 0.5 * kl(model, pruned.model)
    history = result.report.passes[1].history
    assert set(history) == {"loss", "distillation"}
    assert history["loss"] == pytest.approx(history["distillation"], rel=1e-5)
    mask = result.graph["hidden/kernel"].encoding.mask
    assert mask is not None
    assert not result.graph.values["hidden/kernel"][~mask].any()


def test_labels_are_measured_and_weigh_by_alpha(model: Any) -> None:
    for alpha in (0.0, 0.25):
        item = bw.Distill(2, alpha=alpha)
        result = bw.PassManager([bw.Quantize(3), item]).run(model, (X, Y), validation=(X, Y))
        history = result.report.passes[1].history
        assert {"accuracy", "label_loss", "distillation", "val_accuracy"} < set(history)
        pairs = zip(history["distillation"], history["label_loss"], strict=True)
        mixed = [(1 - alpha) * apart + alpha * loss for apart, loss in pairs]
        assert history["loss"] == pytest.approx(mixed, rel=1e-4)


def test_the_teacher_is_never_trained_and_in_no_file(model: Any, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    teacher = keras.Sequential([keras.Input((12,)), layers.Dense(64, "relu"), layers.Dropout(0.5), layers.Dense(3)])
    before = [array.copy() for array in teacher.get_weights()]
    passes = [bw.Quantize(4), bw.Distill(2, teacher=teacher)]
    first = bw.PassManager(passes).run(model, X, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(before, teacher.get_weights(), strict=True))
    first.save(tmp_path / "a.bw")
    assert (tmp_path / "a.bw").stat().st_size < 2000  # of 760 parameters at 4 bits; the teacher has 1,027
    second = bw.PassManager(passes).run(model, X, seed=3)
    assert all(np.array_equal(first.graph.values[p], second.graph.values[p]) for p in first.graph.values)


def test_stored_outputs_are_those_of_the_model(model: Any) -> None:
    logits = model.predict(X, verbose=0)
    live = bw.PassManager([bw.Prune(0.6), bw.Distill(2)]).run(model, X, seed=2)
    for data in (X, (X, Y, np.ones(256, "float32"))):
        stored = bw.PassManager([bw.Prune(0.6), bw.Distill(2, teacher=logits)]).run(model, data, seed=2)
        for path in live.graph.values:
            np.testing.assert_allclose(stored.graph.values[path], live.graph.values[path], atol=1e-4)


def test_after_shrink_the_teacher_is_the_model_before(model: Any) -> None:
    cut = bw.PassManager([bw.ShrinkDense(keep=0.5, inputs=9)]).run(model, X)
    kept = list(cut.kept_inputs or ())
    result = bw.PassManager([bw.ShrinkDense(keep=0.5, inputs=9), bw.Distill(10, learning_rate=3e-3)]).run(
        model, X, validation=(X, Y)
    )
    assert result.kept_inputs == tuple(kept)
    apart = [tf.nn.log_softmax(m(X[:, kept], training=False)) for m in (cut.model, result.model)]
    own = tf.nn.log_softmax(model(X, training=False)).numpy()
    before, after = ((np.exp(own) * (own - one.numpy())).sum(axis=1).mean() for one in apart)
    assert after < before
    narrow = bw.PassManager([bw.Distill(1)]).run(result, X[:, kept])
    assert narrow.kept_inputs == result.kept_inputs


CHAINS: dict[str, list[bw.Pass]] = {
    "ramp": [bw.Ramp(bw.Prune(0.8), during=bw.Distill(3)), bw.Quantize(5), bw.Distill(1)],
    "where": [bw.Where(bw.Distill(1), "out")],
    "nested": [bw.Nested(bw.Quantize(8), widths=(8, 4), during=bw.Distill(2))],
    "folded": [bw.FoldBatchNorm(), bw.Quantize(4), bw.Distill(1)],
    "steps": [bw.Quantize(4), bw.Distill(1, learn_steps=True)],
    "xla": [bw.Quantize(4, activations=8), bw.Distill(1, jit_compile=True)],
    "repeat": [bw.Repeat(bw.PassManager([bw.Prune(0.5), bw.Distill(1)]), times=2)],
}
LONG = ("nested", "folded", "steps", "xla", "repeat")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in CHAINS]
)
def test_it_goes_with_other_passes(model: Any, name: str) -> None:
    if name == "folded":
        model = with_norm()
    result = bw.PassManager(CHAINS[name]).run(model, X)
    assert kl(model, result.model) < 0.5


def test_norms_and_biases_alone(model: Any) -> None:
    result = bw.PassManager([bw.Prune(0.6), bw.Distill(3, only="norms_and_biases")]).run(model, X)
    pruned = bw.PassManager([bw.Prune(0.6)]).run(model)
    for path in ("hidden/kernel", "out/kernel"):
        assert np.array_equal(result.graph.values[path], pruned.graph.values[path])
    assert kl(model, result.model) < kl(model, pruned.model)


def test_regularizers_and_added_losses_go_on_counting() -> None:
    keras.utils.set_random_seed(0)
    given = keras.Input((12,))
    hidden = layers.Dense(8, "relu", kernel_regularizer=keras.regularizers.L2(0.5))(given)
    model = keras.Model(given, layers.Dense(3)(layers.ActivityRegularization(l2=0.1)(hidden)))
    result = bw.PassManager([bw.Distill(1, learning_rate=1e-6)]).run(model, X)
    history = result.report.passes[0].history
    assert history["distillation"][0] < 1e-6
    assert history["loss"][0] > 0.5


# ---- models of other kinds


def several() -> tuple[Any, Any, Any]:
    given = keras.Input((12,))
    hidden = layers.Dense(16, "relu", name="shared")(given)
    outputs = {
        "kind": layers.Dense(3, "softmax", name="kind")(hidden),
        "flag": layers.Dense(2, "sigmoid", name="flag")(hidden),
        "value": layers.Dense(1, name="value")(hidden),
    }
    labels = {"kind": Y, "flag": (X[:, :2] > 0).astype("float32"), "value": X[:, :1]}
    losses = {"kind": "sparse_categorical_crossentropy", "flag": "binary_crossentropy", "value": "mse"}
    return keras.Model(given, outputs), labels, losses


def sequence() -> tuple[Any, Any, Any]:
    given = keras.Input((6,), dtype="int32")
    hidden = layers.LSTM(8, return_sequences=True)(layers.Embedding(20, 8, mask_zero=True)(given))
    return keras.Model(given, layers.Dense(20)(hidden)), RNG.integers(0, 20, (64, 6)), LOSS


OTHERS: list[tuple[Any, bool]] = [(several, False), (sequence, True)]


@pytest.mark.parametrize(
    ("build", "labelled"),
    [(several, True), (sequence, False), *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)],
)
def test_models_of_several_outputs_and_of_sequences(build: Any, labelled: bool) -> None:
    keras.utils.set_random_seed(0)
    model, labels, loss = build()
    x = X if build is several else RNG.integers(1, 20, (64, 6)).astype("int32")
    data = (x, labels) if labelled else x
    item = bw.Distill(3, alpha=0.2 if labelled else 0.0, loss=loss if labelled else None, learning_rate=1e-2)
    result = bw.PassManager([bw.Quantize(3), item]).run(model, data)
    history = result.report.passes[1].history
    if not labelled:
        assert history["distillation"][-1] < history["distillation"][0]
    assert ("label_loss" in history) is labelled


def test_stored_outputs_of_several() -> None:
    model, _, _ = several()
    stored = model.predict(X, verbose=0)
    result = bw.PassManager([bw.Quantize(3), bw.Distill(1, teacher=stored)]).run(model, X)
    assert result.report.passes[1].history["distillation"][0] > 0


# ---- layers


def test_features_through_a_learned_map(model: Any, tmp_path: Path) -> None:
    cut = [bw.ShrinkDense(keep=0.5), bw.Distill(4, features=["hidden", "second"])]
    result = bw.PassManager(cut).run(model, (X, Y), validation=(X, Y))
    history = result.report.passes[1].history
    assert history["features"][-1] < history["features"][0]
    assert set(result.graph.parameters) == set(bw.read(model).parameters)
    result.save(tmp_path / "a.bw")
    assert np.array_equal(bw.load(tmp_path / "a.bw")(X), result.model(X))
    assert "call" not in model.get_layer("hidden").__dict__
    assert not {"save_own_variables", "load_own_variables"} & set(vars(result.model))


def attending(width: int = 16) -> Any:
    given = keras.Input((7, 16))
    attention = layers.MultiHeadAttention(2, width // 2, name="attention")
    hidden = layers.Dense(16, "relu", name="norm")(given + attention(given, given))
    return keras.Model(given, layers.Dense(4)(layers.GlobalAveragePooling1D()(hidden)))


def test_attention_maps_come_closer() -> None:
    keras.utils.set_random_seed(0)
    model, teacher = attending(), attending(24)
    x = RNG.standard_normal((64, 7, 16)).astype("float32")
    item = bw.Distill(6, teacher=teacher, attention=["attention"], features={"norm": "norm"}, learning_rate=1e-2)
    history = bw.PassManager([item]).run(model, x).report.passes[0].history
    assert history["attention"][-1] < history["attention"][0]
    assert history["features"][-1] < history["features"][0]
    assert "call" not in teacher.get_layer("attention").__dict__


# ---- what is refused, before work starts


def wrong_inputs() -> Any:
    return keras.Sequential([keras.Input((9,)), layers.Dense(3)])


def wrong_outputs() -> Any:
    return keras.Sequential([keras.Input((12,)), layers.Dense(4)])


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"teacher": wrong_inputs}, DataError, "the teacher cannot be called on it"),
        ({"teacher": wrong_outputs}, ConfigError, r"outputs of the shapes \(4,\), and the model \(3,\)"),
        ({"teacher": lambda: np.zeros((9, 3), "float32")}, DataError, "9 rows of output 0 for 256 samples"),
        ({"teacher": lambda: np.zeros((256, 4), "float32")}, ConfigError, r"rows of output 0 have the shape \(4,\)"),
        ({"teacher": lambda: np.full((256, 3), np.nan, "float32")}, DataError, "not finite"),
        ({"teacher": lambda: [np.zeros((256, 3))] * 2}, ConfigError, "2 stored outputs, and the model has 1"),
        ({"teacher": lambda: object()}, ConfigError, "expected a Keras model, or its outputs as arrays"),
        ({"features": ["nowhere"]}, ConfigError, "the model has no layer 'nowhere'; it has: .*hidden, second, out"),
        ({"features": {"hidden": "nowhere"}}, ConfigError, "the teacher has no layer 'nowhere'"),
        ({"attention": ["hidden"]}, ConfigError, "hidden is a Dense, and attention is of a MultiHeadAttention"),
        (
            {"features": ["hidden"], "teacher": lambda: np.zeros((256, 3), "float32")},
            ConfigError,
            "not of stored outputs",
        ),
        ({"alpha": 0.5}, DataError, "no targets"),
        ({"class_weight": {0: 1.0}}, ConfigError, "there are no labels to weigh by"),
    ],
)
def test_what_does_not_fit_is_refused_before_work_starts(model: Any, fields: Any, error: Any, words: str) -> None:
    made = {key: value() if callable(value) else value for key, value in fields.items()}
    started: list[Any] = []
    with pytest.raises(error, match=words):
        bw.PassManager([bw.Prune(0.5), bw.Distill(1, **made)]).run(model, X, on_event=started.append)
    assert not [event for event in started if type(event).__name__ == "PassEnded"]


def test_stored_outputs_are_for_arrays(model: Any) -> None:
    data = tf.data.Dataset.from_tensor_slices(X).batch(32)
    with pytest.raises(ConfigError, match="for data that is arrays"):
        bw.PassManager([bw.Distill(1, teacher=np.zeros((256, 3), "float32"))]).run(model, data)


def test_features_of_other_lengths_and_heads_are_refused() -> None:
    model = attending()
    x = RNG.standard_normal((8, 7, 16)).astype("float32")
    given = keras.Input((7, 16))
    longer = layers.ZeroPadding1D(1, name="norm")(given)
    attention = layers.MultiHeadAttention(4, 4, name="attention")(given, given)
    pooled = layers.GlobalAveragePooling1D()(longer) + layers.GlobalAveragePooling1D()(attention)
    teacher = keras.Model(given, layers.Dense(4)(pooled))
    with pytest.raises(ConfigError, match="all axes but the last have to agree"):
        bw.PassManager([bw.Distill(1, teacher=teacher, features=["norm"])]).run(model, x)
    with pytest.raises(ConfigError, match=r"heads, queries, keys\): they have to agree"):
        bw.PassManager([bw.Distill(1, teacher=teacher, attention=["attention"])]).run(model, x)


class OwnStep(keras.Model):  # type: ignore[misc]
    """A model that computes its loss in its own training step."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


def test_a_model_with_its_own_step_is_refused() -> None:
    model = OwnStep()
    model(X[:2])
    with pytest.raises(ConfigError, match="OwnStep computes its loss itself"):
        bw.PassManager([bw.Distill(1)]).run(model, X)


def test_plan_needs_no_data(model: Any) -> None:
    assert len(bw.PassManager([bw.Prune(0.5), bw.Distill(2)]).plan(model).passes) == 2
    with pytest.raises(ConfigError, match="needs data"):
        bw.PassManager([bw.Distill(2)]).run(model)


def test_validation_needs_no_labels_either(model: Any) -> None:
    history = bw.PassManager([bw.Quantize(3), bw.Distill(2)]).run(model, X, validation=X).report.passes[1].history
    assert len(history["val_distillation"]) == 2
    with_labels = bw.PassManager([bw.Quantize(3), bw.Distill(1)]).run(model, (X, Y), validation=X)
    assert "val_distillation" in with_labels.report.passes[1].history
