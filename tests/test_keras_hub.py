"""Backbones of keras-hub, small and with random weights: heads and MLPs found, shrunk and compared.

Their blocks make layers when they are built and derive the width of a head there, so that no configuration says fewer
heads. `functionalize` inlines them. keras-hub is not among the dependencies.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.errors import ModelError
from bitwidth.graph.labels import couple
from tests.nets import randomised

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of keras-hub and what it imports

_SIZES: dict[str, Any] = {"num_layers": 2, "num_heads": 4, "hidden_dim": 32}
_TEXT = {**_SIZES, "vocabulary_size": 60, "intermediate_dim": 48, "max_sequence_length": 12}


def backbone(name: str) -> Any:
    models = pytest.importorskip("keras_hub").models
    keras.utils.set_random_seed(0)
    if name == "vit":
        image = {"image_shape": (16, 16, 3), "patch_size": (4, 4)}
        return randomised(models.ViTBackbone(**_SIZES, **image, mlp_dim=48, dropout_rate=0.1))
    return randomised({"bert": models.BertBackbone, "gpt2": models.GPT2Backbone}[name](**_TEXT))


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_heads_and_mlps_are_found_and_shrunk(name: str) -> None:
    model = backbone(name)
    found = bw.functionalize(model)
    assert found.count_params() == model.count_params()
    own = {type(layer).__name__ for layer in found._flatten_layers() if not type(layer).__module__.startswith("keras.")}
    assert own == (set() if name == "vit" else {"PositionEmbedding"})  # it holds weights and no layers
    coupling = couple(bw.read(found))
    sizes = sorted(group.size for group in coupling.groups if group.exact)
    assert sizes == sorted([4, 8, 8, 48] * 2)  # of both blocks: heads, widths of keys and of values, the MLP
    assert {item.reason for item in coupling.frozen if item.path.endswith("gamma")} == {"model output"}
    result = bw.PassManager([bw.Shrink(keep=0.5)]).run(found)
    assert not any("left alone" in line for line in result.report.passes[0].remarks)
    kept = {group.name: range(group.size // 2) for group in coupling.groups if group.exact}
    held = sum(int(np.prod(variable.shape)) for variable in result.model.weights if "float" in variable.dtype)
    assert held == coupling.parameters(kept)


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_blocks_that_derive_their_sizes_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"is left of it, and the layer .* compress bw.functionalize\(model\)"):
        bw.PassManager([bw.Shrink(keep=0.5)]).run(backbone(name))
