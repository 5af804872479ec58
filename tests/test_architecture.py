"""The shape of the house: which room may import from which, and how large anything may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bitwidth"

# Bottom to top: a room imports only from rooms above it in this list. A room is a folder or a module of the package.
ROOMS = [
    "errors",
    "text",
    "typing",
    "events",
    "progress",
    "data",
    "moved",
    "coder",
    "encodings",
    "fitting",
    "tensors",
    "graph",
    "artifact",
    "report",
    "probes",
    "backend",
    "answers",
    "context",
    "analysis",
    "loading",
    "result",
    "reading",
    "passes",
    "testing",
    "backends",
    "extend",
    "",  # bitwidth/__init__.py, the front door
    "__main__",
]
FRAMEWORKS = {"tensorflow", "keras", "tf_keras", "torch", "jax"}
LARGEST_FUNCTION = 50
MOST_ANY = 15  # per 1,000 lines
LARGEST_MODULE = 400


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
every = pytest.mark.parametrize("name", list(MODULES))


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def room(name: str) -> str:
    return [*name.split("."), ""][1]


def imported(name: str) -> Iterator[str]:
    """Modules that a module imports anywhere in it: within functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def strays(name: str) -> bool:
    """The demo trains a network of its own, and extensions ask for the lowering: both import the backend late."""
    return name in ("bitwidth.__main__", "bitwidth.extend")


def test_every_room_is_in_the_list() -> None:
    assert {room(name) for name in MODULES} <= set(ROOMS), "a new room: give it its place in ROOMS"
    assert set(ROOMS) <= {room(name) for name in MODULES}, "a room that is gone"


@every
def test_imports_go_up_the_list(name: str) -> None:
    own = ROOMS.index(room(name))
    for other in imported(name):
        if other == "bitwidth" or other.startswith("bitwidth."):
            place = ROOMS.index(room(other))
            assert place <= own, f"{name} imports {other}, a room further down"
            inside = place == own and room(name) != ""
            assert place < own or inside, f"{name} imports {other}"


@every
def test_frameworks_are_imported_in_one_folder(name: str) -> None:
    found = {other.split(".")[0] for other in imported(name)} & FRAMEWORKS
    if not name.startswith("bitwidth.backends.tensorflow"):
        assert not found, f"{name} imports {found}"


def test_the_backend_does_not_know_passes() -> None:
    """Encodings are lowered, not passes: a new pass needs no TensorFlow code."""
    for name in MODULES:
        if name.startswith("bitwidth.backends."):
            known = {room(other) for other in imported(name) if other.startswith("bitwidth")}
            assert not known & {"passes", "testing", "result", "loading", "reading", "extend", "", "__main__"}, name


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("bitwidth.backends")])
def test_only_the_front_door_names_a_backend(name: str) -> None:
    found = [other for other in imported(name) if other.startswith("bitwidth.backends")]
    assert not found or strays(name)


# A name of an operation as code compares it, and as a docstring shows it.
QUOTED = re.compile(r"[\"'`]([A-Z][A-Za-z0-9]+)[\"'`]")


def named(source: str, names: Collection[str]) -> set[str]:
    """Those of the names that stand in string literals: as the whole of one, or quoted within one."""
    strings = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return {name for text in strings for name in (text, *QUOTED.findall(text)) if name in names}


@cache
def operations() -> frozenset[str]:
    """TensorFlow's names of operations, but for those that are classes of the package as well."""
    import tensorflow as tf

    from bitwidth.backends.tensorflow.reading.kinds import KINDS

    classes = {node.name for name in MODULES for node in ast.walk(tree(name)) if isinstance(node, ast.ClassDef)}
    registered = {name for name in dir(tf.raw_ops) if name[0].isupper()}
    assert registered >= set(KINDS)
    return frozenset(registered - classes)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("bitwidth.backends.tensorflow")])
def test_operations_are_named_by_the_vocabulary_of_the_graph(name: str) -> None:
    """TensorFlow's own names stand in its folder only: everybody else asks `bitwidth.graph.ops`."""
    found = named(MODULES[name].read_text(encoding="utf-8"), operations())
    assert not found, f"{name} names operations of TensorFlow: {', '.join(sorted(found))}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('if op.kind == "Conv2D": pass', {"Conv2D"}),
        ('SAME = frozenset({"Identity", "Cast"})', {"Identity", "Cast"}),
        ('"""Its type, for example `"MatMul"`."""', {"MatMul"}),
        ('kinds = {"conv": "a Conv2D, say", "where": "Where"}', set()),
    ],
)
def test_a_name_of_tensorflow_would_be_found(source: str, found: set[str]) -> None:
    assert named(source, operations()) == found


def alternatives(node: ast.expr | None) -> set[str]:
    """The members of a union that is written with `|`, as they are written; of another annotation itself."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return alternatives(node.left) | alternatives(node.right)
    return set() if node is None else {ast.unparse(node)}


def reasons_returned(source: str) -> list[str]:
    """Names of the functions that return something or, as a string, the reason why not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.BinOp):
            members = alternatives(node.returns)
            if "str" in members and members - {"str", "None"}:
                found.append(node.name)
    return found


@every
def test_a_reason_is_no_answer(name: str) -> None:
    """Where a question has no answer, `Refused` is raised with the reason."""
    assert not reasons_returned(MODULES[name].read_text(encoding="utf-8")), name


def test_a_reason_that_is_returned_would_be_found() -> None:
    assert reasons_returned("def f() -> Op | str: ...") == ["f"]
    assert reasons_returned("def f() -> tuple[Op, str] | str | None: ...") == ["f"]
    assert reasons_returned("def f() -> str | None: ...") == []
    assert reasons_returned("def f() -> Iterator[tuple[str, Op | Norm]]: ...") == []


def test_rooms_have_no_cycles() -> None:
    """Between folders, at any depth: a folder is a node, and imports within it do not count."""
    folders: dict[str, set[str]] = {}
    for name in MODULES:
        edges = folders.setdefault(folder(name), set())
        edges |= {folder(other) for other in imported(name) if other in MODULES} - {folder(name)}
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> None:
        assert node not in path, " -> ".join([*path[path.index(node) :], node])
        if node not in done:
            for other in sorted(folders.get(node, ())):
                visit(other, (*path, node))
            done.add(node)

    for node in sorted(folders):
        visit(node, ())
    assert done >= {"bitwidth.tensors", "bitwidth.passes", "bitwidth.backends.tensorflow"}


def folder(name: str) -> str:
    """The folder of a module; a module directly in the package stands for itself."""
    is_folder = MODULES[name].name == "__init__.py"
    inner = name if is_folder else name.rpartition(".")[0]
    return name if inner == "bitwidth" else inner


def test_modules_have_no_cycles_when_they_are_imported() -> None:
    """Within folders too, but for imports under TYPE_CHECKING and within functions, which run later or never."""
    edges = {name: {other for other in imported_at_once(name) if other in MODULES} - {name} for name in MODULES}
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> None:
        assert node not in path, " -> ".join([*path[path.index(node) :], node])
        if node not in done:
            for other in sorted(edges[node]):
                visit(other, (*path, node))
            done.add(node)

    for node in sorted(edges):
        visit(node, ())
    assert done == set(MODULES)


def imported_at_once(name: str) -> Iterator[str]:
    for node in tree(name).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def test_importing_the_package_imports_no_framework() -> None:
    code = (
        "import sys, bitwidth as bw, bitwidth.extend\n"
        "bw.PassManager.from_recipe(bw.PassManager([bw.Prune(0.5), bw.Quantize(4)]).to_recipe())\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & set(sys.argv[1:])))"
    )
    command = [sys.executable, "-c", code, *FRAMEWORKS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "[]"


def definitions(name: str) -> Iterator[tuple[str, ast.AST]]:
    """Public functions, classes and methods that stand in the module or in a class of it."""

    def inner(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.AST]]:
        for node in body:
            kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            if isinstance(node, kinds) and not node.name.startswith("_"):
                yield f"{prefix}{node.name}", node
                if isinstance(node, ast.ClassDef):
                    yield from inner(node.body, f"{prefix}{node.name}.")

    return inner(tree(name).body, "")


def overrides(node: ast.AST) -> bool:
    """Decorated as an override (of something documented), or an overload."""
    decorators = getattr(node, "decorator_list", [])
    return any(isinstance(item, ast.Name) and item.id in ("override", "overload") for item in decorators)


INTERNALS = "bitwidth.backends.tensorflow.internals"
PRIVATE_MODULES = ("keras.src", "tensorflow.python")
OF_TUPLES = {"_fields", "_replace", "_asdict", "_make"}  # of named tuples, documented by Python


def private(names: Collection[str]) -> set[str]:
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


@cache
def framework_names() -> frozenset[str]:
    """Attributes of objects of TensorFlow and Keras that begin with an underscore."""
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1), keras.layers.Dropout(0.5)])
    model.compile("adamw", "mse", metrics=["mae"])
    variable, graph = model.variables[0], tf.Graph()
    loss, metrics, functional = model._compile_loss, model._compile_metrics, keras.Model(model.inputs, model.outputs)
    functions = tf.function(lambda: None), tf.Operation, tf.Tensor
    objects = (model, functional, *model.layers, variable, variable._value, model.optimizer, loss, metrics, graph)
    found = {name for item in (*objects, *functions) for name in dir(item)}
    assert private(found) >= {"_value", "_flatten_layers", "_tracker", "_compile_loss", "_unique_id", "_get_function"}
    return frozenset(private(found))


def defined(module: ast.Module) -> set[str]:
    """Names that a module defines, in its classes and of `self` too."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            found |= {node.attr} if node.value.id == "self" else set()
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def asked_for(node: ast.AST, own: Collection[str]) -> set[str]:
    """Private modules, attributes, and names of attributes in strings, that one node of a program asks for."""
    match node:
        case ast.Import(names):
            return {alias.name for alias in names if alias.name.startswith(PRIVATE_MODULES)}
        case ast.ImportFrom(module, names):
            return {str(module) for alias in names if f"{module}.{alias.name}".startswith(PRIVATE_MODULES)}
        case ast.Attribute(attr=name):
            return private([name]) - OF_TUPLES - set(own)
        case ast.Call(
            ast.Name("getattr" | "hasattr" | "setattr"), [_, ast.JoinedStr([ast.Constant(str(text)), *_]), *_]
        ):
            return private([text])  # a name put together
        case ast.Constant(str(text)):
            return ({text} & framework_names()) - OF_TUPLES - set(own)
    return set()


def ends_with(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "endswith"


def internals_used(source: str) -> set[str]:
    """Private modules that are imported, private attributes that are not the module's own, and such in strings."""
    module = ast.parse(source)
    own, nodes = defined(module), list(ast.walk(module))
    parts = {  # of names of another kind, such as the ends of them
        id(part)
        for node in nodes
        for part in (node.values if isinstance(node, ast.JoinedStr) else node.args if ends_with(node) else [])
    }
    return {name for node in nodes if id(node) not in parts for name in asked_for(node, own)}


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(INTERNALS)])
def test_private_names_of_frameworks_are_behind_one_door(name: str) -> None:
    found = internals_used(MODULES[name].read_text(encoding="utf-8"))
    assert not found, f"{name} uses {', '.join(sorted(found))}: give it a function in {INTERNALS}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from keras.src.utils import tracking", {"keras.src.utils"}),
        ("from keras import src", {"keras"}),
        ("import tensorflow.python.framework", {"tensorflow.python.framework"}),
        ("handle = variable._value.handle", {"_value"}),
        ('shapes = getattr(model, "_build_shapes_dict", None)', {"_build_shapes_dict"}),
        ('STATE = {"_compile_loss": None}', {"_compile_loss"}),
        ('value = getattr(function, f"_{key}")', {"_"}),
        ("class A(keras.Variable):\n    def value(self): return self._value", {"_value"}),
        ("class A:\n    def __init__(self): self._value = 1\n    def value(self): return self._value", set()),
        ("kind = cls.__module__", set()),
    ],
)
def test_a_private_name_would_be_found(source: str, found: set[str]) -> None:
    assert internals_used(source) == found


@every
def test_what_is_public_is_documented(name: str) -> None:
    assert ast.get_docstring(tree(name)), f"{name} has no docstring"
    for label, node in definitions(name):
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        assert overrides(node) or ast.get_docstring(node), f"{name}.{label} has no docstring"


@every
def test_nothing_is_large(name: str) -> None:
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= LARGEST_MODULE, f"{name} has {lines} lines"
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= LARGEST_FUNCTION, f"{name}.{node.name} has {length} lines"


def test_public_names_exist_and_are_sorted_out() -> None:
    import bitwidth

    assert len(set(bitwidth.__all__)) == len(bitwidth.__all__)
    for public in bitwidth.__all__:
        assert getattr(bitwidth, public) is not None


def test_any_is_rare() -> None:
    """What has no one type has a name in `bitwidth/typing.py` or in the backend's `internals/types.py`."""
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values())
    found = sum(isinstance(node, ast.Name) and node.id == "Any" for name in MODULES for node in ast.walk(tree(name)))
    assert 1000 * found / lines < MOST_ANY, f"{found} times in {lines} lines"


def own_members(node: ast.ClassDef) -> list[str]:
    """Public methods and properties that a class has and does not take over from another."""
    found = {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
            decorators = {ast.unparse(decorator) for decorator in item.decorator_list}
            found[item.name] = "override" in decorators
    return [name for name, overrides in found.items() if not overrides]


@every
def test_no_class_has_many_members(name: str) -> None:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ClassDef):
            most = 20 if node.name in ("Context", "Encoding") else 15
            assert len(own_members(node)) <= most, f"{name}.{node.name}: {own_members(node)}"
