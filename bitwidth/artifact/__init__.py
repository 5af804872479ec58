"""The .bw file: architecture, encodings and entropy-coded values in one file, written whole or not at all."""

from bitwidth.artifact.content import Content, StoredParameter
from bitwidth.artifact.inspection import Inspection, inspect
from bitwidth.artifact.reader import OpenFile, open_file, read_content
from bitwidth.artifact.replacing import write_file
from bitwidth.artifact.writer import pack

__all__ = [
    "Content",
    "Inspection",
    "OpenFile",
    "StoredParameter",
    "inspect",
    "open_file",
    "pack",
    "read_content",
    "write_file",
]
