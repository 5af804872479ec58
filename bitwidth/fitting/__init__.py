"""Which encoding holds a tensor best: rules, scale searches, codebooks, escapes, and rounding that knows the data.

Here belongs what looks at values (and at what the layer makes of them) and returns an encoding or codes. What an
encoding is belongs in `bitwidth.encodings`; which parameters are fitted, and when, in `bitwidth.passes`. Numpy only.
"""

from bitwidth.fitting.escaping import Escape, escape
from bitwidth.fitting.fitting import fit
from bitwidth.fitting.matrices import Arrangement, Moments, plain_matrix
from bitwidth.fitting.planes import BitPlanes, bitplanes
from bitwidth.fitting.rules import BitRule, Rule, check_rule, power_levels, rule_bits
from bitwidth.fitting.scales import ScaleMethod, fit_scale

__all__ = [
    "Arrangement",
    "BitPlanes",
    "BitRule",
    "Escape",
    "Moments",
    "Rule",
    "ScaleMethod",
    "bitplanes",
    "check_rule",
    "escape",
    "fit",
    "fit_scale",
    "plain_matrix",
    "power_levels",
    "rule_bits",
]
