"""Versions 1 and 2 of the file, which are read for ever and no longer written.

Here belongs what is particular to them: a header of plain JSON, and a chunk or several for each parameter.
"""

from bitwidth.artifact.earlier.header import PLANES, parse
from bitwidth.artifact.earlier.streams import parameters

__all__ = ["PLANES", "parameters", "parse"]
