"""Half of the units of every exact group of whole models, removed by `Shrink` without data.

The pass compares the smaller model with the original whose consumers' slices are zero, at the logits and within 1e-5,
before it goes on with it. All vectors of the models are random, and gammas have both signs.
"""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import pytest

import bitwidth as bw
from bitwidth.errors import ModelError
from bitwidth.graph.labels import couple
from tests import nets

SECONDS = 15.0  # of process time, for `Shrink` on an opened model
OPENINGS = 4.0  # on a slower machine: so many times what it takes to open the model
SUBCLASSED = ("residual_cnn", "tied_language")  # whose sizes stand in their code
SMALL = [name for name in nets.NETS if name not in (*nets.APPLICATIONS, *SUBCLASSED)]
ALL = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in nets.APPLICATIONS)]
HALVES = bw.PassManager([bw.Shrink(keep=0.5, criterion="magnitude", refit=False)])


def made(name: str) -> Any:
    keras.utils.set_random_seed(0)
    return nets.randomised(nets.NETS[name]())


def size(model: Any) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.variables if "float" in variable.dtype)


@pytest.mark.parametrize("name", ALL)
def test_half_of_every_exact_group(name: str) -> None:
    model = made(name)
    before = size(model)
    started = time.process_time()
    opened = bw.open(model)
    opening = time.process_time() - started
    coupling = couple(opened.graph)
    kept = {group.name: range(max(1, group.size // 2)) for group in coupling.groups if group.exact}
    started = time.process_time()
    smaller = HALVES.run(opened).model
    assert time.process_time() - started <= max(SECONDS, OPENINGS * opening)
    assert type(smaller) is type(model)
    assert coupling.parameters(kept) < before
    assert size(smaller) <= 1.02 * coupling.parameters(kept)
    assert size(model) == before


@pytest.mark.parametrize("name", SUBCLASSED)
def test_a_model_whose_code_holds_its_sizes_is_refused_and_stays(name: str) -> None:
    model = made(name)
    before = size(model)
    with pytest.raises(ModelError, match=r"nothing could be removed: .* is left of it, and the layer that its config"):
        HALVES.run(model)
    assert size(model) == before
