"""`Refused`: why a question about a graph has no answer, in place of one."""

from __future__ import annotations

from bitwidth.errors import BitwidthError


class Refused(BitwidthError):  # noqa: N818 - an answer, and no fault
    """A question about a graph has no answer that can be used, for a reason that goes into a report.

    Functions that may have no answer raise it, and whoever works through a model catches it once for each part: what
    is refused is skipped with the reason. No pass of the library lets it out; one that does ends the run.

    Attributes:
        reason: in words, to stand behind "skipped: ".

    Example:
        >>> try:
        ...     raise Refused("nothing reads its output")
        ... except Refused as refusal:
        ...     refusal.reason
        'nothing reads its output'
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
