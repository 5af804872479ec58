"""Make the dictionary that headers of version 3 are deflated with: `python -m tests.golden.make_dictionary`.

It is what headers of common models have in common: each piece once, the commonest last. Once a version of the format is
released, its dictionary stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

import bitwidth as bw
from bitwidth.artifact.format import layout

FILE = Path(bw.__file__).parent / "artifact" / "version3" / "dictionary.txt"
BYTES = 6_000
L: Any = keras.layers


def dense() -> Any:
    x = given = keras.Input((28, 28, 1))
    x = L.Flatten()(x)
    for units in (300, 100):
        x = L.Dense(units, activation="relu")(x)
    return keras.Model(given, L.Dense(10, activation="softmax")(x))


def sequential() -> Any:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            L.Conv2D(32, 3, activation="relu"),
            L.MaxPooling2D(2),
            L.Conv2D(64, 5, padding="same"),
            L.Flatten(),
            L.Dropout(0.5),
            L.Dense(128, "relu"),
            L.Dense(10),
        ]
    )


def residual() -> Any:
    x = given = keras.Input((32, 32, 3))
    x = L.Conv2D(16, 3, padding="same", use_bias=False)(x)
    for width, strides in ((16, 1), (32, 2), (64, 2)):
        y = L.ReLU()(L.BatchNormalization()(L.Conv2D(width, 3, strides, padding="same", use_bias=False)(x)))
        y = L.BatchNormalization()(L.Conv2D(width, 3, padding="same", use_bias=False)(y))
        x = L.Conv2D(width, 1, strides)(x) if strides > 1 else x
        x = L.Activation("relu")(L.Add()([x, y]))
    return keras.Model(given, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def separable() -> Any:
    x = given = keras.Input((49, 10, 1))
    x = L.ZeroPadding2D()(x)
    for _ in range(2):
        x = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
        x = L.ReLU()(L.BatchNormalization()(L.Conv2D(64, 1, padding="same", use_bias=False)(x)))
    x = L.SeparableConv2D(8, 3)(x)
    return keras.Model(given, L.Dense(12)(L.AveragePooling2D(2)(x)))


def sentences() -> Any:
    x = given = keras.Input((64,), dtype="int32")
    x = L.Embedding(1000, 32)(x)
    y = L.MultiHeadAttention(2, 16)(x, x)
    x = L.LayerNormalization()(L.Add()([x, L.Dropout(0.1)(y)]))
    x = L.LayerNormalization()(x + L.Dense(32)(L.Dense(64, "gelu")(x)))
    return keras.Model(given, L.Dense(2)(L.GlobalAveragePooling1D()(x)))


def series() -> Any:
    x = given = keras.Input((100, 6))
    x = L.Conv1D(16, 5, padding="causal", activation="relu")(x)
    x = L.Bidirectional(L.LSTM(16, return_sequences=True))(x)
    x = L.Concatenate()([L.GRU(8)(x), L.LSTM(8)(x)])
    return keras.Model(given, L.Dense(1)(x))


MODELS: list[Callable[[], Any]] = [series, sentences, dense, sequential, separable, residual]


def headers() -> Iterator[str]:
    passes = ([bw.Prune(0.9, scope="local"), bw.Quantize(bits=8)], [bw.Quantize(bits=4)])
    for make in MODELS:
        for chain in passes:
            keras.utils.clear_session()
            yield header(bw.PassManager(list(chain)).run(make(), progress=False).to_bytes())


def header(checkpoint: bytes) -> str:
    """The header of the model in a checkpoint."""
    data = checkpoint[checkpoint.index(layout.MAGIC) :]
    preamble = layout.parse_preamble(data, "m")
    stored = data[layout.PREAMBLE : layout.PREAMBLE + preamble.stored]
    return layout.parse_header(preamble, stored, "m").decode()


def pieces(text: str) -> list[str]:
    """A header cut where objects and fields of it begin."""
    text = re.sub(r'"shapes":.*?"kept"', '"shapes":[[3,3,64,64],[64],[64],[64],[64],"kept"', text)
    text = re.sub(r'"groups":.*', '"groups":[[', text)
    text = re.sub(r"\d{3,}", "128", text)
    return re.split(r'(?=\{"\$":)|(?<=\]\]\],)|(?=,"[a-z]+":)', text)


if __name__ == "__main__":
    counts: Counter[str] = Counter()
    for text in headers():
        counts.update(set(pieces(text)))
    kept: list[str] = []
    size = 0
    for piece, _ in counts.most_common():
        if len(piece) > 3 and size + len(piece) <= BYTES and not any(piece in other for other in kept):
            kept.append(piece)
            size += len(piece)
    FILE.write_text("".join(reversed(kept)), encoding="utf-8")
    print(f"{FILE}: {size:,} bytes")
