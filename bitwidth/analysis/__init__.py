"""What a pass may ask about a model: named questions with numpy answers, made of a few primitives of the backend."""

from bitwidth.analysis.fisher import Fisher

__all__ = ["Fisher"]
