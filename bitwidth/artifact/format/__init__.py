"""What every version of the file has in common: preamble, limits, what a header says, checks of what was decoded.

Here belongs nothing that is particular to one version. Numpy only.
"""
