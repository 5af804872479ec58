"""A training that pays for code length: the bits of all codes, times a price, as a term of the loss.

The term's value is that of the codes as they were counted last; its slope at each weight is the expected change of the
code length (`bitwidth.fitting.codelengths`), straight through the rounding. Lengths and price live in variables, so
that nothing is traced again when they change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
from typing_extensions import override

from bitwidth.backend import Coded, Pricing, Progress
from bitwidth.backends.tensorflow.constraints.grids import Grid
from bitwidth.backends.tensorflow.constraints.lowered import Lowering
from bitwidth.backends.tensorflow.internals.types import KerasCallback, ModelVariable, TFTensor
from bitwidth.backends.tensorflow.internals.variables import tf_variable
from bitwidth.backends.tensorflow.training.steering import Steering
from bitwidth.backends.tensorflow.training.terms import added
from bitwidth.errors import ConfigError
from bitwidth.fitting.codelengths import CodeLengths, code_lengths
from bitwidth.typing import Array

EVERY = 20  # steps between two counts of the codes
_COUNTS = 100  # in a short training they are counted more often: so many times in all


@contextmanager
def paying(pricing: Pricing, steering: Steering) -> Iterator[list[KerasCallback]]:
    """Within this context a compiled model, under constraints, pays for code length when it trains.

    Args:
        pricing: what it pays.
        steering: its constraints, and how far it has come.

    Yields:
        The Keras callbacks that count codes and ask for the price; they come before those of the user.

    Raises:
        ConfigError: the number of steps is not known, or a parameter is on no grid of integers.
    """
    if steering.total is None:
        raise ConfigError("a price needs the number of steps: give steps_per_epoch, the data has no length")
    tensors = [_Tensor(path, *found) for path, found in steering.constrained.trained(pricing.paths).items()]
    price = tf.Variable(0.0, trainable=False, name="price_of_a_bit", dtype=tf.float32)
    with added(steering.constrained.model, lambda: price * tf.add_n([tensor.bits() for tensor in tensors])):
        yield [_Counting(pricing, steering, tensors, price)]


@final
class _Tensor:
    """One parameter that is paid for.

    Args:
        path: its path.
        variable: its master.
        lowering: what it is read through.

    Raises:
        ConfigError: that is no grid of integers.
    """

    def __init__(self, path: str, variable: ModelVariable, lowering: Lowering) -> None:
        grid: Any = lowering
        over = []
        while not isinstance(grid, Grid):
            over.append(grid)
            grid = getattr(grid, "base", None)
            if grid is None:
                raise ConfigError(f"{path} is on no grid of integers: its code length cannot be paid for")
        self.path, self.shape = path, lowering.shape
        self._variable, self._lowering, self._grid = variable, lowering, grid
        self._kept = [layer.state["keep"] for layer in over if "keep" in layer.state]
        self._free = [layer.state["plane"] for layer in over if "plane" in layer.state]
        self.now = self._counted()
        self._state = {
            name: tf.Variable(getattr(self.now, name), trainable=False, name=f"code_{name}", dtype=tf.float32)
            for name in ("bits", "first", "further")
        }

    def count(self) -> None:
        """Take the lengths from the codes of this moment."""
        self.now = self._counted()
        for name, variable in self._state.items():
            variable.assign(getattr(self.now, name))

    def bits(self) -> TFTensor:
        """The bits of the codes as counted last, with the slope of each weight as it is now."""

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def read(master: TFTensor, *learned: TFTensor) -> tuple[TFTensor, Callable[..., Any]]:
            def gradient(upstream: TFTensor, variables: Any = None) -> Any:
                by_step, reciprocal, units = self._slope(master, learned)
                found = [upstream * by_step * reciprocal]
                if learned:  # a scale grows by the factor exp(r), and weights shrink by it in units of the step
                    found.append(-upstream * self._grid.summed(by_step * units) * self._grid.state["pace"])
                return found if variables is None else (found, [None] * len(variables))

            return tf.convert_to_tensor(self._state["bits"]), gradient

        learned = [tf.convert_to_tensor(tf_variable(variable)) for variable in self._lowering.learned]
        return read(tf.convert_to_tensor(tf_variable(self._variable)), *learned)

    def _slope(self, master: TFTensor, learned: tuple[TFTensor, ...]) -> tuple[TFTensor, TFTensor, TFTensor]:
        """Bits per step of each weight, the reciprocal of its step, and the weight in steps."""
        reciprocal = self._grid.scales(learned)[1]
        low, high = (tf.convert_to_tensor(end) for end in self._grid.ends(learned))
        first, further = (tf.convert_to_tensor(self._state[name]) for name in ("first", "further"))
        units, slope = _read(self._grid.centred(master) * reciprocal, low, high, first, further)
        for keep in self._kept:
            slope *= keep
        for free in self._free:
            slope = tf.where(free, 0.0, slope)
        return slope, reciprocal, units

    def _counted(self) -> CodeLengths:
        state = self._grid.state
        low, high = state["low"].numpy(), state["high"].numpy()
        reciprocal = np.asarray(self._grid.scales(self._lowering.learned)[1])
        units = np.asarray(self._grid.centred(tf.convert_to_tensor(tf_variable(self._variable)))) * reciprocal
        codes: Array = np.clip(np.rint(units), low, high).astype(np.int64)
        counts = [keep.numpy() > 0 for keep in self._kept] + [~free.numpy() for free in self._free]
        return code_lengths(codes[np.logical_and.reduce(counts)] if counts else codes)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _read(
    units: TFTensor, low: TFTensor, high: TFTensor, first: TFTensor, further: TFTensor
) -> tuple[TFTensor, TFTensor]:
    """Weights within their grid, in steps, and `CodeLengths.slope` there.

    Compiled even where the model is not: one pass over the values in place of ten.
    """
    units = tf.clip_by_value(units, low, high)
    size = tf.abs(units)
    near, far = 2.0 * tf.minimum(size, 0.5), tf.clip_by_value(size - 0.5, 0.0, 1.0)
    return units, tf.sign(units) * (near * first + far * (further - first))


@final
class _Counting(keras.callbacks.Callback):  # type: ignore[misc]
    """Counts codes every few steps, asks for the price, and writes both into the history."""

    def __init__(self, pricing: Pricing, steering: Steering, tensors: list[_Tensor], price: tf.Variable) -> None:
        super().__init__()
        self._pricing, self._steering, self._tensors, self._price = pricing, steering, tensors, price
        self._done = self._last = 0
        self._total = steering.total or 1
        self._every = max(1, min(EVERY, self._total // _COUNTS))

    @override
    def on_train_begin(self, logs: object = None) -> None:
        self._ask()

    @override
    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self._done += 1
        if self._done % self._every == 0:
            self._ask()

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._count()
        if logs is not None:
            counted = [tensor.now for tensor in self._tensors]
            sizes = [int(np.prod(tensor.shape)) for tensor in self._tensors]
            share = float(np.average([found.zeros for found in counted], weights=sizes))
            bits = sum(found.bits for found in counted)
            logs |= {"code_bytes": bits / 8, "price": float(self._price.numpy()), "zeros": share}

    @override
    def on_train_end(self, logs: object = None) -> None:
        self._count()
        for tensor in self._tensors:
            found = tensor.now
            line = f"{tensor.path}: about {found.bits / 8:,.0f} bytes of codes, {found.zeros:.1%} of them zero"
            self._steering.remarks.append(line)

    def _ask(self) -> None:
        self._count()
        bits = {tensor.path: tensor.now.bits for tensor in self._tensors}
        with self._steering.constrained.snapshot() as masters:
            price = self._pricing.price(Progress(self._done, self._total, self._last), Coded(bits, masters))
        self._last = self._done
        self._price.assign(price)

    def _count(self) -> None:
        for tensor in self._tensors:
            tensor.count()
