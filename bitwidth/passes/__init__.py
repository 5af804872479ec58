"""Passes: graph in, new graph out, with contracts; and the manager that chains them.

Here belongs one module per pass, what passes are made of (`base`, `wrapping`), and recipes. A pass decides; how an
encoding is fitted belongs in `bitwidth.fitting`, what is measured in `bitwidth.analysis`, and what a model computes
under an encoding in the backend, which knows no passes.
"""

from bitwidth.passes.base import Pass, TrainingPass
from bitwidth.passes.bias import CorrectBias
from bitwidth.passes.compose import Repeat, Where
from bitwidth.passes.distill import Distill
from bitwidth.passes.equalize import EqualizeLayers
from bitwidth.passes.factorize import Factorize
from bitwidth.passes.finetune import Finetune
from bitwidth.passes.fold import FoldBatchNorm
from bitwidth.passes.manager import PassManager
from bitwidth.passes.nested import Nested
from bitwidth.passes.options import Activations, EntropyRounding, ErrorFeedback, PerGroup
from bitwidth.passes.patterns import Block
from bitwidth.passes.prune import Prune
from bitwidth.passes.quantize import Quantize
from bitwidth.passes.ramp import Ramp
from bitwidth.passes.registry import register_function, register_value
from bitwidth.passes.shrink import Shrink, ShrinkDense
from bitwidth.passes.statistics import ReestimateBatchNorm

__all__ = [
    "Activations",
    "Block",
    "CorrectBias",
    "Distill",
    "EntropyRounding",
    "EqualizeLayers",
    "ErrorFeedback",
    "Factorize",
    "Finetune",
    "FoldBatchNorm",
    "Nested",
    "Pass",
    "PassManager",
    "PerGroup",
    "Prune",
    "Quantize",
    "Ramp",
    "ReestimateBatchNorm",
    "Repeat",
    "Shrink",
    "ShrinkDense",
    "TrainingPass",
    "Where",
    "register_function",
    "register_value",
]
