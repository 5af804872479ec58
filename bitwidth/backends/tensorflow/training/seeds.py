"""Seeds of layers that Keras drew: set from the seed of the run, so that runs repeat.

A `Dropout` without a seed draws one each time it is built. Two builds of a model with the same weights would train
differently, and differ in their files, though nobody asked for that. A seed that the user gave is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bitwidth.backends.tensorflow.internals.layers import layers_of, seed_generators
from bitwidth.typing import Model


def reset_drawn_seeds(model: Model) -> None:
    """Set the states of all seed generators whose seed Keras drew to a beginning of their own each.

    Args:
        model: a copy of the user's model.
    """
    for place, generator in enumerate(_drawn(model)):
        generator.state.assign([0, place << 20])


def set_drawn_seeds(model: Model, seed: int) -> None:
    """Set the seed of all seed generators whose seed Keras drew; each goes on from where it is.

    Args:
        model: a copy of the user's model.
        seed: of the run.
    """
    for generator in _drawn(model):
        generator.state.assign([seed % (1 << 31), generator.state[1]])


def _drawn(model: Model) -> Iterator[Any]:
    """The generators of the layers of a model, each once, that were given no seed."""
    seen: set[int] = set()
    for layer in layers_of(model):
        for generator in seed_generators(layer):
            if id(generator) not in seen and generator.get_config()["seed"] is None:
                seen.add(id(generator))
                yield generator
