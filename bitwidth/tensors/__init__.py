"""How one tensor is held in few bits.

Encodings, their levels and blocks, scale search, and the entropy coder. Numpy only.
"""

from bitwidth.tensors.blocks import Granularity, block_of, block_reduce, check_granularity, grid_shape, spread
from bitwidth.tensors.dense import Dense, Format
from bitwidth.tensors.encoding import Encoding, EncodingState, encoding_from_state, register_encoding
from bitwidth.tensors.floats import least_format, small_format
from bitwidth.tensors.leading import PrefixLevels
from bitwidth.tensors.levels import MAX_BITS, IntegerLevels, Levels, TableLevels, uniform_levels
from bitwidth.tensors.masked import Masked, masked, rebased
from bitwidth.tensors.matrices import Arrangement, Moments, plain_matrix
from bitwidth.tensors.planes import BitPlanes, bitplanes
from bitwidth.tensors.prefix import magnitude_bits, ordered, prefix
from bitwidth.tensors.quantized import Quantized
from bitwidth.tensors.scales import ScaleMethod, fit_scale

__all__ = [
    "MAX_BITS",
    "Arrangement",
    "BitPlanes",
    "Dense",
    "Encoding",
    "EncodingState",
    "Format",
    "Granularity",
    "IntegerLevels",
    "Levels",
    "Masked",
    "Moments",
    "PrefixLevels",
    "Quantized",
    "ScaleMethod",
    "TableLevels",
    "bitplanes",
    "block_of",
    "block_reduce",
    "check_granularity",
    "encoding_from_state",
    "fit_scale",
    "grid_shape",
    "least_format",
    "magnitude_bits",
    "masked",
    "plain_matrix",
    "ordered",
    "prefix",
    "rebased",
    "register_encoding",
    "small_format",
    "spread",
    "uniform_levels",
]
