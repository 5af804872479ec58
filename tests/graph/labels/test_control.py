"""Loops, calls, branches and lists of tensors: what goes in is what comes out."""

from __future__ import annotations

from bitwidth.graph import Op, Tensor
from tests.graph.labels.building import Net, roles, shown, stays


def entering(net: Net, loop: str, outer: str, name: str, shape: tuple[int | None, ...], *read: str) -> str:
    """The input of a loop's body that takes `outer` first."""
    tensor = f"{loop}/body/{name}"
    net.tensors.append(Tensor(tensor, shape, "float32"))
    net.ops.append(Op(tensor, "input", "", (outer,), (tensor,), read))
    if read:
        net.static[tensor] = read
    return tensor


def test_the_state_of_a_loop_is_one_tensor() -> None:
    """A recurrence, h = h @ recurrent + x @ kernel, from zeros; the outputs are kept in a list."""
    net = Net()
    x, zeros = net.input(None, 3), net.op("fill", (net.constant([2, 4]), net.constant(0.0)), (None, 4))
    recurrent, kernel = net.parameter("cell/recurrent", 4, 4), net.parameter("cell/kernel", 3, 4)
    kept = net.op("list_new", (net.constant([-1, 4]), net.constant(5)), ())
    h = entering(net, "loop", zeros, "h", (None, 4))
    w = entering(net, "loop", recurrent, "w", (4, 4), "cell/recurrent")
    held = entering(net, "loop", kept, "list", ())
    step = net.op("add", (net.op("matmul", (h, w), (None, 4)), net.op("matmul", (x, kernel), (None, 4))), (None, 4))
    after = net.op("list_set", (held, net.constant(0), step), ())
    ends = (step, w, after)
    given = (zeros, recurrent, kept)
    names = ("loop:0", "loop:1", "loop:2")
    net.tensors += [
        Tensor("loop:0", (None, 4), "float32"),
        Tensor("loop:1", (4, 4), "float32"),
        Tensor("loop:2", (), ""),
    ]
    net.ops.append(Op("loop", "loop", "", given, names, attributes=(("body_outputs", ends),)))
    stacked = net.op("list_stack", ("loop:2", net.constant([-1, 4])), (5, None, 4))
    coupling = net.couple(net.dense(stacked, "out", 4, 2, (5, None)))
    units = [0, 1, 2, 3]
    (group,) = coupling.groups
    assert shown(coupling)[group.name] == dict.fromkeys(
        ("cell/recurrent:0", "cell/recurrent:1", "cell/kernel:1", "out/kernel:0"), units
    )
    assert roles(coupling)["cell/recurrent:0"] == "consumes"
    assert group.exact


def test_what_is_taken_from_a_list_has_the_axes_of_what_was_put_in() -> None:
    net = Net()
    x = net.dense(net.input(7, None, 3), "a", 3, 4, (7, None))
    listed = net.op("list_from_tensor", (x, net.constant([-1, 4])), ())
    one = net.op("list_get", (listed, net.constant(2), net.constant([-1, 4])), (None, 4))
    assert shown(net.couple(net.dense(one, "b", 4, 2)))["a"]["b/kernel:0"] == [0, 1, 2, 3]


def test_a_call_returns_what_its_operations_return() -> None:
    net = Net()
    x = net.dense(net.input(None, 3), "a", 3, 4)
    inner = entering(net, "call", x, "x", (None, 4))
    result = net.op("relu", (inner,), (None, 4))
    net.tensors.append(Tensor("call:0", (None, 4), "float32"))
    net.ops.append(Op("call", "call", "", (x,), ("call:0",), attributes=(("f_outputs", (result,)),)))
    assert shown(net.couple(net.dense("call:0", "b", 4, 2)))["a"]["b/kernel:0"] == [0, 1, 2, 3]


def test_branches_return_the_same_units() -> None:
    net = Net()
    given = net.input(None, 3)
    first, second = net.dense(given, "a", 3, 4), net.dense(given, "b", 3, 4)
    net.tensors.append(Tensor("branch:0", (None, 4), "float32"))
    ends = (("then_branch_outputs", (first,)), ("else_branch_outputs", (second,)))
    net.ops.append(Op("branch", "branch", "", (given,), ("branch:0",), attributes=ends))
    coupling = net.couple(net.dense("branch:0", "c", 4, 2))
    assert sorted(shown(coupling)["a"]) == ["a/kernel:1", "b/kernel:1", "c/kernel:0"]


def test_a_list_that_nothing_was_put_into_has_elements_too() -> None:
    net = Net()
    empty = net.op("list_new", (net.constant([-1, 4]), net.constant(5)), ())
    one = net.op("list_get", (empty, net.constant(2), net.constant([-1, 4])), (None, 4))
    again = net.op("list_get", (empty, net.constant(1), net.constant([-1, 4])), (None, 4))
    first, second = net.dense(one, "a", 4, 2), net.dense(again, "b", 4, 2)
    assert sorted(shown(net.couple(first, second))["a"]) == ["a/kernel:0", "b/kernel:0"]


def test_lists_of_two_branches_are_one() -> None:
    net = Net()
    given = net.input(5, None, 3)
    lists = [
        net.op("list_from_tensor", (net.dense(given, name, 3, 4, (5, None)), net.constant([-1, 4])), ())
        for name in ("a", "b")
    ]
    net.tensors.append(Tensor("branch:0", (), "variant"))
    ends = (("then_branch_outputs", (lists[0],)), ("else_branch_outputs", (lists[1],)))
    net.ops.append(Op("branch", "branch", "", (given,), ("branch:0",), attributes=ends))
    one = net.op("list_get", ("branch:0", net.constant(0), net.constant([-1, 4])), (None, 4))
    coupling = net.couple(net.dense(one, "c", 4, 2))
    assert sorted(shown(coupling)["a"]) == ["a/kernel:1", "b/kernel:1", "c/kernel:0"]


def test_branches_of_different_ranks_hold_their_units() -> None:
    net = Net()
    given = net.input(None, 3)
    first = net.dense(given, "a", 3, 4)
    second = net.op("reduce_sum", (net.dense(given, "b", 3, 4),), (None,), axes=(1,))
    net.tensors.append(Tensor("branch:0", None, "float32"))
    ends = (("then_branch_outputs", (first,)), ("else_branch_outputs", (second,)))
    net.ops.append(Op("branch", "branch", "odd", (given,), ("branch:0",), attributes=ends, label="If"))
    assert stays(net.couple(net.dense("branch:0", "c", 4, 2)))["a/kernel:1"] == "what If in odd does is not known"


def test_an_unknown_operation_on_a_list_holds_its_elements() -> None:
    net = Net()
    listed = net.op("list_from_tensor", (net.dense(net.input(5, None, 3), "a", 3, 4, (5, None)), net.constant(0)), ())
    x = net.op("other", (listed,), (None, 4), "odd")
    assert stays(net.couple(net.dense(x, "b", 4, 2)))["a/kernel:1"] == "what Other in odd does is not known"


def test_a_constant_from_outside_of_the_call() -> None:
    net = Net()
    outside = net.op("input", (), (4,), "odd")
    x = net.op("add", (net.dense(net.input(None, 3), "a", 3, 4), outside), (None, 4))
    reason = "a constant made outside of the call, read in odd"
    assert stays(net.couple(net.dense(x, "b", 4, 2)))["a/kernel:1"] == reason
