"""Results that are run further, and whose models their owners change."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import bitwidth as bw
from bitwidth.artifact import StoredModel, open_checkpoint, pack, pack_checkpoint
from bitwidth.encodings import Masked, Quantized
from bitwidth.errors import CorruptFileError, FileError, ModelError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 8)).astype(np.float32)
Y = (np.abs(X @ RNG.normal(size=(8, 1))) > 1.5).astype(np.int32)[:, 0]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network() -> Any:
    keras.utils.set_random_seed(5)
    stack = [
        keras.Input((8,)),
        layers.Dense(16, activation="relu", name="hidden"),
        layers.BatchNormalization(name="bn"),
    ]
    return keras.Sequential([*stack, layers.Dropout(0.1, name="drop"), layers.Dense(2, name="out")])


def finetune(epochs: int = 1) -> bw.Pass:
    return bw.Finetune(epochs=epochs, loss=LOSS, learning_rate=3e-3)


CHAINS: dict[str, list[bw.Pass]] = {
    "two bits": [bw.Quantize(2), finetune()],
    "trained twice": [bw.Quantize(2), finetune(), finetune()],
    "pruned, then trained": [bw.Prune(0.5), finetune(), bw.Quantize(3), finetune()],
    "grids after training": [finetune(), bw.Quantize(4), bw.Quantize(3)],
}


def same_bits(left: bw.Result, right: bw.Result, tmp_path: Path) -> bool:
    left.save(tmp_path / "a.bw", architecture=False)
    right.save(tmp_path / "b.bw", architecture=False)
    values = zip(left.model.get_weights(), right.model.get_weights(), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in values) and left.size == right.size


def sent(result: bw.Result) -> bw.Result:
    """The result as another process receives it."""
    again = pickle.loads(pickle.dumps(result))
    assert isinstance(again, bw.Result)
    return again


@pytest.mark.parametrize("name", list(CHAINS))
def test_a_chain_cut_into_runs_gives_what_the_chain_gives(name: str, tmp_path: Path) -> None:
    chain, model = CHAINS[name], network()
    whole = bw.PassManager(chain).run(model, (X, Y))
    for cut in range(1, len(chain)):
        first = bw.PassManager(chain[:cut]).run(model, (X, Y))
        assert same_bits(bw.PassManager(chain[cut:]).run(first, (X, Y)), whole, tmp_path)
        assert same_bits(bw.PassManager(chain[cut:]).run(sent(first), (X, Y)), whole, tmp_path)
    step: Any = model
    for item in chain:
        step = bw.PassManager([item]).run(step, (X, Y))
    assert same_bits(step, whole, tmp_path)


def test_a_released_result_starts_from_what_it_computes_with() -> None:
    first = bw.PassManager([bw.Quantize(2)]).run(network())
    master = first.graph.values.value("hidden/kernel").master
    assert master is not None
    assert (master != first.graph.values["hidden/kernel"]).any()
    before = first.model.get_weights()
    first.release()
    assert first.graph.values.value("hidden/kernel").master is None
    for a, b in zip(before, first.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    again = bw.PassManager([finetune()]).run(first, (X, Y))
    assert isinstance(again.graph["hidden/kernel"].encoding, Quantized)


# ---- a model that its owner changes


def trained(model: Any) -> None:
    model.compile("sgd", LOSS)
    model.fit(X, Y, verbose=0)


def assigned(model: Any) -> None:
    kernel = model.get_layer("out").kernel
    kernel.assign(kernel.numpy() + 1)


def statistics(model: Any) -> None:
    model(X, training=True)


def with_lora(model: Any) -> None:
    model.get_layer("hidden").enable_lora(2)


def popped(model: Any) -> None:
    model.pop()


def added(model: Any) -> None:
    model.add(layers.Dense(3, name="more"))


CHANGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "trained": (trained, "has other values"),
    "a value assigned": (assigned, "out/kernel has other values"),
    "statistics moved": (statistics, "bn/moving_mean has other values"),
    "LoRA": (with_lora, "LoRA was enabled on hidden"),
    "a layer popped": (popped, "layers were added, removed or exchanged"),
    "a layer added": (added, "layers were added, removed or exchanged"),
}


@pytest.mark.parametrize("name", list(CHANGES))
@pytest.mark.parametrize("saved_before", [False, True])
def test_a_changed_model_is_not_saved_or_run_as_if_it_were_not(name: str, saved_before: bool, tmp_path: Path) -> None:
    change, words = CHANGES[name]
    result = bw.PassManager([bw.Prune(0.5), bw.Quantize(4)]).run(network())
    path = tmp_path / "m.bw"
    if saved_before:
        result.save(path)
    before = path.read_bytes() if saved_before else None
    change(result.model)
    for use in (lambda: result.save(path), lambda: bw.PassManager([]).run(result)):
        with pytest.raises(ModelError, match=rf"{words}.*PassManager\(\[\]\).run\(result.model\)"):
            use()
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "LoRA"])
def test_the_advice_takes_the_changes_in_and_keeps_the_promises(name: str, tmp_path: Path) -> None:
    result = bw.PassManager([bw.Prune(0.5), bw.Quantize(4)]).run(network())
    held = result.graph["hidden/kernel"].encoding
    CHANGES[name][0](result.model)
    again = bw.PassManager([]).run(result.model)
    encoding = again.graph["hidden/kernel"].encoding
    assert isinstance(encoding, Masked)
    np.testing.assert_array_equal(encoding.mask, held.mask)
    kernel = again.model.get_layer("hidden").kernel.numpy()
    np.testing.assert_array_equal(encoding.project(kernel), kernel)
    again.save(tmp_path / "m.bw")
    loaded = bw.load(tmp_path / "m.bw")
    np.testing.assert_array_equal(loaded(X[:4]), again.model(X[:4]))
    if name == "a layer added":
        assert not isinstance(again.graph["more/kernel"].encoding, Masked)


def test_calls_that_move_seeds_only_are_no_change(tmp_path: Path) -> None:
    result = bw.PassManager([bw.Quantize(4)]).run(network())
    result.model.predict(X, verbose=0)
    result.model.get_layer("drop")(X, training=True)
    result.save(tmp_path / "m.bw")
    bw.PassManager([]).run(result)


@pytest.mark.parametrize("form", ["functional", "sequential", "nested twice"])
def test_a_compressed_model_in_a_larger_one_keeps_its_promises(form: str) -> None:
    inner = bw.PassManager([bw.Prune(0.5), bw.Quantize(4)]).run(network())
    held = {path.split("/")[0]: inner.graph[path].encoding for path in ("hidden/kernel", "out/kernel")}
    x = keras.Input((8,))
    if form == "functional":
        larger = keras.Model(x, layers.Dense(2, name="head")(inner.model(x)))
    elif form == "sequential":
        larger = keras.Sequential([x, layers.Dense(8, name="first"), inner.model, layers.Dense(2, name="head")])
    else:
        middle = keras.Sequential([keras.Input((8,)), inner.model])
        larger = keras.Model(x, layers.Dense(2, name="head")(middle(x)))
    result = bw.PassManager([finetune()]).run(larger, (X, Y))
    found = {p.layer.split("/")[-1]: p for p in result.graph if p.path.endswith("/kernel")}
    for layer, encoding in held.items():
        kept = found[layer].encoding
        assert encoding.broken_by(kept) is None
        values = result.graph.values[found[layer].path]
        np.testing.assert_array_equal(kept.project(values), values)
    assert found["head"].encoding.mask is None


@pytest.fixture(scope="module")
def compressed() -> bw.Result:
    return bw.PassManager([bw.Prune(0.5), bw.Quantize(2, activations=8), finetune()]).run(network(), (X, Y), (X, Y))


def test_a_result_that_was_sent_is_the_same(compressed: bw.Result) -> None:
    again = bw.Result.from_bytes(compressed.to_bytes())
    np.testing.assert_array_equal(again.model.predict(X, verbose=0), compressed.model.predict(X, verbose=0))
    assert str(again.report) == str(compressed.report)
    assert again.to_bytes() == compressed.to_bytes()
    assert [p.encoding.describe() for p in again.graph] == [p.encoding.describe() for p in compressed.graph]
    assert again.graph.activations.keys() == compressed.graph.activations.keys() != set()


def test_a_released_result_is_sent_without_its_masters() -> None:
    result = bw.PassManager([bw.Quantize(2)]).run(network())
    whole = len(result.to_bytes())
    result.release()
    floats = sum(4 * p.size for p in result.graph if p.role == "kernel")
    assert len(result.to_bytes()) < whole - floats // 2
    assert not bw.Result.from_bytes(result.to_bytes()).graph.values.masters()


def test_a_result_that_cannot_be_sent_says_why() -> None:
    class Unknown(keras.Model):  # type: ignore[misc]
        def __init__(self, width: int) -> None:
            super().__init__()
            self.dense = layers.Dense(width)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    model = Unknown(3)
    model(X)
    result = bw.PassManager([bw.Quantize(4)]).run(model)
    with pytest.raises(FileError, match="to_bytes: the model could not be built"):
        result.to_bytes()
    changed = bw.PassManager([bw.Quantize(4)]).run(network())
    changed.model.layers[0].kernel.assign(changed.model.layers[0].kernel + 1)
    with pytest.raises(ModelError, match="changed since the run"):
        changed.to_bytes()


def test_what_is_no_result_is_refused(compressed: bw.Result, tmp_path: Path) -> None:
    compressed.save(tmp_path / "m.bw")
    with pytest.raises(CorruptFileError, match=r"a \.bw file.*bitwidth\.load"):
        bw.Result.from_bytes((tmp_path / "m.bw").read_bytes())
    (tmp_path / "c.bw").write_bytes(compressed.to_bytes())
    with pytest.raises(CorruptFileError, match=r"Result\.from_bytes"):
        bw.load(tmp_path / "c.bw")


def test_a_checkpoint_whose_report_is_none_is_refused(compressed: bw.Result) -> None:
    with open_checkpoint(compressed.to_bytes()) as checkpoint:
        stored, masters, report = checkpoint.file.stored(), checkpoint.masters, dict(checkpoint.report)
    assert bw.Result.from_bytes(pack_checkpoint(stored, pack(stored).data, masters, report)).size == compressed.size
    del report["planned"]
    with pytest.raises(CorruptFileError, match="checkpoint: this does not describe a report: KeyError: 'planned'"):
        bw.Result.from_bytes(pack_checkpoint(stored, pack(stored).data, masters, report))
    assert repr(compressed).startswith("<Result 'sequential")


def test_a_report_costs_nothing_until_its_sizes_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[StoredModel] = []

    def counted(model: StoredModel) -> Any:
        calls.append(model)
        return pack(model)

    monkeypatch.setattr("bitwidth.result.pack", counted)
    result = bw.PassManager([bw.Quantize(4)]).run(network())
    assert result.report.passes
    assert result.report.complete
    assert not calls
    first = str(result.report).splitlines()[0]
    assert f"-> {result.size:,} in the file" in first
    assert sum(result.report.file_bytes.values()) < result.size
    assert len(calls) == 1


def test_a_report_does_not_hold_the_model_once_it_was_printed() -> None:
    result = bw.PassManager([bw.Quantize(4)]).run(network())
    report, model = result.report, weakref.ref(result.model)
    text = str(report)
    del result
    gc.collect()
    assert model() is None
    assert str(report) == text
