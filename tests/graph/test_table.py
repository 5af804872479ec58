from __future__ import annotations

import numpy as np

from bitwidth.encodings import Dense, Quantized, uniform_levels
from bitwidth.graph import Graph, Layer, Parameter, Structure, Use
from bitwidth.text import bytes_text, shape_text, table


def test_a_graph_prints_as_a_table() -> None:
    grid = Quantized(uniform_levels(4), np.ones((1, 300), np.float32), (4, 1))
    uses = (
        Use("m1", "matmul", "dense", label="MatMul"),
        Use("m2", "matmul", "dense", label="MatMul"),
        Use("m3", "matmul", "head"),
        Use("r", "read", ""),
    )
    parameters = [
        Parameter("dense/kernel", (4, 300), "float32", "kernel", "dense", uses=uses, encoding=grid),
        Parameter("bn/gamma", (4,), "float32", "scale", "bn", trainable=False, encoding=Dense("float16")),
        Parameter("step", (), "int64", "state", ""),
    ]
    layers = (Layer("dense", "Dense"), Layer("bn", "BatchNormalization"))
    structure = Structure("net", (), (), layers, (), (), notes=("note: one layer was not reached",))
    values = {p.path: np.zeros(p.shape, np.float32) for p in parameters}
    expected = """\
net: 2 layers, 0 ops, 3 parameters holding 1,205 values
parameter          layer               shape   role    channels  encoding    read by
-----------------  ------------------  ------  ------  --------  ----------  -------------------------------------
dense/kernel       Dense               4x300   kernel         1  4-bit x300  MatMul in dense, matmul in head, read
bn/gamma (frozen)  BatchNormalization  4       scale             float16     nothing
step                                   scalar  state             dense       nothing
note: one layer was not reached"""
    assert str(Graph(structure, parameters, values)) == expected


def test_a_graph_without_parameters_prints() -> None:
    text = str(Graph(Structure("net", (), (), (), (), ()), [], {}))
    assert text.splitlines()[0] == "net: 0 layers, 0 ops, 0 parameters holding 0 values"


def test_columns_of_numbers_are_flush_right() -> None:
    text = table(["name", "share", "size"], [["a", "1.5%", "-"], ["bcdef", "100.0%", "12,000"]])
    assert text.splitlines() == [
        "name    share    size",
        "-----  ------  ------",
        "a        1.5%       -",
        "bcdef  100.0%  12,000",
    ]


def test_a_table_without_rows_is_its_heads() -> None:
    assert table(["a", "bc"], []).splitlines() == ["a  bc", "-  --"]


def test_words_for_sizes() -> None:
    assert [bytes_text(count) for count in (0, 999, 1000, 1234567)] == ["0", "999", "1,000", "1,234,567"]
    assert [shape_text(shape) for shape in ((), (3,), (3, 4, 5))] == ["scalar", "3", "3x4x5"]
