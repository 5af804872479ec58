"""Fidelity: how near the outputs of a compressed model are to those of the model as it was given.

Accuracy is too noisy to steer by: on 5,000 images one standard error is about half a point, more than most passes cost.
The divergence of the outputs is not, and it needs no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwidth.analysis.fisher import Fisher
from bitwidth.context import Context
from bitwidth.graph import Graph
from bitwidth.probes import OutputProbe
from bitwidth.typing import Array

SAMPLES = 256  # that are looked at, at most
Outputs = Sequence[Array]
_LEAST = 1e-12  # of a probability, so that its logarithm is finite


def fidelity(likelihoods: Sequence[str], given: Outputs, now: Outputs) -> Mapping[str, float]:
    """The divergence of the outputs from those given.

    Args:
        likelihoods: per output, what it is: `"categorical logits"`, `"bernoulli probabilities"`, `"gaussian mean"`, ...
            as `Fisher.likelihoods` reads it.
        given: the outputs of the original, samples first.
        now: those of the compressed model on the same samples.

    Returns:
        `"kl"`: the Kullback-Leibler divergence of the distributions that the outputs stand for, from the original to
        the compressed model, in nats, as a mean over samples (and positions of a sequence); over several such outputs,
        the sum. `"output_error"`: of outputs that are means, the squared error over the variance of the original's, as
        a mean over such outputs. What no output is of is left out.

    Example:
        >>> teacher, student = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> {name: round(value, 4) for name, value in fidelity(["categorical logits"], [teacher], [student]).items()}
        {'kl': 0.0336}
    """
    divergences, errors = [], []
    for likelihood, before, after in zip(likelihoods, given, now, strict=False):
        if before.dtype.kind not in "fV" or before.shape != after.shape or not before.size:
            continue
        one, other = before.astype(np.float64), after.astype(np.float64)
        kind, _, form = likelihood.partition(" ")
        if kind == "categorical":
            each = _categorical(_log_probabilities(one, form), _log_probabilities(other, form))
            divergences.append(float(each.mean()))
        elif kind == "bernoulli":
            divergences.append(float(_bernoulli(_probability(one, form), _probability(other, form)).mean()))
        else:
            errors.append(_relative_error(one, other))
    found = {"kl": sum(divergences)} if divergences else {}
    return {**found, "output_error": float(np.mean(errors))} if errors else found


def divergences(likelihoods: Sequence[str], given: Outputs, now: Outputs) -> Mapping[str, NDArray[np.float64]]:
    """What each sample adds to `fidelity`: by the same names, arrays of shape (samples,) whose means those are.

    Example:
        >>> teacher, student = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> divergences(["categorical logits"], [teacher], [student])["kl"].round(3)
        array([0.067, 0.   ])
    """
    found: dict[str, list[NDArray[np.float64]]] = {}
    for likelihood, before, after in zip(likelihoods, given, now, strict=False):
        if before.dtype.kind not in "fV" or before.shape != after.shape or not before.size:
            continue
        one, other = before.astype(np.float64), after.astype(np.float64)
        kind, _, form = likelihood.partition(" ")
        if kind == "categorical":
            each = _categorical(_log_probabilities(one, form), _log_probabilities(other, form))
        elif kind == "bernoulli":
            each = _bernoulli(_probability(one, form), _probability(other, form))
        else:
            each = np.square(other - one) * (one.size / (float(np.square(one - one.mean(axis=0)).sum()) or 1.0))
        name = "kl" if kind in ("categorical", "bernoulli") else "output_error"
        found.setdefault(name, []).append(each.reshape(len(each), -1).mean(axis=1))
    errors = found.get("output_error", [])
    return {name: sum(arrays[1:], arrays[0]) / (len(errors) if name != "kl" else 1) for name, arrays in found.items()}


@dataclass(frozen=True)
class ModelOutputs:
    """The outputs of the model on the first samples of the data, an array for each; see `OutputProbe`."""

    samples: int = SAMPLES

    def answer(self, graph: Graph, context: Context) -> tuple[Array, ...]:
        """The outputs."""
        return context.session.probe(graph, OutputProbe(self.samples), context.need_data("ModelOutputs"))


def fidelity_to(graph: Graph, context: Context) -> Callable[[Graph], Mapping[str, float]]:
    """A function that compares a model with the one of `graph`, on samples of the validation data, else of the data.

    Args:
        graph: the model as it was given.
        context: of the run; there is data. Targets are not looked at.

    Raises:
        DataError: the model cannot be called on the data.
    """
    probe, likelihoods, session = OutputProbe(SAMPLES), Fisher().likelihoods(graph), context.session
    if context.validation is None:
        data = context.data
        given = context.ask(ModelOutputs(), graph)  # known already where the model was opened for many runs
    else:
        data = context.validation
        given = session.probe(graph, probe, data)

    def compared(now: Graph) -> Mapping[str, float]:
        return fidelity(likelihoods, given, session.probe(now, probe, data))

    return compared


def _log_probabilities(outputs: NDArray[np.float64], form: str) -> NDArray[np.float64]:
    if form == "probabilities":
        outputs = np.log(np.maximum(outputs, _LEAST))
    outputs = outputs - outputs.max(axis=-1, keepdims=True)
    normalised: NDArray[np.float64] = outputs - np.log(np.exp(outputs).sum(axis=-1, keepdims=True))
    return normalised


def _categorical(given: NDArray[np.float64], now: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each sample, and each position of a sequence."""
    each: NDArray[np.float64] = (np.exp(given) * (given - now)).sum(axis=-1)
    return each


def _probability(outputs: NDArray[np.float64], form: str) -> NDArray[np.float64]:
    if form != "probabilities":
        outputs = 0.5 * (1 + np.tanh(0.5 * outputs))
    clipped: NDArray[np.float64] = np.clip(outputs, _LEAST, 1 - _LEAST)
    return clipped


def _bernoulli(given: NDArray[np.float64], now: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each sample."""
    each = given * np.log(given / now) + (1 - given) * np.log((1 - given) / (1 - now))
    found: NDArray[np.float64] = each.reshape(len(each), -1).sum(axis=1)
    return found


def _relative_error(given: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    spread = float(np.square(given - given.mean(axis=0)).sum())
    error = float(np.square(now - given).sum())
    return error / spread if spread else float(error > 0)
