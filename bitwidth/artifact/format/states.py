"""An encoding's state as it lies in a file: its configuration as JSON, its arrays by name, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bitwidth.encodings import EncodingState
from bitwidth.typing import Array, JsonDict, JsonMapping


def arrays_of(state: EncodingState, prefix: str = "") -> Iterator[tuple[str, Array]]:
    """The arrays of an encoding and of its parts, each by its name in a file."""
    for name, array in state.arrays.items():
        yield prefix + name, array
    for name, part in state.parts.items():
        yield from arrays_of(part, f"{prefix}{name}.")


def config_of(state: EncodingState) -> JsonDict:
    """The configuration of an encoding and of its parts, without arrays."""
    config: JsonDict = {"kind": state.kind, **state.config}
    if state.parts:
        config["parts"] = {name: config_of(part) for name, part in state.parts.items()}
    return config


def state_of(config: JsonMapping, arrays: Mapping[str, Array]) -> EncodingState:
    """What `arrays_of` and `config_of` took apart; whether it makes an encoding is not checked here."""
    plain = {key: value for key, value in config.items() if key not in ("kind", "parts")}
    own: dict[str, Array] = {}
    inside: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():  # each is looked at once for each part around it
        part, dot, rest = name.partition(".")
        if dot:
            inside.setdefault(part, {})[rest] = array
        else:
            own[name] = array
    parts = {name: state_of(part, inside.get(name, {})) for name, part in config.get("parts", {}).items()}
    return EncodingState(config["kind"], plain, own, parts)


def kinds_of(config: JsonMapping) -> Iterator[str]:
    """The kinds of an encoding and of its parts, from its configuration."""
    yield config["kind"]
    for part in config.get("parts", {}).values():
        yield from kinds_of(part)
