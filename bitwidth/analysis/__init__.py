"""What a pass may ask about a model: named questions with numpy answers, made of a few primitives of the backend.

Here belongs one frozen dataclass per question, with an `answer(graph, context)`. How the primitives are computed
belongs in the backend, what is done with an answer in `bitwidth.passes`, and how long it is kept in `bitwidth.answers`.
"""

from bitwidth.analysis.cost import Cost, LayerCost, cost_of
from bitwidth.analysis.fidelity import divergences, fidelity, fidelity_to
from bitwidth.analysis.fisher import Fisher
from bitwidth.analysis.moments import InputMoments
from bitwidth.analysis.ranges import ActivationRanges

__all__ = [
    "ActivationRanges",
    "Cost",
    "Fisher",
    "InputMoments",
    "LayerCost",
    "cost_of",
    "divergences",
    "fidelity",
    "fidelity_to",
]
