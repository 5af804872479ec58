"""What a backend must be able to do, and what a pass receives to ask it.

A backend opens a model and returns a `Session`: a copy of the model that can be written to, trained and measured
through graphs. Nothing here knows TensorFlow; `backend_for` finds the backend of a model when a model is first touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, Protocol

from bitwidth.artifact import Architecture as Architecture
from bitwidth.encodings import Encoding
from bitwidth.errors import UnsupportedModelError
from bitwidth.graph import Chains, Cut, Graph
from bitwidth.graph.labels import Removal
from bitwidth.probes import Answer, Probe
from bitwidth.typing import Array, CustomObjects, Data, Loss, Model

LayerInputs = Mapping[str, tuple[Encoding | None, ...]]
Stored = Callable[[], Iterator[tuple[Array, Encoding]]]
Change = Removal | Chains


@dataclass(frozen=True)
class Progress:
    """How far a run of training has come.

    Attributes:
        step: steps that are done, from 0 to `total`.
        total: steps of the whole run, at least 1.
        last: `step` when the schedule was asked before; itself at the first time.
    """

    step: int
    total: int
    last: int = 0

    @property
    def fraction(self) -> float:
        """The share that is done, from 0 to 1."""
        return min(1.0, self.step / self.total)

    @property
    def before(self) -> float:
        """The share that was done when the schedule was asked before."""
        return min(1.0, self.last / self.total)


Steer = Callable[[Progress, Graph], Graph]
Price = Callable[[Progress, "Coded"], float]


@dataclass(frozen=True)
class Objective:
    """What training minimises and what is measured. None stands for what the model was compiled with.

    Attributes:
        loss: a loss as `model.compile` takes it, or `{"class_name": ..., "config": ...}`.
        loss_weights: as `model.compile` takes them.
        metrics: metrics as `model.compile` takes them.
    """

    loss: Loss = None
    loss_weights: Any = None
    metrics: Any = None


@dataclass(frozen=True)
class Teaching:
    """What a model learns from besides labels: what another one gives for the same inputs.

    Attributes:
        teacher: a model of the framework, which is not trained; its outputs for each sample of the data, nested as the
            model's; None for the model as the session was opened with.
        likelihoods: what each output is, as `Fisher.likelihoods` reads it.
        temperature: by which logits are divided; the divergence is multiplied by its square.
        alpha: weight of the loss on labels; that of the divergence is 1 - alpha.
        features: pairs of layers, the model's and the teacher's, whose first outputs are to be alike.
        attention: pairs of attention layers whose maps are to be alike.
    """

    teacher: Any
    likelihoods: tuple[str, ...]
    temperature: float = 1.0
    alpha: float = 0.0
    features: tuple[tuple[str, str], ...] = ()
    attention: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Coded:
    """The bits of the codes of each parameter that is paid for, by path; and the masters, read as those of `Steer`."""

    bits: Mapping[str, float]
    masters: Graph


@dataclass(frozen=True)
class Pricing:
    """What a training pays for code length, besides what it minimises.

    Attributes:
        paths: the parameters that are paid for, of those that train; each on a grid of integers.
        price: called before the first step and every few steps: what a bit costs from then on, in units of the loss.
    """

    paths: frozenset[str]
    price: Price


@dataclass(frozen=True)
class Training:
    """One run of training.

    Attributes:
        objective: what is minimised.
        data: inputs and targets, as `model.fit` takes them.
        epochs: passes over the data.
        batch_size: samples per step, for data that is not batched yet.
        steps_per_epoch: steps that make an epoch; None for all of the data.
        optimizer: an optimizer as `model.compile` takes it, or `{"class_name": ..., "config": ...}`; None for a fresh
            one of the kind that the model was compiled with, else Adam.
        learning_rate: replaces the optimizer's own; `"own"` keeps it; None keeps what the user has chosen, and takes a
            gentle one where nobody has.
        decay: `"cosine"` lets the learning rate fall to zero along a half cosine, `"constant"` keeps it; None for a
            cosine where the optimizer is not the user's own and nothing else sets the rate.
        class_weight: as `model.fit` takes it.
        callbacks: Keras callbacks.
        jit_compile: as `model.compile` takes it; None for `"auto"`.
        validation: data to measure at each epoch's end.
        seed: of the order of the samples.
        verbose: as `model.fit` takes it.
        only: paths of the parameters to train; None for all that are trainable.
        learn: whether the scales of grids, and the levels of learned codebooks, train too. A backend that cannot may
            hold them unchanged.
        every_step: whether a pass that steers is asked after every step, and not only periodically during the run.
        settled: fraction of the run after which the pass that steers changes nothing any more: callbacks that wait for
            the best model, or stop when it gets no better, count from then on.
        teaching: what it learns from besides labels; None for labels alone.
        pricing: what it pays for code length; None for nothing.
        on_step: called after each step with how many are done, and how many there are where that is known; True ends
            the training there, as a whole step. None where nobody wants to know.
    """

    objective: Objective
    data: Data
    epochs: int = 1
    batch_size: int = 32
    steps_per_epoch: int | None = None
    optimizer: Any = None
    learning_rate: float | Literal["own"] | None = None
    decay: Literal["constant", "cosine"] | None = None
    class_weight: Any = None
    callbacks: tuple[Any, ...] = ()
    jit_compile: bool | None = None
    validation: Data = None
    seed: int = 0
    verbose: Literal[0, 1, 2] = 0
    only: frozenset[str] | None = None
    learn: bool = False
    every_step: bool = False
    settled: float = 0.0
    teaching: Teaching | None = None
    pricing: Pricing | None = None
    on_step: Callable[[int, int | None], bool] | None = None


@dataclass(frozen=True)
class Trained:
    """The outcome of a run of training.

    Attributes:
        graph: the new snapshot: every value is what its encoding holds.
        history: per epoch, the loss and the metrics.
        refused: parameters that were not trained, with the reason, by path.
        remarks: what else there is to say.
    """

    graph: Graph
    history: Mapping[str, list[float]]
    refused: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


class Finished(Protocol):
    """A compressed model, handed to its owner."""

    @property
    def model(self) -> Model:
        """An ordinary model of the framework."""

    @property
    def remark(self) -> str:
        """What there is to say about it, for the report; empty for nothing."""

    def changed(self, graph: Graph) -> str:
        """What its owner has changed in it since, against the graph that it was made of; empty for nothing.

        Layers, variables and values count; seeds and states that move with every call do not.
        """


class Session(Protocol):
    """A copy of the user's model, opened to be compressed. The user's own model is not touched through it."""

    @property
    def graph(self) -> Graph:
        """The model as it was opened."""

    def check_data(self, data: Data, name: str, targets: bool = False) -> None:
        """Check data before work starts; `name` goes into the message.

        Raises:
            DataError: it is empty, holds values that are not finite, or lacks targets where they are needed.
        """

    def check_training(self, training: Training) -> None:
        """Check a run of training before work starts: without data (None), all that needs none.

        Raises:
            ConfigError: there is no loss, the optimizer, a callback or the loss is not known, or class weights do not
                fit the data.
            DataError: the data is empty, not finite, or has no targets.
        """

    def train(self, graph: Graph, training: Training, steer: Steer | None = None) -> Trained:
        """Train from `graph` on, under every encoding in force.

        Args:
            graph: values to start from, and the encodings that hold while training.
            training: the run.
            steer: called periodically during the run with the progress and the masters as a graph, which may be read
                only while it is called; returns the graph whose encodings hold from then on. They have the structure
                of those in force. Where its values were moved (`bitwidth.graph.moved`) training goes on from them.
        """

    def check_measuring(self, objective: Objective, data: Data) -> None:
        """Check validation data before work starts.

        Raises:
            DataError: it has no end, or loss and metrics cannot be computed on it.
        """

    def resolve(self, given: Objective, brought: Objective) -> Objective:
        """What to measure by: each field as given, else as compiled into the model, else as a pass brings it."""

    def can_measure(self, objective: Objective) -> bool:
        """Whether there is a loss or a metric to measure by, given here or compiled into the model."""

    def measure(self, graph: Graph, objective: Objective, data: Data, batch_size: int = 256) -> Mapping[str, float]:
        """Loss and metrics of the model with the values of `graph`."""

    def probe(self, graph: Graph, probe: Probe[Answer], data: Data) -> Answer:
        """The answer to a question about the model with the values of `graph`, run on data.

        Args:
            graph: what the model computes with.
            probe: what is asked; see `bitwidth.probes` for each kind and its answer.
            data: what it is run on, as `model.fit` takes it.

        Raises:
            UnsupportedModelError: the backend does not know such a probe.
        """

    def share(self) -> None:
        """Begin to serve several results, which are independent of each other.

        Snapshots hold their own values from then on, and `finish` makes copies.
        """

    def move(self, graph: Graph, model: Model, cut: Cut) -> Graph:
        """Go on with a model from which entries were removed; the graph of it, with what is left of `graph`.

        What was compiled, promised and learned goes along: loss and optimizer as given, encodings, float masters.

        Args:
            graph: the model before the cut.
            model: it after the cut, with the same parameters by path; it is copied, and its values do not matter.
            cut: what is left of the parameters.

        Raises:
            ModelError: the model has other parameters than are left, or the session is shared.
            EncodingError: the cut goes through a group that shares a scale.
        """

    def rebuild(self, graph: Graph, change: Change) -> Graph:
        """Go on with a model of other layers: as a whole, or not at all. The graph of the model that is made.

        The model is built again, with smaller layers where units are removed and with two layers for each that a chain
        replaces. It has to compute what it computed with zeros in the place of what is removed, and with the products
        of the factors for kernels. Where features of an input go, data that has all columns is still taken: see
        `Structure.kept_inputs`.

        Args:
            graph: the model before.
            change: units to remove, or chains of layers whose kernels are on no grid and under no mask.

        Raises:
            ModelError: the model cannot be built, or computes something else; the session goes on with the model that
                it has.
            EncodingError: a cut goes through a group that shares a scale.
        """

    def check_rebuild(self, graph: Graph, change: Change) -> None:
        """Raise what `rebuild` would raise, and change nothing."""

    def finish(self, graph: Graph) -> Finished:
        """The model with the values of `graph`, made when it is first asked for.

        Where the session is not shared, its own model is handed over.
        """

    def architecture(self, graph: Graph) -> Architecture:
        """What it takes to build the model again, as `graph` has it: which of its layers are frozen, say."""


class Backend(Protocol):
    """A framework whose models can be compressed."""

    def open(self, model: Model, data: Data = None, own: bool = False) -> Session:
        """Copy and read a model. One that came out of a session or a file keeps the encodings it had there.

        Args:
            model: the user's model; not touched.
            data: data or inputs, from which an example is taken where the model does not know its inputs.
            own: whether nobody else has the model, so that it need not be copied.

        Raises:
            ModelError: the model cannot be read or compressed; the message says what to do.
        """

    def build(
        self,
        architecture: Architecture,
        stored: Stored,
        inputs: LayerInputs,
        custom_objects: CustomObjects | None = None,
        model: Model = None,
    ) -> Model:
        """Build a model from its architecture and give it its values.

        Args:
            architecture: what `Session.architecture` returned.
            stored: reads, each time it is called, the values of each variable and how they are held, in the order of
                `architecture.variables`, one at a time; a later run on the model keeps them so.
            inputs: how the input tensors of layers are held, by the layer's path, in the order of its call.
            custom_objects: classes and functions by name, as in Keras.
            model: a model to fill in place of building one: once all was read, or not at all.

        Raises:
            UnsafeFileError: the architecture names what a file may not: code, files, other objects than a model's.
            ModelError: the model cannot be built, or has other variables.
        """

    def functionalize(self, model: Model, data: Data = None, keep: str | Sequence[str] = ()) -> Model:
        """A model as a graph of the framework's own layers; see `bitwidth.functionalize`. A backend may leave it out.

        Args:
            model: the user's model; not touched.
            data: data or inputs, from which an example is taken where the model does not know its inputs.
            keep: paths of layers, or patterns of them, that stay layers as they are.

        Raises:
            ModelError: it cannot be done; the message says which layer is in the way, why, and what to do.
        """


BACKENDS: dict[str, str] = {"keras": "bitwidth.backends.tensorflow"}
"""Module of the backend, by the package in which a model's class or one of its bases is defined."""


def backend_for(model: Model) -> Backend:
    """The backend of a model.

    Raises:
        UnsupportedModelError: the object is not a model of a known framework.
    """
    for base in type(model).__mro__:
        package = base.__module__.split(".")[0]
        if package in BACKENDS:
            return load_backend(package)
        if hasattr(base, "__bitwidth_backend__"):
            backend: Backend = base.__bitwidth_backend__
            return backend
    module, name = type(model).__module__, type(model).__qualname__
    hint = ""
    if module.split(".")[0] in ("tf_keras", "tensorflow"):
        hint = "; save it, load it with Keras 3 (`keras.saving.load_model`), and compress that model"
    raise UnsupportedModelError(f"expected a Keras 3 model, got an object of {module}.{name}{hint}")


def load_backend(package: str) -> Backend:
    """The backend for models of a package, imported now."""
    backend: Backend = import_module(BACKENDS[package]).BACKEND
    return backend
