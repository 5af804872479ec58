"""`Distill`: train the model towards what another one gives, the original by default; labels are not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from math import inf
from typing import Any, Literal

import numpy as np
from typing_extensions import override

from bitwidth.analysis import Fisher
from bitwidth.backend import Teaching, Training
from bitwidth.context import Context, check_choice
from bitwidth.errors import ConfigError
from bitwidth.graph import Graph
from bitwidth.passes.finetune import Finetune
from bitwidth.passes.keywords import keywords_from
from bitwidth.typing import is_number

_NO_TEACHERS = (type, str, bytes, bool, int, float, complex, set, np.generic)
Pairs = Mapping[str, str] | Sequence[str] | None
_RECOVERY = frozenset({"bias", "scale", "offset"})


@keywords_from(1)
@dataclass(frozen=True)
class Distill(Finetune, name="distill"):
    """Train under every mask and grid in force, towards the outputs of a teacher: the model as it was opened.

    The loss is (1 - alpha) D + alpha L, D being the divergence of the model's outputs from the teacher's and L the loss
    on labels (Hinton et al. 2015, "Distilling the knowledge in a neural network", section 2). Outputs are read as
    `Fisher` reads them: of logits, and of probabilities behind a softmax, D is T^2 KL at the temperature T; behind a
    sigmoid the same of each yes or no; of an output that is a mean, the squared error over the variance of the
    teacher's. D is a mean over samples and positions, and the sum over outputs. The history has both: `distillation`,
    and `label_loss` where there are labels and a loss.

    The teacher is called as in inference, is never trained, and is in no file. Where it is not given, the values are
    those that the model had when the run, or `bitwidth.open`, took it in, before any pass.

    Attributes:
        temperature: T, above 0: the higher, the more the less likely classes count.
        alpha: weight of the loss on labels, from 0 to 1. At 0 labels are not needed; those that are there are measured.
        teacher: a model of the same framework that takes the inputs and gives outputs of the same shapes; or its
            outputs, an array, or arrays nested as the model returns them, one row for each sample of data that is
            arrays. None for the model as it was.
        features: layers whose outputs are to be like the teacher's too, by path: a list, or a mapping from those of the
            model to those of the teacher. The first output of the first call counts. Where the last axes differ, a
            linear map is learned from the one to the other and dropped at the end (Romero et al. 2015, "FitNets",
            section 2); other axes have to agree. Each adds its squared error over the mean square of the teacher's.
        attention: attention layers whose maps are to be like the teacher's, given in the same way: each adds
            the KL of its rows, mean over heads and positions. Heads have to agree.
        only: `"norms_and_biases"` trains biases, and the scales and offsets of normalisations, alone. None for all.
        epochs: as of `Finetune`, like all other fields. `loss` is for the labels. Where nobody chose a learning rate,
            Keras's own is taken: there is no label to overfit.

    Raises:
        ConfigError: a field is out of its range.

    Example:
        >>> import bitwidth as bw
        >>> import keras
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
        >>> inputs = np.random.default_rng(0).random((64, 8), np.float32)
        >>> result = bw.PassManager([bw.Prune(0.5), bw.Distill(epochs=2)]).run(model, inputs)
        >>> sorted(result.report.passes[1].history)
        ['distillation', 'loss']
    """

    _: KW_ONLY
    temperature: float = 2.0
    alpha: float = 0.0
    teacher: Any = None
    features: Pairs = None
    attention: Pairs = None
    only: Literal["norms_and_biases"] | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.temperature) or not 0 < self.temperature < inf:
            raise ConfigError(f"Distill: temperature must be a finite number above 0, got {self.temperature!r}")
        if not is_number(self.alpha) or not 0 <= self.alpha <= 1:
            raise ConfigError(f"Distill: alpha must be a number from 0 to 1, got {self.alpha!r}")
        if isinstance(self.teacher, _NO_TEACHERS) or getattr(self.teacher, "shape", None) == ():
            raise ConfigError(f"Distill: teacher must be a model, or its outputs as arrays, got {self.teacher!r}")
        check_choice(self.only, ("norms_and_biases", None), "Distill", "only")
        for name in ("features", "attention"):
            object.__setattr__(self, name, _pairs(getattr(self, name), name))

    @override
    def check(self, graph: Graph, context: Context) -> None:
        """There are data, a teacher that fits, and labels with a loss where `alpha` is above 0."""
        if self.only is not None and not self._only(graph):
            raise ConfigError('Distill: only="norms_and_biases", and the model has none that train')
        super().check(graph, context)

    @override
    def _training(self, graph: Graph, context: Context) -> Training:
        likelihoods = Fisher().likelihoods(graph)
        teaching = Teaching(
            self.teacher,
            likelihoods,
            float(self.temperature),
            float(self.alpha),
            features=tuple(self.features.items()) if isinstance(self.features, Mapping) else (),
            attention=tuple(self.attention.items()) if isinstance(self.attention, Mapping) else (),
        )
        return replace(super()._training(graph, context), teaching=teaching)

    @override
    def _only(self, graph: Graph) -> frozenset[str] | None:
        if self.only is None:
            return None
        return frozenset(item.path for item in graph if item.role in _RECOVERY and item.trainable)


def _pairs(given: Any, field: str) -> Any:
    """The layers of the model with those of the teacher, as a mapping; None for none.

    Raises:
        ConfigError: it is anything else than a list of names or a mapping between names.
    """
    if given is None:
        return None
    pairs = given if isinstance(given, Mapping) else None
    names: list[Any] = list(given) if isinstance(given, list | tuple | Mapping) else []
    if not names or not all(isinstance(name, str) and name for name in (*names, *(pairs or {}).values())):
        raise ConfigError(
            f"Distill: {field} must be a list of the paths of layers, or a mapping from the model's to the teacher's, "
            f"got {given!r}"
        )
    return dict(pairs or zip(names, names, strict=True))
