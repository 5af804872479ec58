"""Encodings of values that are all multiplied by one number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitwidth.encodings.dense import Dense
from bitwidth.encodings.encoding import Encoding
from bitwidth.encodings.masked import rebased
from bitwidth.encodings.quantized import Quantized
from bitwidth.errors import EncodingError


def scaled(encoding: Encoding, factor: float) -> Encoding:
    """The encoding that holds `factor` times what `encoding` holds: of a grid, with the same codes.

    Raises:
        EncodingError: the encoding is of a kind whose values cannot be scaled: a float format, an escape.

    Example:
        >>> from bitwidth.encodings import IntegerLevels
        >>> grid = Quantized(IntegerLevels.symmetric(4), np.array([[0.5]], np.float32), (1, 4))
        >>> scaled(grid, 3.0).scale
        array([[1.5]], dtype=float32)
    """
    held = encoding.unmasked
    if isinstance(held, Dense) and held.format is None:
        return encoding
    if not isinstance(held, Quantized):
        raise EncodingError(f"what is held as {encoding.describe()} cannot be scaled")
    number = np.float32(factor)
    bias = None if held.bias is None else held.bias * number
    return rebased(encoding, replace(held, scale=held.scale * number, bias=bias))
