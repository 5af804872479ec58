"""The header of version 3 as JSON, see `bitwidth.artifact.version3.header` for what stands in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bitwidth.artifact.format import activations
from bitwidth.artifact.format.header import Entry, Group
from bitwidth.artifact.format.stored import StoredModel
from bitwidth.artifact.version3.configs import restored, shortened
from bitwidth.artifact.version3.kinds import has_mask, kind_of
from bitwidth.artifact.version3.names import next_name, stem_of, with_names, without_names
from bitwidth.errors import CorruptFileError
from bitwidth.typing import Json, JsonDict

KERAS = "keras"


def written(
    model: StoredModel,
    entries: Sequence[Entry],
    groups: Sequence[Group],
    base: tuple[str, StoredModel] | None = None,
    places: Sequence[int] = (),
) -> bytes:
    """The header as UTF-8.

    Args:
        model: what the file holds.
        entries: of the parameters that it holds, without pieces.
        groups: the chunks that hold them.
        base: hash of the values of the base, and what it holds, its parameters left out.
        places: of an update, the number of the parameter of the base in whose place each entry is.

    Raises:
        UnicodeEncodeError: half a character in a name.
    """
    said = _of_model(model)
    if model.architecture.variables != variables_of(entries) or base is not None:
        said["variables"] = model.architecture.variables
    if base is not None:
        before = _of_model(base[1]) | {"variables": base[1].architecture.variables}
        gone = {key: _NOTHING[key] for key in before if key in _NOTHING and key not in said}
        said = {key: value for key, value in said.items() if key not in before or before[key] != value} | gone
        if model.architecture.assets != base[1].architecture.assets:
            said["assets"] = _assets(model)
        else:
            said.pop("assets", None)
        said |= {"base": base[0], "places": list(places)}
    return _text(said | _of_parameters(entries, groups)).encode()


_NOTHING: JsonDict = {
    "framework": KERAS,
    "reason": "",
    "assets": [],
    "activations": {},
    "layers": [],
    "kept_inputs": [],
}


def _of_model(model: StoredModel) -> JsonDict:
    """What a header says beside its parameters and the variables; what is as by default is left out."""
    built = model.architecture
    said: JsonDict = {"name": model.name, "framework": built.framework, "architecture": _short(built.config)}
    said |= {"reason": built.reason, "inputs": built.inputs, "assets": _assets(model)}
    if built.kept_inputs is not None:
        kept = built.kept_inputs
        said["kept_inputs"] = [kept.place, kept.width, *map(list, kept.cuts)]
    if model.activations:
        said |= {"activations": activations.written(model.activations), "layers": list(built.layers)}
    return {key: value for key, value in said.items() if key not in _NOTHING or value != _NOTHING[key]}


def _assets(model: StoredModel) -> list[Any]:
    return [[name, len(asset)] for name, asset in model.architecture.assets.items()]


def _of_parameters(entries: Sequence[Entry], groups: Sequence[Group]) -> JsonDict:
    kinds: dict[str, int] = {}
    rows: list[list[Any]] = []
    for entry in entries:
        first, last = _split(entry.path)
        if not rows or rows[-1][0] != first:
            rows.append([first])
        rows[-1].append(kinds.setdefault(_text(kind_of(entry, last)), len(kinds)))
    more = [[place, dict(entry.more)] for place, entry in enumerate(entries) if entry.more]
    return {
        "kinds": [json.loads(kind) for kind in kinds],
        "parameters": _numbered(rows),
        "shapes": [list(entry.shape) for entry in entries],
        "kept": [entry.kept for entry in entries if has_mask(entry)],
        **({"more": more} if more else {}),
        "groups": [[group.count, list(group.lengths), *group.later] for group in groups],
    }


def _split(path: str) -> tuple[str, str]:
    first, slash, last = path.rpartition("/")
    return first + slash, last


def _numbered(rows: list[list[Any]]) -> list[list[Any]]:
    """Rows with the number of a stem in the place of the first part of a path that follows from the one before."""
    stems: dict[str, tuple[int, str]] = {}
    found = []
    for first, *indices in rows:
        stem = stem_of(first.removesuffix("/"))
        number, before = stems.get(stem, (len(stems), ""))
        follows = stem in stems and first == next_name(before) + "/"
        stems[stem] = number, first.removesuffix("/")
        found.append([number if follows else first, *indices])
    return found


def _text(data: Json) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def _short(config: Json) -> Json:
    """The short form of a configuration, or `[configuration]` where that would not be restored to the same."""
    try:
        short = without_names(shortened(config))
        same = json.dumps(restored(with_names(short))) == json.dumps(config)
    except (ValueError, TypeError, RecursionError, CorruptFileError):
        same = False
    return short if same and not isinstance(short, list) else [config]


def variables_of(entries: Sequence[Entry]) -> list[Any]:
    """Name, shape and dtype of each variable, as they follow from its parameter."""
    return [[entry.path.rpartition("/")[2], list(entry.shape), entry.dtype] for entry in entries]
