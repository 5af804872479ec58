"""Which axes of a kernel are its inputs, its outputs and the positions of its window."""

from __future__ import annotations

import numpy as np
import pytest

import bitwidth as bw
from bitwidth.passes.layout import Layout, layout_of
from tests import zoo

EXPECTED: dict[tuple[str, str], Layout] = {
    ("mlp", "hidden/kernel"): Layout((6, 8), (), (), (0,), (1,)),
    ("convnet_bn", "conv1/kernel"): Layout((3, 3, 3, 4), (), (0, 1), (2,), (3,)),
    ("all_convs", "grouped/kernel"): Layout((3, 3, 2, 2, 3), (3,), (0, 1), (2,), (4,)),
    ("all_convs", "depthwise/kernel"): Layout((3, 3, 6, 2), (), (0, 1), (), (2, 3)),
    ("all_convs", "depthwise1d/kernel"): Layout((3, 6, 1), (), (0,), (), (1, 2)),
    ("all_convs", "conv1d/kernel"): Layout((3, 4, 6), (), (0,), (1,), (2,)),
    ("all_convs", "transpose/kernel"): Layout((3, 3, 3, 5), (), (0, 1), (3,), (2,)),
    ("all_convs", "conv3d/kernel"): Layout((2, 2, 2, 2, 3), (), (0, 1, 2), (3,), (4,)),
    ("lstm_gru_bidirectional", "gru/cell/recurrent_kernel"): Layout((4, 12), (), (), (0,), (1,)),
    ("attention_encoder", "embedding/embeddings"): Layout((11, 8), (), (), (0,), (1,), looked_up=True),
    ("attention_encoder", "attention/query/kernel"): Layout((8, 2, 3), (), (), (0,), (1, 2)),
    ("attention_encoder", "attention/attention_output/kernel"): Layout((2, 3, 8), (), (), (0, 1), (2,)),
    ("tied_language_model", "table/embeddings"): Layout((11, 6), (), (), (1,), (0,)),
}


@pytest.mark.parametrize("model", sorted({model for model, _ in EXPECTED}))
def test_layouts_of_every_kind_of_kernel(model: str) -> None:
    graph = bw.read(zoo.MODELS[model]())
    for (name, path), layout in EXPECTED.items():
        if name == model:
            assert layout_of(graph, graph[path]) == layout, path


@pytest.mark.parametrize("layout", [layout for layout in EXPECTED.values() if layout.inputs])
def test_lines_run_along_the_inputs_and_go_back(layout: Layout) -> None:
    size = int(np.prod(layout.shape))
    values = np.arange(size).reshape(layout.shape)
    count = layout.count(layout.inputs)
    lines = layout.lines(values, count)
    assert lines.shape == (size // count, count)
    for axes in (layout.groups, layout.window, layout.outputs):
        numbers = layout.lines(np.broadcast_to(layout.numbers(axes), layout.shape), count)
        assert (numbers == numbers[:, :1]).all()
    inputs = layout.lines(np.broadcast_to(layout.numbers(layout.inputs), layout.shape), count)
    assert (inputs == np.arange(count)).all()
    np.testing.assert_array_equal(layout.from_lines(lines, layout.shape), values)
