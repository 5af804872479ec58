"""How the values of one tensor are held: encodings, their levels and blocks, and what each says of itself.

Here belongs what turns values into codes and back, exactly, and what a file or an exporter must know of it. How an
encoding is chosen for a tensor belongs in `bitwidth.fitting`, the bytes of its codes in `bitwidth.coder`. Numpy only.
"""

from bitwidth.encodings.affine import Affine
from bitwidth.encodings.blocks import Granularity, block_of, block_reduce, check_granularity, grid_shape, spread
from bitwidth.encodings.dense import FEW_MANTISSA_BITS, Dense, Format
from bitwidth.encodings.encoding import Encoding, EncodingState, encoding_from_state, is_registered, register_encoding
from bitwidth.encodings.escape import Escaped, escaped_places
from bitwidth.encodings.floats import least_format, small_format
from bitwidth.encodings.interface import Levels
from bitwidth.encodings.leading import PrefixLevels
from bitwidth.encodings.levels import MAX_BITS, IntegerLevels, TableLevels, uniform_levels
from bitwidth.encodings.masked import Masked, masked, pattern_of_mask, rebased
from bitwidth.encodings.narrowing import narrow, narrowed, signed, steps
from bitwidth.encodings.prefix import magnitude_bits, ordered, prefix
from bitwidth.encodings.quantized import Quantized
from bitwidth.encodings.rows import LevelRows
from bitwidth.encodings.scaling import scaled
from bitwidth.encodings.summary import EncodingSummary

__all__ = [
    "FEW_MANTISSA_BITS",
    "MAX_BITS",
    "Affine",
    "Dense",
    "Encoding",
    "EncodingState",
    "EncodingSummary",
    "Escaped",
    "Format",
    "Granularity",
    "IntegerLevels",
    "LevelRows",
    "Levels",
    "Masked",
    "PrefixLevels",
    "Quantized",
    "TableLevels",
    "block_of",
    "block_reduce",
    "check_granularity",
    "encoding_from_state",
    "escaped_places",
    "grid_shape",
    "is_registered",
    "least_format",
    "magnitude_bits",
    "masked",
    "narrow",
    "narrowed",
    "ordered",
    "pattern_of_mask",
    "prefix",
    "rebased",
    "register_encoding",
    "scaled",
    "signed",
    "small_format",
    "spread",
    "steps",
    "uniform_levels",
]
