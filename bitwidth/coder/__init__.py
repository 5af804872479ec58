"""Lossless coders for integers, masks and arrays: rANS with small tables, in numpy.

Every stream is deterministic, self-contained given its decoder's arguments, and exactly consumed. Decoders take
untrusted bytes and raise `CorruptFileError` or return an array of the right shape (a checksum around the stream catches
the rest).

Here belongs what turns arrays into bytes and back. Which arrays a file holds, and in what order, belongs in
`bitwidth.artifact`.

Example:
    >>> import numpy as np
    >>> from bitwidth import coder
    >>> codes = np.array([0, -1, 0, 2, 0, 0])
    >>> coder.decode_integers(coder.encode_integers(codes), 6).tolist()
    [0, -1, 0, 2, 0, 0]
"""

from bitwidth.coder.arrays import decode_array, encode_array
from bitwidth.coder.codes import decode_codes, encode_codes, table_bytes
from bitwidth.coder.floats import decode_floats, encode_floats
from bitwidth.coder.integers import decode_integers, encode_integers
from bitwidth.coder.masks import decode_mask, encode_mask
from bitwidth.coder.planes import MAX_PLANES, decode_planes
from bitwidth.coder.rans import decode_symbols, encode_symbols, entropy_bits
from bitwidth.coder.residuals import base_of, decode_residuals, encode_residuals

__all__ = [
    "MAX_PLANES",
    "base_of",
    "decode_array",
    "decode_codes",
    "decode_floats",
    "decode_integers",
    "decode_mask",
    "decode_planes",
    "decode_residuals",
    "decode_symbols",
    "encode_array",
    "encode_codes",
    "encode_floats",
    "encode_integers",
    "encode_mask",
    "encode_residuals",
    "encode_symbols",
    "entropy_bits",
    "table_bytes",
]
