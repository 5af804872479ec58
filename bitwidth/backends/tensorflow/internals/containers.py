"""Objects in which Keras and TensorFlow keep others: wrappers around lists and dicts, and ids that a copy renews."""

from __future__ import annotations

from typing import Any

from keras.src.ops.function import Function, make_node_key
from keras.src.utils.tracking import Tracker
from tensorflow.python.trackable.data_structures import ListWrapper, _DictWrapper

__all__ = ["DictWrapper", "ListWrapper", "renumber"]

# What `tf.Module` and `tf.Variable` owners make of the lists and dicts in their attributes. Since TensorFlow 2.1, and
# in `tensorflow.python.trackable` since 2.9.
DictWrapper = _DictWrapper


def renumber(made: Any) -> None:
    """Keras keeps some `id()`s in a tracker and in a Functional model; give a copy those of its own objects.

    Since Keras 3.0 (`Tracker.stored_ids`, `Function._nodes`, `Function._nodes_by_depth`, `Operation._inbound_nodes`).
    """
    if isinstance(made, Tracker):
        made.stored_ids = {name: {id(item) for item in store} for name, (_, store) in made.config.items()}
    elif isinstance(made, Function):
        made._nodes = {
            make_node_key(node.operation, node.operation._inbound_nodes.index(node))
            for nodes in made._nodes_by_depth.values()
            for node in nodes
        }
