"""Which values to escape: `Escape`, the user's choice, and `escape`, which makes the encoding of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.encodings.blocks import block_reduce, spread
from bitwidth.encodings.encoding import Encoding, locked
from bitwidth.encodings.escape import Escaped
from bitwidth.errors import ConfigError, EncodingError
from bitwidth.typing import Array, is_number

Plane = Callable[[str, Array], Any]
BODY = 4.0  # values of so many times the mean magnitude of their block are of its body
Fitter = Callable[[NDArray[np.bool_]], Encoding]


@dataclass(frozen=True)
class Escape:
    """Which values are left beside the grid, in floating point. Exactly one of `plane`, `error` and `quantile`.

    Attributes:
        plane: the values themselves: a mapping from the paths of parameters to bool arrays, or a function of path and
            values to a bool array; None, or a path that is missing, for no value. Equality is by identity.
        error: those whose quantization error exceeds `error` times the scale of their block. The grid is that of the
            block's body, the values of at most four times its mean magnitude, since outliers would stretch it to
            themselves. A uniform grid misses what it does not clip by half a scale at most, so 1.0 takes what it
            clips by more than a step.
        quantile: those whose magnitude is above that quantile of the magnitudes, between 0 and 1: 0.995 takes one in
            two hundred.
        format: how an escaped value is stored: `"float32"`, `"float16"` or `"bfloat16"`.

    Raises:
        ConfigError: none or several of the three are given, or one is out of its range.

    Example:
        >>> Escape(quantile=0.99)
        Escape(plane=None, error=None, quantile=0.99, format='float32')
    """

    plane: Any = None
    error: float | None = None
    quantile: float | None = None
    format: Literal["float32", "float16", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        given = [name for name in ("plane", "error", "quantile") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(f"Escape: give one of plane, error and quantile, got {', '.join(given) or 'none'}")
        if not isinstance(self.format, str) or self.format not in ("float32", "float16", "bfloat16"):
            raise ConfigError(f"Escape: format must be float32, float16 or bfloat16, got {self.format!r}")
        for name in ("error", "quantile"):
            value = getattr(self, name)
            if value is not None and not is_number(value):
                raise ConfigError(f"Escape: {name} must be a number, got {value!r}")
        if self.error is not None and not 0 < self.error < np.inf:
            raise ConfigError(f"Escape: error must be a number of scales above 0, got {self.error!r}")
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise ConfigError(f"Escape: quantile must be between 0 and 1, got {self.quantile!r}")
        if isinstance(self.plane, Mapping):
            object.__setattr__(self, "plane", _Planes(self.plane))
        if self.plane is not None and (isinstance(self.plane, type) or not callable(self.plane)):
            raise ConfigError(f"Escape: plane must be a mapping of paths or a function, got {self.plane!r}")


class _Planes:
    """Planes by path, as a function."""

    def __init__(self, planes: Mapping[str, Any]) -> None:
        self._planes = {str(path): locked(plane) for path, plane in planes.items()}

    def __call__(self, path: str, values: Array) -> Array | None:
        return self._planes.get(path)

    @override
    def __repr__(self) -> str:
        return f"planes of {', '.join(self._planes) or 'nothing'}"


def escape(
    config: Escape, fitter: Fitter, values: Array, keep: NDArray[np.bool_] | None = None, path: str = ""
) -> Encoding:
    """The encoding of a tensor with some values escaped: the others are fitted without them.

    Args:
        config: which values.
        fitter: the base encoding, fitted to the values where its argument (bool, the tensor's shape) is True.
        values: the tensor, of any float dtype.
        keep: True where a mask keeps the value; None for everywhere. What a mask drops is never escaped.
        path: of the parameter, for a plane by path and for messages.

    Returns:
        `Escaped`, without a mask over it; or the base alone where nothing is escaped.

    Raises:
        EncodingError: a plane that does not fit, or an error in scales of an encoding that has none.

    Example:
        >>> from bitwidth.fitting import fit
        >>> x = np.array([0.1, -0.2, 0.3, 50.0], np.float32)
        >>> escape(Escape(quantile=0.7), lambda keep: fit("uniform", 4, x, (4,), keep=keep), x).describe()
        '4-bit x1, 1 as float32'
    """
    values = np.asarray(values, np.float32)
    kept = np.ones(values.shape, np.bool_) if keep is None else np.asarray(keep)
    plane = _chosen(config, fitter, values, kept, path) & kept
    base = fitter(kept & ~plane)
    return Escaped.of(values, plane, base, config.format) if plane.any() else base


def _chosen(
    config: Escape, fitter: Fitter, values: NDArray[np.float32], keep: NDArray[np.bool_], path: str
) -> NDArray[np.bool_]:
    if not keep.any():
        return np.zeros(values.shape, np.bool_)
    if config.quantile is not None:
        magnitude = np.abs(values)
        above: NDArray[np.bool_] = np.asarray(magnitude > np.quantile(magnitude[keep], config.quantile))
        return above
    if config.error is not None:
        whole = fitter(keep)
        if whole.grid is None:
            raise EncodingError(f"{path}: escaping by error needs a grid with scales, got {whole.describe()}")
        body = fitter(_body(values, keep, whole.grid.block)).grid
        grid = whole.grid if body is None else body
        missed = np.abs(grid.project(values) - values)
        beyond: NDArray[np.bool_] = np.asarray(missed > config.error * spread(grid.scale, grid.block, values.shape))
        return beyond
    given = config.plane(path, values)
    plane = np.zeros(values.shape, np.bool_) if given is None else np.asarray(given)
    if plane.dtype != np.bool_ or plane.shape != values.shape:
        raise EncodingError(
            f"{path}: a plane of escapes holds booleans of shape {values.shape}, got {plane.dtype} of {plane.shape}"
        )
    return plane


def _body(values: NDArray[np.float32], keep: NDArray[np.bool_], block: tuple[int, ...]) -> NDArray[np.bool_]:
    """The values of at most `BODY` times the mean magnitude of their block."""
    magnitude = np.where(keep, np.abs(values), np.float32(0))
    total, count = (block_reduce(array, block, np.add, np.float64) for array in (magnitude, keep))
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    body: NDArray[np.bool_] = keep & (magnitude <= BODY * spread(mean, block, values.shape))
    return body
