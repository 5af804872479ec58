"""The defaults of recipe format 1, those of version 0.1.0: format 1 left out every field that had its default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS_1: Mapping[str, Mapping[str, Any]] = {
    "correct_bias": {
        "samples": 2048,
        "sequential": False,
    },
    "equalize_layers": {
        "iterations": 20,
        "where": None,
    },
    "finetune": {
        "epochs": 1,
        "loss": None,
        "optimizer": None,
        "learning_rate": "own",
        "decay": "constant",
        "batch_size": 32,
        "steps_per_epoch": None,
        "class_weight": None,
        "callbacks": [],
        "loss_weights": None,
        "metrics": None,
        "jit_compile": None,
        "verbose": 0,
        "learn_steps": False,
    },
    "fold_batch_norm": {
        "where": None,
    },
    "prune": {
        "scope": "global",
        "criterion": "magnitude",
        "floor": 0.0,
        "where": None,
    },
    "quantize": {
        "bits": None,
        "granularity": None,
        "where": None,
        "scale": "mse",
        "rounding": "nearest",
        "vectors": "16-bit",
        "rate": None,
        "step": None,
        "rule": "uniform",
        "symmetric": True,
        "importance": None,
        "scope": "global",
        "activations": None,
        "ranges": "mse",
        "escape": None,
        "samples": 2048,
        "damping": 0.01,
        "price": 0.1,
    },
    "ramp": {
        "steps": 12,
        "end": 0.75,
        "shape": "cubic",
    },
    "reestimate_batch_norm": {
        "samples": 2048,
        "batch_size": 256,
    },
}
"""By the name of a pass, in the form that recipes have. A field that is added later, and whose default is not what the
library did before, gets its entry here with what it did."""
