"""Records of what happened, and the report that shows them."""

from bitwidth.report.records import ParameterRecord, PassRecord, compare, distortion, packed_bytes
from bitwidth.report.report import FileSize, Report, Weigh

__all__ = ["FileSize", "ParameterRecord", "PassRecord", "Report", "Weigh", "compare", "distortion", "packed_bytes"]
