"""Progress on a terminal, as Keras draws it."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from bitwidth.events import Event

_PATIENCE = 3.0  # seconds: what is over sooner is not drawn
_BETWEEN = 0.1  # seconds between two drawings
_WIDTH = 20


class Bar:
    """One line for each pass that takes longer than a few seconds."""

    def __init__(self, stream: TextIO | None = None, patience: float = _PATIENCE) -> None:
        self._stream = stream or sys.stdout
        self._patience = patience
        self._started: dict[tuple[str, ...], float] = {}
        self._drawn = 0.0
        self._is_open = False

    def __call__(self, event: Event, done: int, total: int | None) -> None:
        """Draw what there is to draw of an event."""
        now = time.monotonic()
        if event.kind == "pass_started":
            self._started[event.pass_path] = now
            return
        elapsed = now - self._started.get(event.pass_path, now)
        if event.kind == "step" and elapsed >= self._patience and now - self._drawn >= _BETWEEN:
            self._drawn, self._is_open = now, True
            self._stream.write(f"\r{_line(event, done, total, elapsed)}\x1b[K")
            self._stream.flush()
        elif event.kind in ("pass_done", "cancelled"):
            if event.kind == "pass_done" and elapsed >= self._patience:
                self._stream.write(f"\r{_name(event)} \x1b[1m{elapsed:.0f}s\x1b[0m\x1b[K\n")
            elif self._is_open:
                self._stream.write("\n")
            self._is_open = False
            self._stream.flush()


def is_terminal() -> bool:
    """Whether standard output is one."""
    return bool(getattr(sys.stdout, "isatty", lambda: False)())


def _name(event: Event) -> str:
    return " > ".join(event.pass_path)


def _line(event: Event, done: int, total: int | None, elapsed: float) -> str:
    each = elapsed / max(1, done)
    pace = f"{each:.0f}s/step" if each >= 1 else f"{each * 1e3:.0f}ms/step"
    if total is None:
        return f"{_name(event)} \x1b[1m{done}/?\x1b[0m \x1b[1m{elapsed:.0f}s\x1b[0m {pace}"
    full = min(_WIDTH, _WIDTH * done // max(1, total))
    bar = f"\x1b[32m{'━' * full}\x1b[0m\x1b[37m{'━' * (_WIDTH - full)}\x1b[0m"
    left = "" if event.seconds_left is None else f"\x1b[1m{event.seconds_left:.0f}s\x1b[0m "
    strength = "" if event.strength is None else f" - strength: {event.strength:.2f}"
    return f"{_name(event)} \x1b[1m{done}/{total}\x1b[0m {bar} {left}{pace}{strength}"
