"""The .bw file: architecture, encodings and entropy-coded values in one file, written whole or not at all."""

from bitwidth.artifact.content import Content, StoredParameter
from bitwidth.artifact.reader import Inspection, inspect, read_content
from bitwidth.artifact.writer import pack, write_file

__all__ = ["Content", "Inspection", "StoredParameter", "inspect", "pack", "read_content", "write_file"]
