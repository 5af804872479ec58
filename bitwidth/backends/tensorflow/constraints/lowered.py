"""`Lowering`: one encoding as TensorFlow operations over state that may change while a model trains.

The forward arithmetic is that of `Encoding.project`, operation by operation; the gradient passes straight through to
the master (Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons", section 4), except
where a mask holds the value at zero. What passes change while a model trains (scales, bounds, levels, masks) lives in
variables, so that it can change without a retrace; what training itself learns lives in Keras variables beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf

from bitwidth.backends.tensorflow.internals.types import TFTensor
from bitwidth.encodings import Encoding
from bitwidth.errors import EncodingError
from bitwidth.typing import Array

Arrays = dict[str, Array]


@final
class LearnedVariable(keras.Variable):  # type: ignore[misc]
    """What training learns about an encoding: tracked by the model while its views are attached."""


class Lowering(ABC):
    """One encoding as TensorFlow operations over state variables.

    Attributes:
        state: the variables that hold what may change without a retrace, by name.
        learned: what trains besides the master, all zero where nothing has been learned; empty before `learn`.
    """

    def __init__(self, encoding: Encoding, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.learned: tuple[LearnedVariable, ...] = ()
        self._known: WeakKeyDictionary[Encoding, Arrays] = WeakKeyDictionary()
        self._now = self.arrays(encoding)
        self.state = {
            name: tf.Variable(array, trainable=False, name=f"view_{name}", dtype=array.dtype)
            for name, array in self._now.items()
        }

    @abstractmethod
    def arrays(self, encoding: Encoding) -> Arrays:
        """The arrays of the state that belongs to `encoding`."""

    @abstractmethod
    def read(self, master: TFTensor, *learned: TFTensor) -> TFTensor:
        """The value the layer reads: a float32 tensor of the master's shape.

        Args:
            master: float32 tensor.
            learned: the values of `self.learned`, in its order.
        """

    def learn(self, paid: bool = False) -> None:  # noqa: B027 - most encodings have nothing to learn
        """Make what this encoding can learn trainable: `learned` is filled.

        Args:
            paid: whether code length is paid for, so that a step can be as coarse as that makes it.
        """

    def slopes(self, master: TFTensor, value: TFTensor, upstream: TFTensor, *learned: TFTensor) -> tuple[TFTensor, ...]:
        """Gradients of `learned`, in its order.

        Args:
            master: what was read through the view.
            value: what `read` gave for it.
            upstream: the gradient of that value; zero where nothing is to be learned.
            learned: as for `read`.
        """
        return ()

    def update(self, encoding: Encoding) -> None:
        """Change the state to that of another encoding of the same structure; what is the same is left alone.

        Raises:
            EncodingError: the structure differs, so the view has to be rebuilt.
        """
        arrays = self._known.get(encoding)
        if arrays is None:
            arrays = self._known[encoding] = self.arrays(encoding)
        if {name: a.shape for name, a in arrays.items()} != {name: tuple(v.shape) for name, v in self.state.items()}:
            raise EncodingError(f"{encoding.describe()} has another structure than the encoding under training")
        changed = {name for name, array in arrays.items() if not same(array, self._now[name])}
        for name in changed:
            self.state[name].assign(arrays[name])
        self._now = arrays
        self.changed(changed)

    def changed(self, names: set[str]) -> None:  # noqa: B027 - nothing to do by default
        """Called after `update` with the names of the state that it changed."""

    def baked(self, encoding: Encoding, master: Array) -> Encoding:
        """`encoding` with what training has learned put into it: scales, levels, and the master's escaped values.

        Args:
            encoding: the encoding under training.
            master: the trained master, float32 of the tensor's shape.
        """
        return encoding


def same(left: Array, right: Array) -> bool:
    """Whether two arrays hold the same numbers; at once where they are one array."""
    return left is right or bool(np.array_equal(left, right))


def learned_variable(shape: Sequence[int], name: str) -> LearnedVariable:
    """A float32 variable of zeros that trains, in float32 whatever the policy of the model."""
    return LearnedVariable(
        np.zeros(tuple(shape), np.float32), dtype="float32", trainable=True, name=name, autocast=False
    )
