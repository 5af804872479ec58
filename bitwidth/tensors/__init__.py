"""How one tensor is held in few bits.

Encodings, their levels and blocks, scale search, and the entropy coder. Numpy only.
"""

from bitwidth.tensors.blocks import Granularity, block_of, block_reduce, check_granularity, grid_shape, spread
from bitwidth.tensors.dense import Dense, Format
from bitwidth.tensors.encoding import Encoding, EncodingState, encoding_from_state, is_registered, register_encoding
from bitwidth.tensors.escape import Escaped
from bitwidth.tensors.escaping import Escape, escape
from bitwidth.tensors.fitting import fit
from bitwidth.tensors.floats import least_format, small_format
from bitwidth.tensors.leading import PrefixLevels
from bitwidth.tensors.levels import MAX_BITS, IntegerLevels, Levels, TableLevels, uniform_levels
from bitwidth.tensors.masked import Masked, masked, rebased
from bitwidth.tensors.matrices import Arrangement, Moments, plain_matrix
from bitwidth.tensors.planes import BitPlanes, bitplanes
from bitwidth.tensors.prefix import magnitude_bits, ordered, prefix
from bitwidth.tensors.quantized import Quantized
from bitwidth.tensors.rows import LevelRows
from bitwidth.tensors.rules import BitRule, Rule, check_rule, power_levels, rule_bits
from bitwidth.tensors.scales import ScaleMethod, fit_scale

__all__ = [
    "MAX_BITS",
    "Arrangement",
    "BitPlanes",
    "BitRule",
    "Dense",
    "Encoding",
    "EncodingState",
    "Escape",
    "Escaped",
    "Format",
    "Granularity",
    "IntegerLevels",
    "LevelRows",
    "Levels",
    "Masked",
    "Moments",
    "PrefixLevels",
    "Quantized",
    "Rule",
    "ScaleMethod",
    "TableLevels",
    "bitplanes",
    "block_of",
    "block_reduce",
    "check_granularity",
    "check_rule",
    "encoding_from_state",
    "escape",
    "fit",
    "fit_scale",
    "grid_shape",
    "is_registered",
    "least_format",
    "magnitude_bits",
    "masked",
    "ordered",
    "plain_matrix",
    "power_levels",
    "prefix",
    "rebased",
    "register_encoding",
    "rule_bits",
    "small_format",
    "spread",
    "uniform_levels",
]
