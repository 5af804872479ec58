"""Records of what happened, and the report that shows them.

Here belongs what compares a graph before a pass with the graph after, and how the outcome is shown. What a pass says of
itself (skips, remarks) reaches it as data; nothing here runs, measures or writes a file.
"""

from bitwidth.report.records import ParameterRecord, PassRecord, compare, distortion, packed_bytes
from bitwidth.report.report import FileSize, Report, Weigh

__all__ = ["FileSize", "ParameterRecord", "PassRecord", "Report", "Weigh", "compare", "distortion", "packed_bytes"]
