"""Conformance suites: what every pass and every encoding must do, whoever wrote it.

Use them in the tests of your own::

    from bitwidth.testing import check_encoding, check_pass

    def test_my_pass():
        check_pass(MyPass(...), model=my_small_model, data=(x, y))

    def test_my_encoding():
        check_encoding(MyEncoding(...), (3, 3, 8, 4))

Here belongs what authors of passes and encodings call in their tests: a module for each suite. Tests of the library's
own parts belong in `tests/`.
"""

from bitwidth.testing.encodings import (
    Evaluate,
    check_affine,
    check_encoding,
    check_encoding_file,
    check_encoding_promise,
    check_idempotence,
    check_lowering,
    check_mask,
    check_packed_bits,
    check_projection,
    check_selections,
    check_state,
    check_summary,
    example_values,
)
from bitwidth.testing.passes import (
    check_configuration,
    check_file,
    check_inside,
    check_pass,
    check_promises_kept,
    check_ramp,
    check_real_ramp,
    check_report,
    check_scope,
    inside,
)

__all__ = [
    "Evaluate",
    "check_affine",
    "check_configuration",
    "check_encoding",
    "check_encoding_file",
    "check_encoding_promise",
    "check_file",
    "check_idempotence",
    "check_inside",
    "check_lowering",
    "check_mask",
    "check_packed_bits",
    "check_pass",
    "check_projection",
    "check_promises_kept",
    "check_ramp",
    "check_real_ramp",
    "check_report",
    "check_scope",
    "check_selections",
    "check_state",
    "check_summary",
    "example_values",
    "inside",
]
