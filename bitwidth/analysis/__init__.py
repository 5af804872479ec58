"""What a pass may ask about a model: named questions with numpy answers, made of a few primitives of the backend."""

from bitwidth.analysis.fidelity import fidelity, fidelity_to
from bitwidth.analysis.fisher import Fisher
from bitwidth.analysis.moments import InputMoments
from bitwidth.analysis.ranges import ActivationRanges

__all__ = ["ActivationRanges", "Fisher", "InputMoments", "fidelity", "fidelity_to"]
