"""Configurations in short form: whatever goes in comes out, to the order of its keys."""

from __future__ import annotations

import json
from typing import Any

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwidth.artifact.version3.configs import MAX_RESTORED, restored, shortened
from bitwidth.artifact.version3.names import next_name, stem_of, with_names, without_names
from bitwidth.errors import CorruptFileError

DENSE = keras.saving.serialize_keras_object(keras.layers.Dense(3, name="a"))
words = st.sampled_from(["name", "config", "class_name", "module", "layers", "Dense", "ReLU", "a", "a_1", "units", "c"])
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=5),
    max_leaves=25,
)


def kept(data: Any) -> bool:
    """Whether it comes back, or is refused on the way in, so that a writer leaves it as it is."""
    try:
        short = without_names(shortened(data))
        return json.dumps(restored(with_names(short))) == json.dumps(data)
    except (ValueError, TypeError, CorruptFileError):
        return False


@settings(max_examples=300, deadline=None)
@given(trees)
def test_any_json_comes_back(data: Any) -> None:
    assert json.dumps(restored(shortened(data))) == json.dumps(data)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*DENSE["config"], "other"]), trees, max_size=8), st.booleans())
def test_a_layer_with_any_configuration_comes_back(config: dict[str, Any], as_keras: bool) -> None:
    layer = {**DENSE, "config": {**DENSE["config"], **config} if as_keras else config}
    assert json.dumps(restored(shortened(layer))) == json.dumps(layer)


def test_a_layer_is_short() -> None:
    assert shortened(DENSE) == {"$": "Dense", "c": {"name": "a", "units": 3}}


def test_what_another_version_of_keras_says_more_or_less() -> None:
    more = {**DENSE, "config": {**DENSE["config"], "fresh": [1]}}
    less = {**DENSE, "config": {key: value for key, value in DENSE["config"].items() if key != "use_bias"}}
    for layer in (more, less):
        assert json.dumps(restored(shortened(layer))) == json.dumps(layer)
        assert len(json.dumps(shortened(layer))) < 100


def test_layers_of_other_modules_stay_as_they_are() -> None:
    own = {**DENSE, "module": "mine"}
    assert shortened(own)["class_name"] == "Dense"


def test_names_that_follow_are_left_out() -> None:
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(4, name=f"d_{place}") for place in (1, 2, 3))])
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    assert kept(config)
    short = without_names(shortened(config))
    assert [layer.get("c", {}).get("name") for layer in short["config"]["layers"]][1:] == ["d_1", None, None]


@pytest.mark.parametrize(
    ("name", "stem", "after"), [("a", "a", "a_1"), ("a_9", "a", "a_10"), ("a_09", "a_09", "a_09_1")]
)
def test_numbers_of_names(name: str, stem: str, after: str) -> None:
    assert (stem_of(name), next_name(name)) == (stem, after)


@pytest.mark.parametrize(
    "bad",
    [
        {"$": "Unknown"},
        {"$": 5},
        {"$": "Dense", "c": 5},
        {"$": "Dense", "-": 5},
        [{"$": "Dense"}] * (MAX_RESTORED // 10),
    ],
)
def test_what_nothing_writes_is_refused(bad: Any) -> None:
    with pytest.raises(CorruptFileError):
        restored(bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"layers": [{"$": "ReLU"}]},
        {"layers": [{"$": "ReLU", "c": {"name": "a"}, "inbound_nodes": [{"keras_history": [0, 0, 0]}]}]},
    ],
)
def test_names_that_follow_from_nothing_are_refused(bad: Any) -> None:
    with pytest.raises(CorruptFileError):
        with_names(bad)
