from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from numpy.typing import NDArray

import bitwidth as bw
from bitwidth.analysis import divergences, fidelity, fidelity_to
from bitwidth.context import Context
from bitwidth.reading import opened_session
from tests import reference

RNG = np.random.default_rng(0)
KINDS = [
    "categorical logits",
    "categorical probabilities",
    "bernoulli logits",
    "bernoulli probabilities",
    "gaussian mean",
]


def outputs(kind: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    logits: NDArray[np.float64] = np.random.default_rng(seed).normal(0, 3, shape)
    if kind == "categorical probabilities":
        shares: NDArray[np.float64] = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        return shares
    return 1 / (1 + np.exp(-logits)) if kind == "bernoulli probabilities" else logits


@settings(max_examples=40)
@given(st.sampled_from(KINDS), st.lists(st.integers(1, 5), min_size=2, max_size=3), st.integers(0, 9))
def test_it_is_zero_for_the_same_outputs_and_above_for_others(kind: str, shape: list[int], seed: int) -> None:
    one, other = (outputs(kind, tuple(shape), seed + step) for step in (0, 100))
    (same,) = fidelity([kind], [one], [one]).values()
    (apart,) = fidelity([kind], [one], [other]).values()
    assert same == pytest.approx(0, abs=1e-9)
    assert apart >= -1e-9
    assert np.isfinite(apart)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    st.lists(st.integers(1, 5), min_size=2, max_size=3),
    st.integers(0, 9),
)
def test_what_each_sample_adds_has_the_mean_that_it_is_part_of(kinds: list[str], shape: list[int], seed: int) -> None:
    """Of any outputs of a model together."""
    one, other = ([outputs(kind, tuple(shape), seed + step) for kind in kinds] for step in (0, 100))
    whole, parts = fidelity(kinds, one, other), divergences(kinds, one, other)
    assert set(parts) == set(whole)
    for name, each in parts.items():
        assert each.shape == (shape[0],)
        if name == "kl" or min(np.ptp(a, axis=0).max() for a in one) > 0:
            assert each.mean() == pytest.approx(whole[name], rel=1e-6, abs=1e-9)


def test_outputs_of_integers_and_of_nothing_add_nothing() -> None:
    numbers, nothing = np.arange(6).reshape(3, 2), np.zeros((0, 2))
    assert divergences(["categorical logits"] * 2, [numbers, nothing], [numbers, nothing]) == {}


def test_logits_and_their_probabilities_are_the_same_distribution() -> None:
    for kind in ("categorical", "bernoulli"):
        before, after = (outputs(f"{kind} logits", (6, 4), seed) for seed in (1, 2))
        forms = [outputs(f"{kind} probabilities", (6, 4), seed) for seed in (1, 2)]
        by_logits = fidelity([f"{kind} logits"], [before], [after])["kl"]
        assert fidelity([f"{kind} probabilities"], forms[:1], forms[1:])["kl"] == pytest.approx(by_logits)


def test_several_outputs_are_taken_together() -> None:
    one, other = outputs("gaussian mean", (8, 1), 1), outputs("gaussian mean", (8, 1), 2)
    logits, changed = outputs("categorical logits", (8, 3), 1), outputs("categorical logits", (8, 3), 2)
    kinds = ["gaussian mean", "categorical logits", "categorical logits", "categorical logits"]
    ids = np.arange(8)
    found = fidelity(kinds, [one, logits, logits, ids], [other, changed, logits, ids])
    assert found["kl"] == pytest.approx(fidelity(kinds[1:2], [logits], [changed])["kl"])
    spread = np.square(one - one.mean()).sum()
    assert found["output_error"] == pytest.approx(np.square(one - other).sum() / spread)
    assert fidelity(["gaussian mean"], [np.ones((4, 1))], [np.ones((4, 1))]) == {"output_error": 0.0}
    assert fidelity(["gaussian mean"], [np.ones((4, 1))], [np.zeros((4, 1))]) == {"output_error": 1.0}


X = RNG.normal(size=(300, 8)).astype(np.float32)


def network(*heads: Any) -> Any:
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((8,))
    x = layers.Dense(16, "relu")(x)
    return keras.Model(inputs, [head(x) for head in heads] if len(heads) > 1 else heads[0](x))


FORMS: dict[str, Any] = {
    "inputs alone": X,
    "with labels": (X, np.zeros(300, np.int32)),
    "a dataset that shuffles": tf.data.Dataset.from_tensor_slices(X).shuffle(300).batch(50),
    "a generator": None,
}


@pytest.mark.parametrize("form", list(FORMS))
def test_every_record_has_it_where_there_is_data(form: str) -> None:
    model = network(layers.Dense(4))
    data = FORMS[form] if FORMS[form] is not None else iter([(X[:100],), (X[100:],)])
    result = bw.PassManager([bw.Quantize(8), bw.Prune(0.5), bw.Quantize(2)]).run(model, data)
    seen = [record.fidelity["kl"] for record in result.report.passes]
    assert 0 < seen[0] < seen[1] < seen[2]
    exact = fidelity(["categorical logits"], [model(X).numpy()], [result.model(X).numpy()])["kl"]
    assert seen[2] == pytest.approx(exact, rel=0.5)
    first, head = str(result.report).splitlines()[:2]
    assert first.endswith(f"kl {seen[2]:.4f}")
    assert "kl" in head.split()


def test_it_is_that_of_the_models_outputs() -> None:
    model = network(layers.Dense(4, "softmax"), layers.Dense(3, "sigmoid"), layers.Dense(1))
    result = bw.PassManager([bw.Quantize(3)]).run(model, X[:64])
    kinds = ["categorical probabilities", "bernoulli probabilities", "gaussian mean"]
    pairs = [[output.numpy() for output in m(X[:64])] for m in (model, result.model)]
    for name, value in fidelity(kinds, *pairs).items():
        assert result.report.passes[0].fidelity[name] == pytest.approx(value, rel=1e-4)


def test_validation_data_comes_first_and_without_data_there_is_none() -> None:
    model = network(layers.Dense(4))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.zeros(300, np.int32)
    chain = bw.PassManager([bw.Quantize(3)])
    both = chain.run(model, X[:32] * 9, (X, labels)).report.passes[0]
    alone = chain.run(model, None, (X, labels)).report.passes[0]
    assert both.fidelity == alone.fidelity
    assert not chain.run(model).report.passes[0].fidelity
    assert not chain.plan(model).passes[0].fidelity


def test_at_most_256_samples_are_looked_at_and_always_the_same() -> None:
    session, graph = opened_session(network(layers.Dense(4)), None)
    shuffled = tf.data.Dataset.from_tensor_slices(X).shuffle(300).batch(50)
    compared = fidelity_to(graph, Context(session, shuffled))
    assert compared(graph) == {"kl": pytest.approx(0, abs=1e-12)}


def test_a_chain_within_a_chain_and_a_repeated_pass_have_it_too() -> None:
    inner = bw.PassManager([bw.Prune(0.2), bw.Quantize(4)])
    model, data = reference.Network([6, 8, 2]), reference.regression()
    (record,) = bw.PassManager([inner]).run(model, data).report.passes
    assert record.fidelity == record.inner[1].fidelity != record.inner[0].fidelity
