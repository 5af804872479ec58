"""`Fisher`: how strongly the model's output depends on each weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from bitwidth.context import Context, check_choice, check_count
from bitwidth.graph import Graph, Wiring, spec
from bitwidth.graph.paths import backward
from bitwidth.probes import Arrays, GradientProbe

Likelihood = Literal["categorical", "bernoulli", "gaussian"]
_PROBABILITIES: dict[str, Likelihood] = {"softmax": "categorical", "sigmoid": "bernoulli"}  # by the kind of operation


@dataclass(frozen=True)
class Fisher:
    """The diagonal of the Fisher information: the mean squared gradient of the log-likelihood of single samples.

    Labels are drawn from the model's own output distribution, which makes it the true Fisher; with the data's labels it
    is the "empirical" one, which vanishes where the model fits (Kunstner et al. 2019, "Limitations of the empirical
    Fisher approximation", section 3). Gradients are squared per sample, never per batch.

    Attributes:
        samples: how many samples are looked at, at most; the first ones of the data.
        labels: `"sampled"` from the model, or `"data"`.
        likelihood: what the outputs are the parameters of. `"auto"` reads it off the graph, per output: after a softmax
            probabilities, after a sigmoid probabilities of yes and no, else logits of as many classes as the last axis
            is long, or the mean of a Gaussian where it has length 1. The others: `"categorical"`, `"bernoulli"`,
            `"gaussian"`.

    Raises:
        ConfigError: a field is out of its range.

    Example:
        >>> Fisher(samples=256)
        Fisher(samples=256, labels='sampled', likelihood='auto')
    """

    samples: int = 1024
    labels: Literal["sampled", "data"] = "sampled"
    likelihood: Literal["auto"] | Likelihood = "auto"
    holds_while_near: ClassVar[bool] = True  # a ramp takes it again while the weights have moved little

    def __post_init__(self) -> None:
        check_count(self.samples, "Fisher", "samples")
        check_choice(self.labels, ("sampled", "data"), "Fisher", "labels")
        check_choice(self.likelihood, ("auto", "categorical", "bernoulli", "gaussian"), "Fisher", "likelihood")

    def check(self, graph: Graph, context: Context) -> None:
        """Raise before work starts if there are no data, or no targets where they are asked for."""
        context.session.check_data(context.need_data("Fisher"), "data", targets=self.labels == "data")

    def answer(self, graph: Graph, context: Context) -> Arrays:
        """Mean squared gradient per parameter path, each of the parameter's shape, float64."""
        probe = GradientProbe(self.samples, self.likelihoods(graph), self.labels, context.seed)
        return context.session.probe(graph, probe, context.need_data("Fisher"))

    def likelihoods(self, graph: Graph) -> tuple[str, ...]:
        """Per output of the model.

        The likelihood, and whether the output is `"logits"`, `"probabilities"` or a `"mean"`.
        """
        return tuple(self._likelihood(graph, output) for output in graph.structure.outputs)

    def describe(self, graph: Graph) -> str:
        """What was assumed, in words."""
        return f"labels {self.labels}, outputs taken as {', '.join(self.likelihoods(graph))}"

    def _likelihood(self, graph: Graph, output: str) -> str:
        last = _last_kind(Wiring(graph), output)
        shape = next((t.shape for t in graph.structure.tensors if t.name == output), None)
        single = shape is not None and (len(shape) < 2 or shape[-1] == 1)
        likelihood: str = self.likelihood
        if likelihood == "auto":
            likelihood = _PROBABILITIES.get(last, "gaussian" if single else "categorical")
        if likelihood == "gaussian":
            return "gaussian mean"
        return f"{likelihood} {'probabilities' if last in _PROBABILITIES else 'logits'}"


def _last_kind(wiring: Wiring, tensor: str) -> str:
    """The kind of the operation that computes a tensor, behind casts and reshapes; "" for an input of the model."""
    return next((op.kind for _, op in backward(wiring, tensor) if not spec(op).is_transparent), "")
