"""Each law of `check_encoding` can fail: encodings that are wrong in one way each, and what the suite says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.encodings import (
    Affine,
    Dense,
    Encoding,
    EncodingState,
    EncodingSummary,
    Escaped,
    Masked,
    Quantized,
    register_encoding,
    uniform_levels,
)
from bitwidth.errors import EncodingError, Refused
from bitwidth.testing import check_encoding, example_values
from bitwidth.testing.encodings import Floats

SHAPE = (4, 6)


@register_encoding("tests.quarters")
@dataclass(frozen=True, eq=False)
class Quarters(Encoding):
    """A user's own: multiples of a step for each column, in 8-bit codes."""

    steps: NDArray[np.float32] = field(default_factory=lambda: np.array([1, 0.25, 0.5, 0.125, 1, 2], np.float32))

    @override
    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.clip(np.rint(values / self.steps), -127, 127).astype(np.int32)

    @override
    def decode(self, codes: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(codes.astype(np.float32) * self.steps)

    @override
    def check(self, shape: Sequence[int], name: str = "tensor") -> None:
        if tuple(shape[1:]) != self.steps.shape:
            raise EncodingError(f"{name}: {len(self.steps)} columns expected, got {tuple(shape)}")

    @override
    def packed_bits(self, shape: Sequence[int]) -> int:
        return 8 * int(np.prod(shape)) + 16 * self.steps.size

    @override
    def take(self, axis: int, indices: NDArray[np.integer[Any]]) -> Encoding:
        return self if axis == 0 else type(self)(self.steps[indices])

    @override
    def broken_by(self, later: Encoding) -> str | None:
        return None if later.bits <= 8 else "it would need more than 8 bits"

    @property
    @override
    def bits(self) -> float:
        return 8

    @override
    def affine(self, values: NDArray[Any]) -> Affine:
        return Affine(self.encode(values), self.steps[None], None, (len(values), 1), 8, True)

    @override
    def state(self) -> EncodingState:
        return EncodingState(self.kind, {}, {"steps": self.steps.copy()})

    @override
    @classmethod
    def from_state(cls, state: EncodingState) -> Encoding:
        return cls(np.asarray(state.arrays["steps"], np.float32))  # a file holds it in a smaller format


ANY: Any = [1]  # a list, which comes back as a tuple
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "decode": ({"project": lambda self, x: self.decode(self.encode(x)) + np.float32(1)}, "is not project"),
    "shape": ({"encode": lambda self, x: Quarters.encode(self, x)[:1]}, "have the shapes"),
    "dtype": ({"decode": lambda self, c: Quarters.decode(self, c).astype(np.float64)}, "onto float64"),
    "finite": ({"decode": lambda self, c: Quarters.decode(self, c) / np.float32(0.0)}, "not finite"),
    "own codes": ({"check_codes": lambda self, codes: _refuse()}, "refused"),
    "idempotent": ({"decode": lambda self, c: Quarters.decode(self, np.abs(c) // 2)}, "projecting twice"),
    "mask shape": ({"mask": property(lambda self: np.ones(3, bool))}, "a mask of"),
    "mask values": ({"mask": property(lambda self: np.zeros(SHAPE, bool))}, "masked values are not zero"),
    "mask codes": (
        {
            "mask": property(lambda self: np.arange(24).reshape(SHAPE) > 3),
            "decode": lambda self, c: np.where(self.mask, Quarters.decode(self, c), np.float32(0)),
        },
        "codes of masked values",
    ),
    "bits of codes": ({"code_bits": lambda self, where: 9 * int(where.sum())}, "wider than `bits`"),
    "few bits": ({"bits": property(lambda self: 2)}, "codes in 2 bits"),
    "parts of codes": ({"code_bits": lambda self, where: 7 * int(where.sum()) + 1}, "not their sum"),
    "no bound": ({"bits": property(lambda self: np.inf)}, "without a bound"),
    "side bits": ({"packed_bits": lambda self, shape: 8 * int(np.prod(shape))}, "0 bits besides codes"),
    "too many side bits": ({"packed_bits": lambda self, shape: 9999}, "the state has 96 to 192"),
    "take": ({"take": lambda self, axis, indices: self if axis == 0 else Quarters(self.steps[::-1])}, "take(1"),
    "no take": ({"take": lambda self, axis, indices: _refuse()}, "whole axis 0 is refused"),
    "take shape": ({"take": lambda self, axis, indices: Quarters(self.steps[:1])}, "columns expected"),
    "own promise": ({"broken_by": lambda self, later: "never enough"}, "breaks its own promise: never enough"),
    "pruned": ({"broken_by": lambda self, later: None if later is self else "other"}, "a mask over it"),
    "no promise": ({"broken_by": lambda self, later: None}, "plain float32 would keep"),
    "state": ({"from_state": classmethod(lambda cls, state: Quarters(state.arrays["steps"] * 2))}, "its state makes"),
    "other state": ({"from_state": classmethod(lambda cls, state: Dense())}, "its state makes a Dense"),
    "open arrays": ({"state": lambda self: EncodingState(self.kind, {}, {"steps": self.steps})}, "is written to"),
    "no words": ({"describe": lambda self: ""}, "no words"),
    "other words": (
        {"summary": lambda self: EncodingSummary("other", 8), "describe": lambda self: "q"},
        "summarized as",
    ),
    "summary bits": ({"summary": lambda self: EncodingSummary(self.kind, 4)}, "a summary of 4 bits"),
    "summary JSON": ({"summary": lambda self: EncodingSummary(self.kind, 8, block=ANY)}, "through JSON"),
    "summary mask": ({"summary": lambda self: EncodingSummary(self.kind, 8, sparsity=0.5)}, "a mask that is not there"),
    "summary escapes": (
        {"summary": lambda self: EncodingSummary(self.kind, 8, escapes=2, escape_format="float32")},
        "a summary of 2 escapes",
    ),
    "affine": (
        {"affine": lambda self, x: replace(Quarters.affine(self, x), scale=self.steps[None] * 2)},
        "is not project",
    ),
    "affine bits": ({"affine": lambda self, x: replace(Quarters.affine(self, x), bits=3)}, "codes outside of -4 to 3"),
    "affine sign": ({"affine": lambda self, x: replace(Quarters.affine(self, x), signed=False)}, "codes outside of 0"),
    "affine zero": (
        {"affine": lambda self, x: replace(Quarters.affine(self, x), zero_point=np.zeros((1, 6), np.int64))},
        "zero points of int64",
    ),
    "affine block": (
        {"affine": lambda self, x: replace(Quarters.affine(self, x), block=(2, 1))},
        "for blocks of (2, 1)",
    ),
    "affine reason": ({"affine": lambda self, x: _refuse(Refused(""))}, "without a reason"),
}


def _refuse(error: Exception | None = None) -> Any:
    raise EncodingError("refused") if error is None else error


def changed(name: str, changes: dict[str, Any]) -> Encoding:
    """`Quarters` with some members exchanged, registered under a name of its own."""
    kind = type(f"Wrong{name}", (Quarters,), dict(changes))
    register_encoding(f"tests.wrong.{name}")(kind)
    made: Encoding = kind()
    return made


def test_the_right_one_conforms() -> None:
    check_encoding(Quarters(), SHAPE, straight)
    check_encoding(Masked(np.arange(24).reshape(SHAPE) % 3 > 0, Quarters()), SHAPE, straight)
    assert Masked(np.ones(SHAPE, bool), Quarters()).describe() == "0.0% zero, tests.quarters"


@pytest.mark.parametrize("name", CHANGES)
def test_a_wrong_encoding_is_found(name: str) -> None:
    changes, words = CHANGES[name]
    with np.errstate(all="ignore"), pytest.raises((AssertionError, EncodingError)) as raised:
        check_encoding(changed(name, changes), SHAPE)
    assert words in str(raised.value)


class Forgets(Quarters):
    """It comes back from a file as it should, once; then its steps are others."""

    loads: ClassVar[int] = 0

    @override
    @classmethod
    def from_state(cls, state: EncodingState) -> Encoding:
        Forgets.loads += 1
        steps = np.asarray(state.arrays["steps"], np.float32)
        return cls(steps if Forgets.loads == 1 else np.roll(steps, 1))


def test_a_file_that_gives_back_something_else_is_found() -> None:
    register_encoding("tests.forgets")(Forgets)
    with pytest.raises(AssertionError, match="a file returns other values"):
        check_encoding(Forgets(), SHAPE)


def test_a_promise_without_its_mask_is_found() -> None:
    @dataclass(frozen=True, eq=False)
    class Lax(Masked):
        @override
        def broken_by(self, later: Encoding) -> str | None:
            return self.base.broken_by(later)

    with pytest.raises(AssertionError, match="kept without its mask"):
        check_encoding(Lax(np.arange(24).reshape(SHAPE) > 5, Quarters()), SHAPE)


def straight(encoding: Encoding, values: Floats, upstream: Floats) -> tuple[Floats, Floats]:
    """What a backend does, in numpy."""
    keep = np.ones(values.shape, bool) if encoding.mask is None else encoding.mask
    return encoding.project(values), np.where(keep, upstream, np.float32(0))


GRID = Quantized(uniform_levels(4), np.full((1, 6), 0.5, np.float32), (4, 1))
WRONG: dict[str, tuple[Callable[[Encoding, Floats, Floats], tuple[Floats, Floats]], str]] = {
    "values": (lambda e, x, up: (e.project(x) + np.float32(1), up), "other values"),
    "dtype": (lambda e, x, up: (np.asarray(e.project(x), np.float64), up), "reads float64"),
    "none": (lambda e, x, up: (e.project(x), up * np.float32(0)), "straight through"),
    "clipped": (lambda e, x, up: (e.project(x), np.where(np.abs(x) > 3, np.float32(0), up)), "straight through"),
    "through masks": (lambda e, x, up: (e.project(x), up), "straight through"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_lowering_is_found(name: str) -> None:
    encoding = Masked(np.arange(24).reshape(SHAPE) % 3 > 0, GRID)
    check_encoding(encoding, SHAPE, straight)
    evaluate, words = WRONG[name]
    with pytest.raises(AssertionError, match=words):
        check_encoding(encoding, SHAPE, evaluate)


def test_escaped_values_are_read_from_the_variable() -> None:
    plane = np.arange(24).reshape(SHAPE) % 7 == 0
    held = Escaped.of(example_values(SHAPE, 9), plane, GRID, "float16")
    check_encoding(held, SHAPE, straight)
    check_encoding(Masked(np.arange(24).reshape(SHAPE) % 2 > 0, held), SHAPE, straight)
