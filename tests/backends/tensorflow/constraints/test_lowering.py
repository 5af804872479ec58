"""What a layer reads while training is what numpy decodes, with XLA and without."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bitwidth.backends.tensorflow.constraints.lowering import lower, straight_through, through_masks
from bitwidth.encodings import (
    Dense,
    Encoding,
    Escaped,
    Format,
    IntegerLevels,
    LevelRows,
    Masked,
    PrefixLevels,
    Quantized,
    TableLevels,
    prefix,
    uniform_levels,
)
from bitwidth.errors import EncodingError
from bitwidth.fitting import fit_scale

RNG = np.random.default_rng(11)
VALUES = RNG.standard_normal((6, 10)).astype(np.float32)
KEEP = RNG.random((6, 10)) > 0.4
ONES = np.ones((1, 10), np.float32)


def grid(bits: int, block: tuple[int, int] = (6, 1)) -> Quantized:
    return fit_scale(VALUES, uniform_levels(bits), block)


ROWS = Quantized(
    LevelRows((TableLevels((1.0, 2.0, 4.0, 8.0, 16.0)), TableLevels((-1.5, 0.25, 2.0)), TableLevels((-3.0, 4.0)))),
    ONES * np.float32(0.7),
    (6, 1),
    row=np.arange(10, dtype=np.int32).reshape(1, 10) % 3,
)
PLANE = np.abs(VALUES) > 1.2
EXACT: dict[str, Encoding] = {
    "float16": Dense("float16"),
    "bfloat16": Dense("bfloat16"),
    "masked": Masked(KEEP),
    **{f"{bits} bits": grid(bits) for bits in (1, 2, 3, 4, 8, 12, 16)},
    "per tensor": grid(4, (6, 10)),
    "ragged groups": grid(4, (4, 1)),
    "masked grid": Masked(KEEP, grid(4)),
    "unbounded": Quantized(IntegerLevels(), ONES * np.float32(0.037), (6, 1)),
    "zero point": Quantized(IntegerLevels(0, 15), ONES * np.float32(0.2), (6, 1), np.full((1, 10), 6, np.int32)),
    **{f"first {bits} of 8 bits": prefix(grid(8), bits) for bits in range(2, 8)},
    "first 3 of unbounded": prefix(Quantized(IntegerLevels(), ONES * np.float32(0.037), (6, 1)), 3, planes=7),
    "first 9 of 16 bits": prefix(grid(16), 9),
    "uneven prefix": Quantized(PrefixLevels(11, 2), ONES * np.float32(0.1), (6, 1)),
    "masked prefix": Masked(KEEP, prefix(grid(8), 4)),
    "zero scale": Quantized(IntegerLevels(-7, 7), ONES * 0, (6, 1)),
    "powers of two": Quantized(TableLevels((-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)), ONES * np.float32(0.4), (6, 1)),
    "masked table": Masked(KEEP, Quantized(TableLevels((-1.5, 0.25, 2.0)), ONES, (6, 1))),
    "rows": ROWS,
    "masked rows": Masked(KEEP, ROWS),
    "escaped": Escaped.of(VALUES, PLANE, grid(3)),
    "escaped rows": Escaped.of(VALUES, PLANE, ROWS),
    "escaped dense": Escaped.of(VALUES, PLANE, Dense("bfloat16")),
    "masked escaped": Masked(KEEP, Escaped.of(VALUES, PLANE, grid(3))),
}


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("name", EXACT)
def test_reads_what_numpy_decodes(name: str, xla: bool) -> None:
    encoding = EXACT[name]
    lowering = lower(encoding, VALUES.shape)
    assert lowering is not None
    read = tf.function(straight_through(lowering), jit_compile=xla)
    np.testing.assert_array_equal(read(tf.constant(VALUES)).numpy(), encoding.project(VALUES))


@pytest.mark.parametrize("format", ["float16", "bfloat16"])
def test_escapes_in_16_bits_are_read_as_they_are_stored(format: Format) -> None:
    encoding = Escaped.of(VALUES, PLANE, grid(3), format)
    lowering = lower(encoding, VALUES.shape)
    assert lowering is not None
    read = straight_through(lowering)(tf.constant(VALUES)).numpy()
    np.testing.assert_array_equal(read, encoding.project(VALUES))


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("format", ["float32", "float16", "bfloat16"])
def test_escapes_train_and_are_taken_back(format: Format, mask: bool) -> None:
    """They read the master, their gradient is the master's, and baked they are what was read last."""
    inner = Escaped.of(VALUES, PLANE, grid(3), format)
    encoding: Encoding = Masked(KEEP, inner) if mask else inner
    lowering = lower(encoding, VALUES.shape)
    assert lowering is not None
    trained = VALUES + RNG.standard_normal(VALUES.shape).astype(np.float32)
    master = tf.Variable(trained)
    with tf.GradientTape() as tape:
        read = straight_through(lowering)(tf.convert_to_tensor(master))
        total = tf.reduce_sum(read)
    np.testing.assert_array_equal(tape.gradient(total, master).numpy(), KEEP if mask else np.ones_like(VALUES))
    baked = lowering.baked(encoding, trained)
    np.testing.assert_array_equal(read.numpy(), baked.project(trained))
    assert encoding.broken_by(baked) is None
    assert lowering.baked(Dense(), trained).describe() == "dense"


def test_other_encodings_have_nothing_to_bake() -> None:
    for name in ("4 bits", "masked", "masked grid", "rows"):
        lowering = lower(EXACT[name], VALUES.shape)
        assert lowering is not None
        assert lowering.baked(EXACT[name], VALUES).describe() == EXACT[name].describe()


def test_a_plane_of_escapes_changes_without_a_retrace() -> None:
    lowering = lower(Masked(KEEP, Escaped.of(VALUES, PLANE, grid(8))), VALUES.shape)
    assert lowering is not None
    read = tf.function(straight_through(lowering))
    read(tf.constant(VALUES))
    other = Masked(~KEEP, Escaped.of(VALUES, ~PLANE, grid(2)))
    lowering.update(other)
    np.testing.assert_array_equal(read(tf.constant(VALUES)).numpy(), other.project(VALUES))
    assert read.experimental_get_tracing_count() == 1


def test_bias_is_within_one_rounding() -> None:
    encoding = Quantized(IntegerLevels(-7, 7), ONES * np.float32(0.3), (6, 1), bias=ONES * np.float32(0.05))
    lowering = lower(encoding, VALUES.shape)
    assert lowering is not None
    read = straight_through(lowering)(tf.constant(VALUES)).numpy()
    np.testing.assert_allclose(read, encoding.project(VALUES), rtol=0, atol=2e-7)


def test_gradient_passes_straight_through_and_stops_at_masks() -> None:
    lowering = lower(Masked(KEEP, grid(3)), VALUES.shape)
    assert lowering is not None
    master, weight = tf.Variable(VALUES), RNG.standard_normal(VALUES.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(straight_through(lowering)(tf.convert_to_tensor(master)) * weight)
    np.testing.assert_array_equal(tape.gradient(total, master).numpy(), weight * KEEP)
    with through_masks(), tf.GradientTape() as tape:
        total = tf.reduce_sum(straight_through(lowering)(tf.convert_to_tensor(master)) * weight)
        gradient = tape.gradient(total, master)
    np.testing.assert_array_equal(gradient.numpy(), weight)


def test_state_changes_without_a_retrace() -> None:
    lowering = lower(Masked(KEEP, grid(8)), VALUES.shape)
    assert lowering is not None
    traces = 0

    @tf.function  # type: ignore[untyped-decorator]
    def read(master: tf.Tensor) -> tf.Tensor:
        nonlocal traces
        traces += 1
        return straight_through(lowering)(master)

    read(tf.constant(VALUES))
    narrower = Masked(~KEEP, grid(2))
    lowering.update(narrower)
    np.testing.assert_array_equal(read(tf.constant(VALUES)).numpy(), narrower.project(VALUES))
    assert traces == 1


@pytest.mark.parametrize("xla", [False, True])
def test_a_grid_changes_to_any_prefix_without_a_retrace(xla: bool) -> None:
    whole = Masked(KEEP, grid(8))
    lowering = lower(whole, VALUES.shape)
    assert lowering is not None
    traces = 0

    @tf.function(jit_compile=xla)  # type: ignore[untyped-decorator]
    def read(master: tf.Tensor) -> tf.Tensor:
        nonlocal traces
        traces += 1
        return straight_through(lowering)(master)

    read(tf.constant(VALUES))
    once = traces
    for bits in (4, 8, 2, 3, 8, 7):
        encoding = prefix(whole, bits)
        lowering.update(encoding)
        found = read(tf.constant(VALUES)).numpy()
        np.testing.assert_array_equal(found, encoding.project(VALUES))
        np.testing.assert_array_equal(found, encoding.decode(encoding.encode(VALUES)))
    assert traces == once


def test_the_gradient_passes_straight_through_a_prefix() -> None:
    lowering = lower(Masked(KEEP, prefix(grid(8), 3)), VALUES.shape)
    assert lowering is not None
    master = tf.Variable(VALUES)

    @tf.function  # type: ignore[untyped-decorator]
    def gradient() -> tf.Tensor:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(straight_through(lowering)(tf.convert_to_tensor(master)))
        return tape.gradient(total, master)

    np.testing.assert_array_equal(gradient().numpy(), KEEP.astype(np.float32))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("masked", "4 bits"),
        ("4 bits", "ragged groups"),
        ("4 bits", "1 bits"),
        ("escaped", "4 bits"),
        ("rows", "powers of two"),
    ],
)
def test_another_structure_is_refused(first: str, second: str) -> None:
    lowering = lower(EXACT[first], VALUES.shape)
    assert lowering is not None
    with pytest.raises(EncodingError):
        lowering.update(EXACT[second])


def test_dense_needs_no_lowering() -> None:
    assert lower(Dense(), (3,)) is None
    assert lower(Dense("float32"), (3,)) is None
