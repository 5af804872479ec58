"""What a pass that steers leaves of the optimizer's state."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.backends.tensorflow.internals.compiled import momentums
from tests import zoo

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "plain sgd": lambda: keras.optimizers.SGD(0.05),
}


class Seen(keras.callbacks.Callback):  # type: ignore[misc]
    """The masters and the momentums of the first kernel, after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.masters: list[Any] = []
        self.momentums: list[Any] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        kernel = self.model.trainable_variables[0]
        self.masters.append(kernel.numpy())
        self.momentums.append(
            [m.numpy() for variable, m in momentums(self.model.optimizer) if variable.path == kernel.path]
        )


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_no_momentum_moves_what_is_masked(name: str) -> None:
    seen = Seen()
    rng = np.random.default_rng(0)
    data = zoo.batch("mlp", 64), rng.normal(size=(64, 3)).astype(np.float32)
    tune = bw.Finetune(epochs=2, loss="mse", optimizer=OPTIMIZERS[name](), batch_size=8, callbacks=(seen,))
    ramp = bw.Ramp(bw.Prune(0.5, where="hidden"), during=tune, steps=1, end=0.5)
    result = bw.PassManager([ramp]).run(zoo.MODELS["mlp"](), data)
    mask = result.graph["hidden/kernel"].encoding.mask
    assert mask is not None
    before, after = seen.masters[8], seen.masters[-1]
    np.testing.assert_array_equal(before[~mask], after[~mask])
    assert (before[mask] != after[mask]).all()
    for held in seen.momentums[-1]:
        assert not held[~mask].any()
        assert held[mask].any()
    assert len(seen.momentums[-1]) == (name != "plain sgd")
