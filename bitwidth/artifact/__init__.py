"""The .bw file: architecture, encodings and entropy-coded values in one file, written whole or not at all.

Here belongs the layout of a file, writing and reading it, its limits, and every check of what a stranger may have
written. The codes of single streams belong in `bitwidth.coder`, building a model from a file in `bitwidth.loading` and
the backend. Numpy only.
"""

from bitwidth.artifact.checkpoint import Checkpoint, open_checkpoint, pack_checkpoint
from bitwidth.artifact.differences import Diff, Difference, diff
from bitwidth.artifact.format.stored import Architecture, StoredModel, StoredParameter
from bitwidth.artifact.inspection import Inspection, inspect
from bitwidth.artifact.reader import OpenFile, open_file, read, read_content
from bitwidth.artifact.replacing import write_file
from bitwidth.artifact.writer import pack

__all__ = [
    "Architecture",
    "Checkpoint",
    "Diff",
    "Difference",
    "Inspection",
    "OpenFile",
    "StoredModel",
    "StoredParameter",
    "diff",
    "inspect",
    "open_checkpoint",
    "open_file",
    "pack",
    "pack_checkpoint",
    "read",
    "read_content",
    "write_file",
]
