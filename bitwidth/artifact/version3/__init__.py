"""Version 3 of the file: its header as few bytes, its parameters in groups that share streams.

Here belongs how what a file holds becomes the bytes of version 3, and back. What every version has in common (preamble,
limits, checks of what was decoded) belongs in `bitwidth.artifact`, versions 1 and 2 in `bitwidth.artifact.earlier`.
"""

from bitwidth.artifact.version3.describing import written
from bitwidth.artifact.version3.header import parse
from bitwidth.artifact.version3.reading import parameters
from bitwidth.artifact.version3.shares import with_pieces
from bitwidth.artifact.version3.writing import packed_chunks

__all__ = ["packed_chunks", "parameters", "parse", "with_pieces", "written"]
