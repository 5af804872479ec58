"""Probes: what can be asked of a model on data. A backend answers each kind; it leaves no trace in the model.

Here belong questions that need the framework, as records, and nothing that is done with the answers. A question that is
made of them, with numpy, belongs in `bitwidth.analysis`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitwidth.fitting import Moments
from bitwidth.typing import Array

Answer = TypeVar("Answer", covariant=True)
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Probe(Generic[Answer]):
    """A question about a model on data; its type says what the answer is.

    Attributes:
        samples: how many samples are looked at, at most; the first ones of the data.
    """

    samples: int


@dataclass(frozen=True, eq=False)
class Observed:
    """What was seen of one tensor.

    Attributes:
        low: least value.
        high: greatest value.
        values: float32, 1-D: an even selection of the values; empty where the data never reached the tensor.
    """

    low: float
    high: float
    values: NDArray[np.float32]


@dataclass(frozen=True)
class RangeProbe(Probe[Mapping[str, Observed]]):
    """Values that tensors take, by name.

    Attributes:
        tensors: names in `Graph.structure.tensors`.
    """

    tensors: tuple[str, ...]


@dataclass(frozen=True)
class MomentsProbe(Probe[Mapping[str, tuple[Moments, ...]]]):
    """What parameters are multiplied by: by path, one entry for each part of the parameter that is used by itself.

    An empty tuple stands for a parameter that no operation which sums over inputs uses.

    Attributes:
        paths: the parameters.
    """

    paths: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Paired:
    """What one use of a parameter multiplies it by in two models that run on the same data.

    Attributes:
        moments: of its features in the model that is asked about.
        cross: float32, (groups, inputs, inputs): mean of x yT, with y the features in the other model.
        mean: float32, (groups, inputs): mean of y.
    """

    moments: Moments
    cross: NDArray[np.float32]
    mean: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PairedMomentsProbe(Probe[Mapping[str, tuple[Paired, ...]]]):
    """What parameters are multiplied by here and in a model of other values, by path; see `MomentsProbe`.

    Attributes:
        paths: the parameters.
        values: what the other model has in the place of some values, by path.
    """

    paths: tuple[str, ...]
    values: Arrays


@dataclass(frozen=True)
class GradientProbe(Probe[Arrays]):
    """Mean over samples of the squared gradient of the log-likelihood of one sample, by parameter path.

    Attributes:
        likelihoods: per output, the likelihood and what the output is: `"categorical logits"`, say.
        labels: `"sampled"` from the model's own outputs, or those of the `"data"`.
        seed: of the sampling.
    """

    likelihoods: tuple[str, ...]
    labels: str
    seed: int


@dataclass(frozen=True)
class StatisticsProbe(Probe[Arrays]):
    """Means and variances that batch normalisations meet, by parameter path.

    The model computes as in inference, but each normalisation that is not frozen normalises by the statistics of the
    batch: means are averaged over batches, and variances are those of all batches together. A normalisation that was
    not reached, or computes within a loop, has no entry.

    Attributes:
        batch_size: samples of a batch, for data that is not batched yet.
    """

    batch_size: int


@dataclass(frozen=True)
class OutputProbe(Probe[tuple[Array, ...]]):
    """The outputs of the model in inference, in the order of `Graph.structure.outputs`, samples first.

    Asked again about the same data, the model is run on the same samples, though a dataset may shuffle; fewer are
    looked at where they take much memory.
    """
