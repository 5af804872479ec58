"""The laws that every encoding keeps.

A user's own encoding joins with one line: `CASES += cases("mine", lambda shape: Mine(...), shapes)`, as `FixedPoint`
does at the end of the list.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isinf, prod
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import override

from bitwidth.artifact import StoredParameter, pack
from bitwidth.artifact.reader import open_bytes
from bitwidth.backends.tensorflow.constraints.lowering import evaluate
from bitwidth.encodings import (
    Dense,
    Encoding,
    EncodingState,
    Escaped,
    Format,
    IntegerLevels,
    LevelRows,
    Levels,
    Masked,
    PrefixLevels,
    Quantized,
    TableLevels,
    block_of,
    encoding_from_state,
    grid_shape,
    register_encoding,
    spread,
    uniform_levels,
)
from bitwidth.encodings.encoding import _KINDS
from bitwidth.errors import EncodingError
from bitwidth.testing import check_encoding, check_lowering
from tests.stored import stored_model

Shape = tuple[int, ...]
SHAPES: tuple[Shape, ...] = ((0,), (0, 3), (1,), (7,), (10, 4), (3, 3, 7, 5))


@dataclass(frozen=True, eq=False)
class Case:
    """An encoding, and the shape of a tensor that it fits."""

    family: str
    shape: Shape
    encoding: Encoding

    @property
    def name(self) -> str:
        """The encoding and the shape."""
        masked = "" if self.encoding.mask is None else "masked "
        return f"{masked}{self.family} on {'x'.join(map(str, self.shape)) or 'a scalar'}"

    def values(self, seed: int = 0) -> NDArray[np.float32]:
        """Values of many magnitudes: zeros of both signs, ties between integers, outliers."""
        rng = np.random.default_rng([seed, *self.shape])
        values = rng.normal(0, 2, self.shape)
        special = np.array([0.0, -0.0, 0.5, -1.5, 2.5, 0.25, 1e3, -1e3, 3e-5])
        values = np.where(rng.random(self.shape) < 0.3, rng.choice(special, self.shape), values)
        return np.asarray(values, np.float32)


def cases(name: str, make: Callable[[Shape], Encoding], shapes: Sequence[Shape] = SHAPES) -> list[Case]:
    """`make(shape)` over several shapes, each without a mask and with one over it."""
    found = []
    for shape in shapes:
        encoding = make(shape)
        keep = np.asarray(np.random.default_rng(len(name)).random(shape) < 0.6)
        found += [Case(name, shape, encoding), Case(name, shape, Masked(keep, encoding))]
    return found


def grid(levels: Levels | LevelRows, granularity: str | int, side: str = "") -> Callable[[Shape], Quantized]:
    """Grids with random scales, a fifth of them zero; `side` is what there is besides scales."""

    def make(shape: Shape) -> Quantized:
        axes = tuple(range(len(shape)))
        block = block_of(shape, granularity, axes[-1:], axes[:-1])
        rng = np.random.default_rng(1)
        scales = grid_shape(shape, block)
        scale = np.where(rng.random(scales) < 0.2, 0, rng.uniform(0.01, 0.9, scales)).astype(np.float32)
        low, high = levels.bounds
        zero_point = rng.integers(low, high, scales, endpoint=True, dtype=np.int32) if side == "zero point" else None
        bias = rng.normal(0, 1, scales).astype(np.float32) if side == "bias" else None
        row = None
        if isinstance(levels, LevelRows):
            row = rng.integers(0, len(levels.rows), scales, dtype=np.int32)
        return Quantized(levels, scale, block, zero_point, bias, row)

    return make


def escaped(make: Callable[[Shape], Encoding], format: Format = "float32") -> Callable[[Shape], Escaped]:
    """A fifth of the values left beside what `make` makes."""

    def beside(shape: Shape) -> Escaped:
        rng = np.random.default_rng(2)
        plane = np.asarray(rng.random(shape) < 0.2)
        return Escaped.of(np.asarray(rng.normal(0, 9, shape), np.float32), plane, make(shape), format)

    return beside


POWERS = TableLevels((-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0))
IRREGULAR = TableLevels((-1.75, -0.3, 0.1, 0.11, 2.5))
ROWS = LevelRows(
    (TableLevels((1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)), TableLevels((-10.0, 20.0, 40.0)), POWERS, IRREGULAR)
)
FLAT: tuple[Shape, ...] = ((10, 4),)
KERNELS: tuple[Shape, ...] = ((10, 4), (3, 3, 7, 5))
BLOCKS: tuple[str | int, ...] = ("tensor", "channel", 4)

CASES: list[Case] = [
    *cases("dense", lambda shape: Dense()),
    *cases("float32", lambda shape: Dense("float32")),
    *cases("float16", lambda shape: Dense("float16")),
    *cases("bfloat16", lambda shape: Dense("bfloat16")),
    *cases("e8m6", lambda shape: Dense("e8m6")),
    *cases("e8m3", lambda shape: Dense("e8m3")),
    *cases("e8m1", lambda shape: Dense("e8m1")),
]
for _bits in range(1, 17):
    CASES += cases(f"{_bits}-bit per channel", grid(uniform_levels(_bits), "channel"), FLAT)
for _block in BLOCKS:
    CASES += cases(f"4-bit per {_block}", grid(uniform_levels(4), _block))
    CASES += cases(f"1-bit per {_block}", grid(uniform_levels(1), _block), KERNELS)
    CASES += cases(f"unbounded per {_block}", grid(IntegerLevels(), _block), KERNELS)
    CASES += cases(f"unsigned per {_block}", grid(IntegerLevels(0, 15), _block, "zero point"))
    CASES += cases(f"lopsided per {_block}", grid(IntegerLevels(-3, 12), _block, "zero point"), KERNELS)
    CASES += cases(f"without zero per {_block}", grid(IntegerLevels(3, 9), _block), KERNELS)
    CASES += cases(f"biased per {_block}", grid(IntegerLevels(-3, 4), _block, "bias"), KERNELS)
    CASES += cases(f"prefix per {_block}", grid(PrefixLevels(127, 4), _block), KERNELS)
    CASES += cases(f"uneven prefix per {_block}", grid(PrefixLevels(11, 1), _block), KERNELS)
    CASES += cases(f"nothing dropped per {_block}", grid(PrefixLevels(7, 0), _block), KERNELS)
    CASES += cases(f"biased prefix per {_block}", grid(PrefixLevels(31, 2), _block, "bias"), KERNELS)
    CASES += cases(f"powers per {_block}", grid(POWERS, _block), KERNELS)
    CASES += cases(f"irregular per {_block}", grid(IRREGULAR, _block))
    CASES += cases(f"biased table per {_block}", grid(IRREGULAR, _block, "bias"), KERNELS)
    CASES += cases(f"rows per {_block}", grid(ROWS, _block))
    CASES += cases(f"biased rows per {_block}", grid(ROWS, _block, "bias"), KERNELS)
    CASES += cases(f"escaped 4-bit per {_block}", escaped(grid(uniform_levels(4), _block)))
    CASES += cases(
        f"escaped unsigned per {_block}", escaped(grid(IntegerLevels(0, 15), _block, "zero point"), "float16")
    )
    CASES += cases(f"escaped without zero per {_block}", escaped(grid(IntegerLevels(3, 9), _block)), KERNELS)
    CASES += cases(f"escaped rows per {_block}", escaped(grid(ROWS, _block), "bfloat16"), KERNELS)


CASES += cases("escaped dense", escaped(lambda shape: Dense("float16")))
CASES += cases("escaped e8m4", escaped(lambda shape: Dense("e8m4"), "float16"))


@register_encoding("tests.fixed_point")
@dataclass(frozen=True, eq=False)
class FixedPoint(Encoding):
    """A user's own encoding: 8-bit integers over a power of two."""

    fraction: int

    @override
    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.clip(np.rint(np.asarray(values * 2.0**self.fraction)), -128, 127).astype(np.int8)

    @override
    def decode(self, codes: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(codes.astype(np.float32) * np.float32(2.0**-self.fraction))

    @override
    def check(self, shape: Sequence[int], name: str = "tensor") -> None:
        if len(shape) > 8:
            raise EncodingError(f"{name}: more than 8 axes")

    @override
    def packed_bits(self, shape: Sequence[int]) -> int:
        return 8 * prod(shape)

    @override
    def take(self, axis: int, indices: NDArray[np.integer[Any]]) -> Encoding:
        return self

    @override
    def broken_by(self, later: Encoding) -> str | None:
        return "more bits" if later.bits > 8 else None

    @override
    def describe(self) -> str:
        return "fixed point"

    @property
    @override
    def bits(self) -> float:
        return 8

    @override
    def state(self) -> EncodingState:
        return EncodingState(self.kind, {"fraction": self.fraction})

    @override
    @classmethod
    def from_state(cls, state: EncodingState) -> FixedPoint:
        return cls(state.config["fraction"])


SCALAR: tuple[Shape, ...] = ((),)
CASES += cases("dense scalar", lambda shape: Dense(), SCALAR)
CASES += cases("float16 scalar", lambda shape: Dense("float16"), SCALAR)
CASES += cases("bfloat16 scalar", lambda shape: Dense("bfloat16"), SCALAR)
CASES += cases("e8m2 scalar", lambda shape: Dense("e8m2"), SCALAR)
CASES += cases("4-bit scalar", grid(uniform_levels(4), "tensor"), SCALAR)
CASES += cases("unsigned scalar", grid(IntegerLevels(0, 15), "tensor", "zero point"), SCALAR)
CASES += cases("rows scalar", grid(ROWS, "tensor"), SCALAR)
CASES += cases("escaped scalar", escaped(grid(uniform_levels(4), "tensor")), SCALAR)
CASES += cases("irregular scalar", grid(IRREGULAR, "tensor"), SCALAR)
CASES += cases("a user's", lambda shape: FixedPoint(4))


def law(check: Callable[[Case], None]) -> Callable[[str], None]:
    """Test that `check` holds for every encoding on every shape; a failure names the shape."""

    @pytest.mark.parametrize("family", list(dict.fromkeys(case.family for case in CASES)))
    def test(family: str) -> None:
        for case in CASES:
            if case.family == family:
                try:
                    check(case)
                except BaseException as error:
                    error.add_note(f"the case is {case.name}")
                    raise

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


def truncates(encoding: Encoding) -> bool:
    """Prefixes cut the nearest integer short, which is not always the nearest of their own levels."""
    held = base(encoding)
    return isinstance(held, Quantized) and isinstance(held.levels, PrefixLevels) and held.levels.dropped > 0


def base(encoding: Encoding) -> Encoding:
    return encoding.base if isinstance(encoding, Masked) else encoding


def same_bits(left: NDArray[Any], right: NDArray[Any]) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def test_every_registered_kind_has_cases() -> None:
    own = {kind for kind, cls in _KINDS.items() if cls.__module__.startswith("bitwidth.")}
    assert own <= {case.encoding.kind for case in CASES} | {base(case.encoding).kind for case in CASES}
    assert own >= {"dense", "quantized", "masked"}


@law
def test_it_conforms(case: Case) -> None:
    check_encoding(case.encoding, case.shape)


@law
def test_what_a_layer_reads_conforms(case: Case) -> None:
    if case.shape == (10, 4) and not isinstance(base(case.encoding), FixedPoint):
        check_lowering(case.encoding, case.shape, evaluate)


@law
def test_the_header_of_a_file_tells_the_same(case: Case) -> None:
    """Summary and words of `bw.inspect` are those of the encoding."""
    if isinstance(base(case.encoding), FixedPoint) or prod(case.shape) > 40:
        return
    values = case.encoding.project(case.values())
    stored = StoredParameter("a/kernel", "kernel", "float32", True, case.encoding, values)
    model = stored_model("m", "keras", None, "", None, [["kernel", list(case.shape), "float32"]], (stored,))
    with open_bytes(pack(model).data, "m.bw") as file:
        (entry,) = file.header.entries
    assert entry.summary == case.encoding.summary()
    assert entry.kind == case.encoding.describe().replace("dense", "float32")


@law
def test_encode_leaves_its_argument_alone(case: Case) -> None:
    x = case.values()
    x.setflags(write=False)
    case.encoding.decode(case.encoding.encode(x))
    assert same_bits(x, case.values())


@law
def test_no_other_projection_is_nearer(case: Case) -> None:
    """Whatever a neighbouring value is projected onto is in reach of this value too, and so is no nearer to it."""
    if truncates(case.encoding):
        return
    x = case.values()
    distance = np.abs(case.encoding.project(x).astype(np.float64) - x)
    slack = 4 * 2.0**-23 * (np.abs(x) + 4)
    for seed in range(1, 12):
        step = np.random.default_rng(seed).normal(0, 10.0 ** -(seed % 4), case.shape)
        other = case.encoding.project(np.asarray(x + step, np.float32))
        assert (distance <= np.abs(other.astype(np.float64) - x) + slack).all()


@law
def test_no_level_is_nearer(case: Case) -> None:
    held = base(case.encoding)
    if not isinstance(held, Quantized) or truncates(held):
        return
    x = case.values()
    scale, bias = (np.broadcast_to(side, x.shape).astype(np.float64) for side in sides(held, case.shape))
    zero = 0 if held.zero_point is None else spread(held.zero_point, held.block, case.shape)
    if isinstance(held.levels, LevelRows):
        longest = max(len(row.values) for row in held.levels.rows)
        padded = np.array([(*row.values, *(row.values[-1:] * (longest - len(row.values)))) for row in held.levels.rows])
        levels = padded[np.broadcast_to(spread(np.asarray(held.row), held.block, case.shape), case.shape).reshape(-1)].T
    elif isinstance(held.levels, TableLevels):
        levels = np.broadcast_to(np.array(held.levels.values, np.float64)[:, None], (len(held.levels.values), x.size))
    elif isinf(held.bits):
        with np.errstate(divide="ignore", invalid="ignore"):
            around = np.where(scale > 0, np.floor((x - bias) / scale), 0)
        levels = around.reshape(1, -1) + np.arange(-3, 4)[:, None]
    else:
        low, high = held.levels.bounds
        levels = (np.arange(low, high + 1).reshape(-1, *(1,) * x.ndim) - zero) * np.ones(x.shape)
    candidates = scale.reshape(1, -1) * levels.reshape(len(levels), -1) + bias.reshape(1, -1)
    flat = x.reshape(-1).astype(np.float64)
    least = np.abs(candidates - flat).min(axis=0, initial=inf)
    projected = case.encoding.project(x).reshape(-1).astype(np.float64)
    kept = np.ones(x.size, bool) if case.encoding.mask is None else case.encoding.mask.reshape(-1)
    slack = 4 * 2.0**-23 * (np.abs(flat) + np.abs(bias.reshape(-1)) + np.abs(projected))
    assert (np.abs(projected - flat) <= least + slack)[kept].all()


def sides(held: Quantized, shape: Shape) -> tuple[NDArray[Any], NDArray[Any]]:
    bias = np.zeros_like(held.scale) if held.bias is None else held.bias
    return spread(held.scale, held.block, shape), spread(bias, held.block, shape)


@law
def test_a_prefix_cuts_the_nearest_integer_short(case: Case) -> None:
    held = base(case.encoding)
    if not isinstance(held, Quantized) or not isinstance(held.levels, PrefixLevels):
        return
    levels = held.levels
    whole = Quantized(IntegerLevels(-levels.high, levels.high), held.scale, held.block, bias=held.bias).encode
    codes = whole(case.values())
    assert (held.encode(case.values()) == np.sign(codes) * (np.abs(codes) >> levels.dropped)).all()
    off = np.abs(levels.at(held.encode(case.values())) - codes)
    assert (off <= np.where(held.encode(case.values()) == 0, 2**levels.dropped - 1, 2**levels.dropped / 2)).all()


@law
def test_zero_is_exact(case: Case) -> None:
    held = base(case.encoding)
    if isinstance(held, Escaped) or (isinstance(held, Quantized) and isinstance(held.levels, LevelRows)):
        return  # escaped values are constants, and a row need not have a zero
    if isinstance(held, Quantized):
        low, high = held.levels.bounds
        if held.bias is not None or not low <= 0 <= high:
            return
        if isinstance(held.levels, TableLevels) and 0.0 not in held.levels.values:
            return
    zero = np.zeros(case.shape, np.float32)
    assert same_bits(case.encoding.project(zero), zero)
    assert (case.encoding.project(-zero) == 0).all()


def float_width(array: NDArray[np.float32]) -> int:
    """16 if every element is a float16 or every one a bfloat16 (a float32 whose low half is zero), else 32."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16).astype(np.float32)
    return 16 if same_bits(half, array) or not (array.view(np.uint32) & 0xFFFF).any() else 32


def side_bits(held: Encoding) -> int:
    if isinstance(held, Escaped):
        return side_bits(held.base) + held.plane.size + held.values.size * (32 if held.format == "float32" else 16)
    if not isinstance(held, Quantized):
        return 0
    count = held.scale.size * float_width(held.scale)
    count += 0 if held.zero_point is None else 8 * held.zero_point.size  # their range fits a byte
    count += 0 if held.bias is None else held.bias.size * float_width(held.bias)
    if isinstance(held.levels, TableLevels):
        count += len(held.levels.values) * float_width(np.array(held.levels.values, np.float32))
    if isinstance(held.levels, LevelRows):
        values = np.array([value for row in held.levels.rows for value in row.values], np.float32)
        count += values.size * float_width(values) + 8 * held.scale.size
    return count


def code_bits(held: Encoding) -> int:
    if isinstance(held, Escaped):
        return code_bits(held.base)
    if isinstance(held, Quantized) and isinstance(held.levels, LevelRows):
        return max(width_of(row) for row in held.levels.rows)
    if isinstance(held, Dense):
        few = {"float16": 16, "bfloat16": 16, "e8m6": 15, "e8m4": 13, "e8m3": 12, "e8m2": 11, "e8m1": 10}
        return few.get(held.format or "", 32)
    if isinstance(held, Quantized):
        assert not isinstance(held.levels, LevelRows)
        return width_of(held.levels)
    return 8


def width_of(levels: Levels) -> int:
    low, high = levels.bounds
    return next(bits for bits in range(1, 32) if 2**bits >= high - low + 1)


def stored_code_bits(held: Encoding, kept: NDArray[np.bool_]) -> int:
    """Bits of the codes that are kept, each at the width of its own row of levels."""
    if isinstance(held, Escaped):
        return stored_code_bits(held.base, kept & ~held.plane)
    if isinstance(held, Quantized) and isinstance(held.levels, LevelRows):
        row = np.broadcast_to(spread(np.asarray(held.row), held.block, kept.shape), kept.shape)
        return sum(width_of(held.levels.rows[index]) for index in row[kept].tolist())
    return int(kept.sum()) * code_bits(held)


@law
def test_packed_bits_count_codes_masks_and_side_data(case: Case) -> None:
    held, count = base(case.encoding), prod(case.shape)
    if isinf(case.encoding.bits):
        with pytest.raises(EncodingError, match="no packed width"):
            case.encoding.packed_bits(case.shape)
        return
    assert case.encoding.bits == code_bits(held)
    kept = np.ones(case.shape, bool) if case.encoding.mask is None else case.encoding.mask
    mask = 0 if case.encoding.mask is None else count
    assert case.encoding.packed_bits(case.shape) == stored_code_bits(held, kept) + side_bits(held) + mask


@law
def test_check_accepts_its_shape_and_refuses_others(case: Case) -> None:
    case.encoding.check(case.shape, "layer/kernel")
    if isinstance(case.encoding, Dense | FixedPoint) or (isinstance(case.encoding, Quantized) and not case.shape):
        case.encoding.check((2, 3), "layer/kernel")
        return
    wrong: list[Shape] = [(*case.shape, 2)]
    wrong += [(*case.shape[:axis], 2 * length + 1, *case.shape[axis + 1 :]) for axis, length in enumerate(case.shape)]
    for shape in wrong:
        with pytest.raises(EncodingError, match="layer/kernel"):
            case.encoding.check(shape, "layer/kernel")
        with pytest.raises(EncodingError):
            case.encoding.encode(np.zeros(shape, np.float32))
        with pytest.raises(EncodingError):
            case.encoding.decode(np.zeros(shape, np.int32))


def selections(length: int) -> list[NDArray[np.intp]]:
    """Some of an axis: all, one, some twice, backwards, its first and its last half, whole groups of 4 swapped."""
    everything = np.arange(length)
    groups = [everything[start : start + 4] for start in range(0, length, 4)]
    swapped = groups[1:2] + groups[:1] + groups[2:]
    chosen = [everything, everything[::-1], everything[:1], everything[: length // 2], everything[length // 2 :]]
    chosen += [everything[::3], np.repeat(everything, 2), np.concatenate([*swapped, everything[:0]])]
    return [indices.astype(np.intp) for indices in chosen if len(indices) or not length]


@law
def test_take_gives_the_encoding_of_the_selection(case: Case) -> None:
    x = case.values()
    projected = case.encoding.project(x)
    done = 0
    for axis, length in enumerate(case.shape):
        for indices in selections(length):
            try:
                taken = case.encoding.take(axis, indices)
            except EncodingError as error:
                assert "group" in str(error)  # noqa: PT017 - a refusal is one of two good answers
                continue
            selected = x.take(indices, axis=axis)
            taken.check(selected.shape, "selection")
            assert same_bits(taken.project(selected), projected.take(indices, axis=axis))
            done += 1
    assert done or not case.shape


@law
def test_take_refuses_only_to_cut_a_group(case: Case) -> None:
    held = base(case.encoding)
    if not isinstance(held, Quantized):
        return
    for axis, length in enumerate(case.shape):
        grouped = held.scale.shape[axis] > 1 and held.block[axis] > 1
        for indices in ([1], [0, 2], [length - 1, 0], [3, 2, 1, 0]):
            if max(indices) >= length or len(set(indices)) < len(indices):
                continue
            if grouped:
                with pytest.raises(EncodingError, match="cuts through groups"):
                    case.encoding.take(axis, np.array(indices))
            else:
                case.encoding.take(axis, np.array(indices))


def test_a_name_for_two_encodings_is_refused() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register_encoding("dense")(FixedPoint)
    assert FixedPoint.kind == "tests.fixed_point"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(EncodingError, match=r"unknown encoding 'wavelet'; known: .*dense"):
        encoding_from_state(EncodingState("wavelet"))


KEEP = np.array([True, True, False, True])
LESS = np.array([True, False, False, True])
OTHER = np.array([False, True, True, True])


def bits(count: int) -> Quantized:
    return Quantized(uniform_levels(count), np.ones(1, np.float32), (4,))


def beside(plane: Sequence[bool], base: Encoding, format: Format = "float32") -> Escaped:
    return Escaped.of(np.full(4, 9.5, np.float32), np.array(plane), base, format)


FEW, SOME, OTHERS = (False, False, False, True), (True, False, False, True), (False, True, False, False)

KEPT = [
    (beside(SOME, bits(4)), beside(SOME, bits(4))),
    (beside(SOME, bits(4)), beside(FEW, bits(3))),
    (beside(SOME, bits(4)), beside(FEW, bits(4), "float16")),
    (beside(SOME, bits(4)), bits(4)),
    (beside(SOME, bits(4)), Masked(LESS, beside(SOME, bits(4)))),
    (Masked(KEEP, beside(SOME, bits(4))), Masked(LESS, beside(FEW, bits(4)))),
    (Dense("float16"), beside(SOME, bits(4), "float16")),
    (bits(4), beside((False,) * 4, bits(4))),
    (bits(16), beside(SOME, bits(8), "bfloat16")),
    (Dense(), Dense("float16")),
    (Dense(), bits(4)),
    (Dense("float16"), Dense("bfloat16")),
    (Dense("float16"), Dense("e8m6")),
    (Dense("bfloat16"), Dense("e8m1")),
    (Dense("e8m3"), Dense("e8m3")),
    (Dense("e8m3"), Dense("e8m2")),
    (Dense("e8m3"), bits(4)),
    (Dense("e8m3"), Masked(KEEP, Dense("e8m3"))),
    (Masked(KEEP, Dense("e8m3")), Masked(LESS, Dense("e8m1"))),
    (Dense("float16"), bits(8)),
    (bits(4), bits(4)),
    (bits(4), bits(2)),
    (bits(4), Masked(KEEP, bits(4))),
    (Masked(KEEP), Masked(KEEP, Dense("float16"))),
    (Masked(KEEP), Masked(LESS)),
    (Masked(KEEP, bits(4)), Masked(LESS, bits(3))),
    (Quantized(IntegerLevels(), np.ones(1, np.float32), (4,)), bits(16)),
    (Quantized(IntegerLevels(), np.ones(1, np.float32), (4,)), Dense()),
]
BROKEN = [
    (beside(SOME, bits(4)), beside(OTHERS, bits(4)), "1 more values"),
    (beside(SOME, bits(4), "float16"), beside(SOME, bits(4)), "float16"),
    (beside(SOME, bits(4)), beside(SOME, bits(5)), "4-bit"),
    (beside(SOME, bits(4)), Dense(), "4-bit"),
    (bits(4), beside(FEW, bits(4)), "4-bit"),
    (bits(4), Masked(KEEP, beside(FEW, bits(4))), "4-bit"),
    (Dense("float16"), beside(FEW, bits(4)), "32 bits"),
    (Masked(KEEP, beside(FEW, bits(4))), Masked(KEEP, beside(SOME, bits(4))), "1 more values"),
    (Dense("float16"), Dense(), "float16"),
    (Dense("bfloat16"), Dense("float32"), "bfloat16"),
    (Dense("float16"), Masked(KEEP, Dense()), "float16"),
    (Dense("e8m3"), Dense("e8m4"), "would be held as 13-bit float e8m4"),
    (Dense("e8m6"), Dense("bfloat16"), "would be held as bfloat16"),
    (Dense("e8m6"), Dense("float16"), "it was held as 15-bit float e8m6"),
    (Dense("e8m6"), Dense(), "e8m6"),
    (Dense("e8m3"), bits(16), "would be held as 16-bit"),
    (Dense("e8m3"), beside(FEW, bits(4)), "32 bits"),
    (Dense("e8m3"), beside(FEW, bits(4), "float16"), "16 bits"),
    (Masked(KEEP, Dense("e8m3")), Dense("e8m3"), "pruned"),
    (bits(4), bits(5), "4-bit"),
    (bits(4), Dense(), "4-bit"),
    (bits(4), Masked(KEEP), "4-bit"),
    (bits(16), Quantized(IntegerLevels(), np.ones(1, np.float32), (4,)), "16-bit"),
    (Masked(KEEP), Dense(), "1 values were pruned"),
    (Masked(LESS), Masked(KEEP), "1 pruned values would come back"),
    (Masked(KEEP), Masked(OTHER), "1 pruned values would come back"),
    (Masked(KEEP), Masked(np.ones((2, 2), bool)), "pruned values would come back"),
    (Masked(KEEP, bits(4)), bits(4), "pruned"),
    (Masked(KEEP, bits(4)), Masked(KEEP, bits(8)), "4-bit"),
    (Masked(KEEP, Dense("float16")), Masked(LESS), "float16"),
]


@pytest.mark.parametrize(("before", "after"), KEPT)
def test_a_promise_is_kept(before: Encoding, after: Encoding) -> None:
    assert before.broken_by(after) is None


@pytest.mark.parametrize(("before", "after", "words"), BROKEN)
def test_a_broken_promise_is_told(before: Encoding, after: Encoding, words: str) -> None:
    reason = before.broken_by(after)
    assert reason is not None
    assert words in reason


def test_promises_are_kept_along_a_chain() -> None:
    """What may follow what may follow an encoding may follow it directly."""
    encodings = [Dense("float16"), Dense(), bits(2), bits(4), Masked(KEEP), Masked(LESS, bits(3)), Masked(LESS)]
    encodings += [Dense("bfloat16"), Dense("e8m5"), Dense("e8m2"), Masked(KEEP, Dense("e8m2")), bits(13)]
    encodings += [beside(FEW, bits(3)), beside(SOME, bits(4)), Masked(LESS, beside(FEW, bits(2), "float16"))]
    for first, second, third in itertools.permutations(encodings, 3):
        if first.broken_by(second) is None and second.broken_by(third) is None:
            assert first.broken_by(third) is None, (first.describe(), second.describe(), third.describe())
