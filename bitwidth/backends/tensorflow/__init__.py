"""The TensorFlow backend: the only place that imports TensorFlow or Keras.

Here belongs `session`, which fulfils the protocol by asking the rooms beside it: `internals`, `data`, `reading`,
`models`, `constraints`, `measuring`, `training`. What needs no framework belongs elsewhere in the package.
"""

from __future__ import annotations

from typing import final

from bitwidth.artifact import Architecture
from bitwidth.backend import LayerInputs, Session, Stored
from bitwidth.backends.tensorflow.models.architecture import build_model
from bitwidth.backends.tensorflow.session import KerasSession
from bitwidth.typing import CustomObjects, Data, Model


@final
class TensorFlowBackend:
    """Keras 3 models on TensorFlow."""

    def open(self, model: Model, data: Data = None, own: bool = False) -> Session:
        """See `Backend.open`."""
        return KerasSession(model, data, own)

    def build(
        self,
        architecture: Architecture,
        stored: Stored,
        inputs: LayerInputs,
        custom_objects: CustomObjects | None = None,
        model: Model = None,
    ) -> Model:
        """See `Backend.build`."""
        return build_model(architecture, stored, inputs, custom_objects, model)


BACKEND = TensorFlowBackend()
