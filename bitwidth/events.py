"""What happens in a run while it runs: events, cancelling, deadlines.

Here belongs what follows a run from outside. What a run leaves behind belongs in `bitwidth.report`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Cancelled(BaseException):
    """A run was cancelled in the middle of a pass. It never leaves `PassManager.run`, and passes let it through."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a run. What is not known is None; new kinds may come.

    Attributes:
        kind: `"pass_started"`; `"pass_done"`; `"strength"`, when a ramp has changed its strength; `"step"`, after each
            step of a training; `"cancelled"`, when a run ends early.
        pass_path: the pass, and the passes around it, outermost first: `("passes[1] Ramp", "Prune")`.
        strength: of the ramp that is running, 0 to 1.
        sparsity: share of the floating point values that are zero, 0 to 1.
        bytes: packed size of the parameters, without entropy coding.
        seconds_left: until the training that is running ends, as far as its steps so far tell.

    Example:
        >>> Event("step", ("passes[0] Finetune",), seconds_left=12.5).sparsity is None
        True
    """

    kind: str
    pass_path: tuple[str, ...] = ()
    strength: float | None = None
    sparsity: float | None = None
    bytes: int | None = None
    seconds_left: float | None = None
    _watch: Watch | None = field(default=None, repr=False, compare=False)

    def cancel(self) -> None:
        """End the run: before the next step of training or the next pass. It returns the last verified state."""
        if self._watch is not None:
            self._watch.cancel("it was cancelled")


class Watch:
    """What follows a run, and may end it.

    Attributes:
        reason: why the run ends early; empty while it goes on.
        cut: the path of the first pass that was not done for that reason; empty where all were.
        strength: of the ramp that is running; None where none is.
    """

    def __init__(
        self,
        on_event: Callable[[Event], Any] | None = None,
        deadline: float | None = None,
        draw: Callable[[Event, int, int | None], None] | None = None,
    ) -> None:
        """Start the clock.

        Args:
            on_event: called with each event.
            deadline: seconds from now; None for none.
            draw: called with each event, the steps of training that are done, and all of them.
        """
        self.reason = ""
        self.cut: tuple[str, ...] = ()
        self.strength: float | None = None
        self._on_event, self._draw = on_event, draw
        self._deadline, self._started = deadline, time.monotonic()

    @property
    def is_active(self) -> bool:
        """Whether anybody follows the run: else training need not report its steps."""
        return self._on_event is not None or self._draw is not None or self._deadline is not None

    @property
    def stops(self) -> bool:
        """Whether the run has to end now."""
        if not self.reason and self._deadline is not None and time.monotonic() - self._started >= self._deadline:
            self.cancel(f"its deadline of {self._deadline:g} seconds passed")
        return bool(self.reason)

    def cancel(self, reason: str) -> None:
        """End the run at the next chance; the first reason counts."""
        self.reason = self.reason or reason

    def emit(self, kind: str, path: tuple[str, ...], done: int = 0, total: int | None = None, **known: Any) -> None:
        """Tell everybody what has happened."""
        event = Event(kind, path, strength=self.strength, _watch=self, **known)
        if self._draw is not None:
            self._draw(event, done, total)
        if self._on_event is not None:
            self._on_event(event)

    def steps(self, path: tuple[str, ...]) -> Steps:
        """What a backend calls after each step of a training."""
        return Steps(self, path)


class Steps:
    """The steps of one training.

    Attributes:
        interrupted: whether the training was ended before its last step.
    """

    def __init__(self, watch: Watch, path: tuple[str, ...]) -> None:
        self.interrupted = False
        self._watch, self._path = watch, path
        self._first = 0.0  # when the first step was done: it compiles, and tells nothing of those to come

    def __call__(self, done: int, total: int | None) -> bool:
        """Tell that `done` of `total` steps are done; whether the training has to end."""
        now = time.monotonic()
        self._first = self._first or now
        left = None
        if total is not None and done > 1:
            left = (now - self._first) / (done - 1) * (total - done)
        self._watch.emit("step", self._path, done, total, seconds_left=left)
        self.interrupted = self._watch.stops and (total is None or done < total)
        return self.interrupted
