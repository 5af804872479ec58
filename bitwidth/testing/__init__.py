"""Conformance suites: what every pass, every encoding and every backend must do, whoever wrote it.

Use them in the tests of your own::

    from bitwidth.testing import check_backend, check_encoding, check_pass

    def test_my_pass():
        check_pass(MyPass(...), model=my_small_model, data=(x, y))

    def test_my_encoding():
        check_encoding(MyEncoding(...), (3, 3, 8, 4))

    def test_my_backend():
        check_backend(make_my_small_model, data=(x, y))

Here belongs what authors of passes, encodings and backends call in their tests: a module for each suite. Tests of the
library's own parts belong in `tests/`.
"""

from bitwidth.testing.backends import (
    check_backend,
    check_bad_data,
    check_building,
    check_handing_over,
    check_measuring,
    check_opening,
    check_probes,
    check_sharing,
    check_training,
    check_writing,
)
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
    "check_backend",
    "check_bad_data",
    "check_building",
    "check_configuration",
    "check_encoding",
    "check_encoding_file",
    "check_encoding_promise",
    "check_file",
    "check_handing_over",
    "check_idempotence",
    "check_inside",
    "check_lowering",
    "check_mask",
    "check_measuring",
    "check_opening",
    "check_packed_bits",
    "check_pass",
    "check_probes",
    "check_projection",
    "check_promises_kept",
    "check_ramp",
    "check_real_ramp",
    "check_report",
    "check_scope",
    "check_selections",
    "check_sharing",
    "check_state",
    "check_summary",
    "check_training",
    "check_writing",
    "example_values",
    "inside",
]
