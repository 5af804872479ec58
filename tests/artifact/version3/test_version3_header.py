"""The header of version 3: short, and read as it was written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bitwidth.artifact import StoredModel, StoredParameter, pack
from bitwidth.artifact.reader import open_bytes
from bitwidth.encodings import Dense, Masked, Quantized, uniform_levels
from bitwidth.errors import FileError
from tests.artifact.files import Grouped, taken_apart
from tests.artifact.honest import NUMBERS, STEPS, on
from tests.stored import stored_model

GRID = Quantized(uniform_levels(4), STEPS, (6, 1))


def model(*paths: str, **more: Any) -> StoredModel:
    parameters = tuple(
        StoredParameter(path, "kernel", "float32", True, *on(GRID), **more) for path in paths or ("dense/kernel",)
    )
    variables = [[path.rpartition("/")[2], [6, 4], "float32"] for path in paths or ("dense/kernel",)]
    return stored_model("m", "keras", {"class_name": "Model"}, "", [], variables, parameters)


def parts(stored: StoredModel) -> Grouped:
    found = taken_apart(pack(stored).data)
    assert isinstance(found, Grouped)
    return found


def read(data: bytes) -> StoredModel:
    with open_bytes(data, "m.bw") as file:
        return file.stored()


@pytest.mark.parametrize(
    "paths",
    [
        ("a/kernel", "a_1/kernel", "a_2/kernel"),
        ("a_1/kernel", "a/kernel"),
        ("kernel",),
        ("a/b/kernel", "a/b_1/kernel", "a/b_1/bias"),
        ("a//kernel", "/kernel", "a_01/kernel", "a_0/kernel"),
        ("conv2d/kernel", "norm/kernel", "conv2d_1/kernel", "norm_1/kernel", "conv2d_2/kernel"),
    ],
)
def test_paths_come_back(paths: tuple[str, ...]) -> None:
    assert [parameter.path for parameter in read(pack(model(*paths)).data).parameters] == list(paths)


def test_what_parameters_have_in_common_is_said_once() -> None:
    header = parts(model("conv/kernel", *(f"conv_{place}/kernel" for place in range(1, 20)))).header
    assert len(header["kinds"]) == 1
    assert header["parameters"] == [["conv/", 0], *([0, 0] for _ in range(19))]
    assert not {"framework", "reason", "variables", "assets", "activations"} & set(header)


def test_variables_that_are_not_the_parameters_are_written() -> None:
    stored = model()
    other = stored_model("m", "keras", None, "why", [], [["k", [6, 4], "float32"]], stored.parameters)
    assert parts(other).header["variables"] == [["k", [6, 4], "float32"]]
    assert read(pack(other).data).architecture == other.architecture


def test_an_architecture_that_is_a_list_or_in_short_form_already() -> None:
    for config in ([1], [], {"$": "Dense"}, [{"$": 1}], None, "x"):
        stored = stored_model("m", "keras", config, "", [], [["kernel", [6, 4], "float32"]], model().parameters)
        assert read(pack(stored).data).architecture.config == config


def test_what_is_kept_with_a_parameter() -> None:
    arrays = {"master": NUMBERS * np.float32(1.1), "columns": np.arange(7, dtype=np.int64), "mask": NUMBERS > 0}
    stored = model("a/kernel", "b/kernel", more={"columns": [[0, 3]], "from": {"a": 1}}, arrays=arrays)
    again = read(pack(stored).data)
    for parameter in again.parameters:
        assert parameter.more == {"columns": [[0, 3]], "from": {"a": 1}}
        assert {name: array.dtype for name, array in parameter.arrays.items()} == {
            name: array.dtype for name, array in arrays.items()
        }
        for name, array in arrays.items():
            np.testing.assert_array_equal(parameter.arrays[name], array)
    assert pack(again).data == pack(stored).data
    with open_bytes(pack(stored).data, "m.bw") as file:
        assert file.header.entries[0].more["from"] == {"a": 1}


def test_many_parameters_are_in_several_groups() -> None:
    values = np.zeros(1 << 14, np.float32)
    parameters = tuple(StoredParameter(f"p{i}/k", "bias", "float32", True, Dense(), values) for i in range(10))
    variables = [["k", [1 << 14], "float32"]] * 10
    header = parts(stored_model("m", "keras", None, "", [], variables, parameters)).header
    assert [group[0] for group in header["groups"]] == [4, 4, 2]


def broken(change: Any) -> bytes:
    found = parts(
        stored_model(
            "m",
            "keras",
            None,
            "",
            [],
            [["kernel", [6, 4], "float32"]] * 2,
            tuple(
                StoredParameter(f"{name}/kernel", "kernel", "float32", True, *on(Masked(NUMBERS > 0, GRID)))
                for name in "ab"
            ),
        )
    )
    header = json.loads(json.dumps(found.header))
    change(header)
    found.header = header
    return found.file()


CHANGES: dict[str, Any] = {
    "a group too many": lambda h: h["groups"].append([1, [0]]),
    "an empty group": lambda h: h["groups"].append([0, []]),
    "a group too few": lambda h: h["groups"].pop(),
    "a parameter too many": lambda h: h["parameters"].append(["c/", 0]),
    "a shape too many": lambda h: h["shapes"].append([1]),
    "a number of stored values too many": lambda h: h["kept"].append(1),
    "another number of stored values": lambda h: h["kept"].__setitem__(0, 3),
    "more stored values than there are": lambda h: h["kept"].__setitem__(0, 30),
    "a kind that is not there": lambda h: h["parameters"][0].__setitem__(1, 1),
    "a stem that is not there": lambda h: h["parameters"][0].__setitem__(0, 0),
    "a shape that has a mark": lambda h: h["kinds"][0][5][-1].__setitem__(3, [6, 4]),
    "a block that has a mark": lambda h: h["kinds"][0][4]["parts"]["base"]["block"].__setitem__(0, 6),
    "codes in front": lambda h: h["kinds"][0][5].reverse(),
    "a stream twice": lambda h: h["kinds"][0][5].insert(0, h["kinds"][0][5][0]),
    "an unknown coder": lambda h: h["kinds"][0][5][0].__setitem__(1, "wavelets"),
    "layers that are none": lambda h: h["kinds"][0][5][-1].__setitem__(1, "layers"),
    "a change without a base": lambda h: h["kinds"][0][5][-1].__setitem__(1, "change"),
    "more of a parameter that is not there": lambda h: h.__setitem__("more", [[2, {"a": 1}]]),
    "more that is nothing": lambda h: h.__setitem__("more", [[0, {}]]),
    "a base without places": lambda h: h.__setitem__("base", "0" * 32),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_what_no_writer_says_is_refused(name: str) -> None:
    read(broken(lambda header: None))
    with pytest.raises(FileError):
        read(broken(CHANGES[name]))


def test_thirty_layers_take_a_kilobyte() -> None:
    assert len(pack(model(*(f"dense_{place}/kernel" for place in range(1, 30)))).data) < 1_000
