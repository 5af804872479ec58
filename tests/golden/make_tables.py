"""Make the table of what Keras's classes default to: `python -m tests.golden.make_tables`.

Once a version of the format is released, its table stays as it is: files were written against it. A class that is not
in the table, or that has other defaults in another version of Keras, is written out; nothing is lost.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import keras

import bitwidth

FILE = Path(bitwidth.__file__).parent / "artifact" / "version3" / "defaults.json"
GIVEN: dict[str, Any] = {
    **dict.fromkeys(("units", "filters", "kernel_size", "input_dim", "output_dim", "pool_size", "output_size"), 1),
    **dict.fromkeys(("n", "num_heads", "key_dim", "axes", "size", "num_tokens", "num_bins", "height", "width"), 1),
    "rate": 0.5,
    "stddev": 0.5,
    "factor": 0.1,
    "height_factor": 0.1,
    "width_factor": 0.1,
    "dims": [1],
    "target_shape": [1],
    "activation": "relu",
    "equation": "ab,bc->ac",
    "output_shape": 1,
    "scale": 0.5,
    "batch_shape": (None, 1),
    "head_dim": 1,
    "num_query_heads": 1,
    "num_key_value_heads": 1,
}
OPTIONAL = {"CategoryEncoding": ["num_tokens"], "Discretization": ["num_bins"], "InputLayer": ["batch_shape"]}


def wrapped(cls: type[Any], needed: list[str]) -> Any:
    """A layer around another, or of a cell, which cannot be made from numbers."""
    if needed == ["layer"]:
        inner = (
            keras.layers.LSTM(1, return_sequences=True) if cls is keras.layers.Bidirectional else keras.layers.Dense(1)
        )
        return cls(inner)
    if needed == ["cell"]:
        return cls(keras.layers.LSTMCell(1))
    return cls([keras.layers.LSTMCell(1)]) if needed == ["cells"] else None


def described(cls: type[Any]) -> dict[str, Any] | None:
    """Module and configuration of a class, each key with its default where it need not be given; None if unknown."""
    parameters = [p for p in inspect.signature(cls.__init__).parameters.values() if p.name != "self"]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in named if p.default is p.empty]
    needed += [name for name in OPTIONAL.get(cls.__name__, []) if name not in needed]
    try:
        made = cls(**{name: GIVEN[name] for name in needed}) if set(needed) <= set(GIVEN) else wrapped(cls, needed)
        data = keras.saving.serialize_keras_object(made)
        json.dumps(data)
    except Exception as error:
        print(f"left out: {cls.__name__}: {error}")
        return None
    if not isinstance(data, dict) or data.get("class_name") != cls.__name__:
        return None
    asked = {"name", *needed}
    config = [[key] if key in asked else [key, value] for key, value in data["config"].items()]
    return {"module": data["module"], "config": config}


def classes() -> dict[str, Any]:
    """By the name of the class: layers, initializers, regularizers, constraints."""
    found = {}
    for room in (keras.layers, keras.initializers, keras.regularizers, keras.constraints):
        for name in sorted(dir(room)):
            cls = getattr(room, name)
            if inspect.isclass(cls) and cls.__name__ == name and hasattr(cls, "get_config") and name not in found:
                held = described(cls)
                if held is not None:
                    found[name] = held
    found["DTypePolicy"] = {"module": "keras", "config": [["name"]]}
    found["__keras_tensor__"] = {"module": None, "config": [["shape"], ["dtype", "float32"], ["keras_history"]]}
    return found


if __name__ == "__main__":
    rows = [f"{json.dumps(name)}:{json.dumps(held, separators=(',', ':'))}" for name, held in classes().items()]
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    print(f"{FILE}: {len(rows)} classes, {FILE.stat().st_size:,} bytes")
