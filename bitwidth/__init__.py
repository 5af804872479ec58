"""bitwidth: compress trained Keras 3 / TensorFlow models.

A pass manager chains passes (prune, quantize, fine-tune, your own) over a graph of the model; the result is an ordinary
Keras model, a report, and a packed file. Importing this package does not import TensorFlow.

Example:
    >>> import bitwidth as bw
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(4)])
    >>> result = bw.PassManager([bw.Prune(sparsity=0.5, scope="local"), bw.Quantize(bits=4)]).run(model)
    >>> result.graph["hidden/kernel"].encoding.describe()
    '50.0% zero, 4-bit x16'
"""

import logging

from bitwidth import errors, moved
from bitwidth.analysis import Cost, Fisher
from bitwidth.artifact import Diff, Inspection, diff, inspect
from bitwidth.context import Context
from bitwidth.events import Event
from bitwidth.fitting import BitPlanes, BitRule, Escape, bitplanes
from bitwidth.graph import AllBut, Graph, Parameter
from bitwidth.loading import load
from bitwidth.passes import (
    Activations,
    Block,
    CorrectBias,
    Distill,
    EntropyRounding,
    EqualizeLayers,
    ErrorFeedback,
    Factorize,
    Finetune,
    FoldBatchNorm,
    Nested,
    Pass,
    PassManager,
    PerGroup,
    Prune,
    Quantize,
    Ramp,
    ReestimateBatchNorm,
    Repeat,
    Shrink,
    ShrinkDense,
    TrainingPass,
    Where,
    register_function,
    register_value,
)
from bitwidth.reading import Opened, cost, functionalize, open, read
from bitwidth.report import Report
from bitwidth.result import Result

__version__ = "0.1.0"
moved.install()
logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent until somebody listens

__all__ = [
    "Activations",
    "AllBut",
    "BitPlanes",
    "BitRule",
    "Block",
    "Context",
    "CorrectBias",
    "Cost",
    "Diff",
    "Distill",
    "EntropyRounding",
    "EqualizeLayers",
    "ErrorFeedback",
    "Escape",
    "Event",
    "Factorize",
    "Finetune",
    "Fisher",
    "FoldBatchNorm",
    "Graph",
    "Inspection",
    "Nested",
    "Opened",
    "Parameter",
    "Pass",
    "PassManager",
    "PerGroup",
    "Prune",
    "Quantize",
    "Ramp",
    "ReestimateBatchNorm",
    "Repeat",
    "Report",
    "Result",
    "Shrink",
    "ShrinkDense",
    "TrainingPass",
    "Where",
    "bitplanes",
    "cost",
    "diff",
    "errors",
    "functionalize",
    "inspect",
    "load",
    "open",
    "read",
    "register_function",
    "register_value",
]
