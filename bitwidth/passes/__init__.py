"""Passes: graph in, new graph out, with contracts; and the manager that chains them."""

from bitwidth.passes.base import Pass, TrainingPass
from bitwidth.passes.compose import Ramp, Repeat, Where
from bitwidth.passes.finetune import Finetune
from bitwidth.passes.manager import PassManager
from bitwidth.passes.nested import Nested
from bitwidth.passes.prune import Prune
from bitwidth.passes.quantize import Quantize
from bitwidth.passes.registry import register_function

__all__ = [
    "Finetune",
    "Nested",
    "Pass",
    "PassManager",
    "Prune",
    "Quantize",
    "Ramp",
    "Repeat",
    "TrainingPass",
    "Where",
    "register_function",
]
