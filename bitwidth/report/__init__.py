"""Records of what happened, and the report that shows them."""

from bitwidth.report.records import ParameterRecord, PassRecord, compare, distortion, packed_bytes
from bitwidth.report.report import Report

__all__ = ["ParameterRecord", "PassRecord", "Report", "compare", "distortion", "packed_bytes"]
