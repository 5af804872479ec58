from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwidth.errors import ConfigError, SelectionError
from bitwidth.graph import Graph, Layer, Parameter, Structure, Use, check_where

LAYERS = [
    Layer("encoder", "Model"),
    Layer("encoder/dense_1", "Dense"),
    Layer("encoder/dense_10", "Dense"),
    Layer("table", "Embedding"),
    Layer("head", "Dense"),
    Layer("drop", "Dropout"),
    Layer("block[0]", "Dense"),
]
PARAMETERS = [
    Parameter("encoder/dense_1/kernel", (4, 4), "float32", "kernel", "encoder/dense_1"),
    Parameter("encoder/dense_1/bias", (4,), "float32", "bias", "encoder/dense_1"),
    Parameter("encoder/dense_10/kernel", (4, 4), "float32", "kernel", "encoder/dense_10"),
    Parameter(
        "table/embeddings",
        (9, 4),
        "float32",
        "embedding",
        "table",
        uses=(Use("gather", "gather", "table"), Use("matmul", "matmul", "head/logits"), Use("sum", "add", "")),
        aliases=("tied/weights",),
    ),
    Parameter("head/kernel", (4, 2), "float32", "kernel", "head"),
    Parameter("block[0]/kernel", (2, 2), "float32", "kernel", "block[0]"),
]


def graph() -> Graph:
    values = {parameter.path: np.zeros(parameter.shape, np.float32) for parameter in PARAMETERS}
    return Graph(Structure("net", (), (), tuple(LAYERS), (), ()), PARAMETERS, values)


def chosen(where: Any) -> list[str]:
    return [parameter.path for parameter in graph().select(where)]


@pytest.mark.parametrize(
    ("where", "paths"),
    [
        (None, [parameter.path for parameter in PARAMETERS]),
        ("head/kernel", ["head/kernel"]),
        ("encoder", ["encoder/dense_1/kernel", "encoder/dense_1/bias", "encoder/dense_10/kernel"]),
        ("encoder/dense_1", ["encoder/dense_1/kernel", "encoder/dense_1/bias"]),  # and not dense_10
        ("encoder/dense_?", ["encoder/dense_1/kernel", "encoder/dense_1/bias"]),
        ("encoder/*_1*/kernel", ["encoder/dense_1/kernel", "encoder/dense_10/kernel"]),
        ("*/bias", ["encoder/dense_1/bias"]),
        ("*dense_10*", ["encoder/dense_10/kernel"]),
        ("tied/weights", ["table/embeddings"]),
        ("tied", ["table/embeddings"]),
        ("head", ["table/embeddings", "head/kernel"]),  # the head reads the table too
        ("head/logits", ["table/embeddings"]),
        (["head/kernel", "encoder/dense_10"], ["encoder/dense_10/kernel", "head/kernel"]),
        (("table",), ["table/embeddings"]),
        (["head/kernel", "head", "*"], [parameter.path for parameter in PARAMETERS]),
        (lambda parameter: parameter.role == "bias", ["encoder/dense_1/bias"]),
        (lambda parameter: np.bool_(parameter.size > 20), ["table/embeddings"]),
        ("block[0]", ["block[0]/kernel"]),
        ("block[0]/kernel", ["block[0]/kernel"]),
    ],
)
def test_what_a_selector_names(where: Any, paths: list[str]) -> None:
    assert chosen(where) == paths


def test_case_matters() -> None:
    with pytest.raises(SelectionError):
        chosen("Head")


def test_an_unknown_name_is_told_with_the_closest_ones() -> None:
    with pytest.raises(SelectionError, match=r"where='encoder/dens_1' .*'net'; did you mean .*'encoder/dense_1'"):
        chosen("encoder/dens_1")


def test_an_unknown_name_like_no_other_is_told_with_all_layers() -> None:
    with pytest.raises(SelectionError, match=r"'ÿÿÿ' is not a layer or parameter .*layers: .*drop, encoder"):
        chosen("ÿÿÿ")


def test_a_layer_without_parameters_is_told_so() -> None:
    with pytest.raises(SelectionError, match="'drop' has no parameters"):
        chosen("drop")


def test_one_unknown_name_of_several_is_told() -> None:
    with pytest.raises(SelectionError, match=r"'haed'.*'head'"):
        chosen(["encoder", "haed"])


def test_a_function_that_chooses_none_is_told() -> None:
    with pytest.raises(SelectionError, match="chooses none of the 6 parameters of 'net'"):
        chosen(lambda parameter: False)


def test_an_empty_list_names_nothing() -> None:
    with pytest.raises(SelectionError):
        chosen([])


@pytest.mark.parametrize("where", [None, "a", ["a", "b"], ("a",), lambda parameter: True])
def test_forms_of_a_selector(where: object) -> None:
    check_where(where, "Prune")


@pytest.mark.parametrize("where", [5, [], (), ["a", 5], {"a"}, {"a": 1}, b"a", 0.5])
def test_what_is_no_selector_is_refused(where: object) -> None:
    with pytest.raises(SelectionError, match="Prune: where must be a path, a list of paths or a function"):
        check_where(where, "Prune")


def test_a_selection_error_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        chosen("nothing")
