"""A conformance suite for encodings and their lowerings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from math import isinf, prod

import numpy as np
from numpy.typing import NDArray

from bitwidth.artifact import Architecture, StoredModel, StoredParameter, pack
from bitwidth.artifact.reader import open_bytes
from bitwidth.encodings import (
    Dense,
    Encoding,
    EncodingState,
    EncodingSummary,
    encoding_from_state,
    escaped_places,
    least_format,
    masked,
)
from bitwidth.errors import EncodingError, Refused
from bitwidth.testing.asserting import require, same_bits
from bitwidth.typing import Array

Floats = NDArray[np.float32]
Evaluate = Callable[[Encoding, Floats, Floats], tuple[Floats, Floats]]
_SPECIAL = (0.0, -0.0, 0.5, -1.5, 2.5, 0.25, 1e3, -1e3, 3e-5)
_PATH = "layer/kernel"


def check_encoding(encoding: Encoding, shape: Sequence[int], evaluate: Evaluate | None = None) -> None:
    """Check that an encoding conforms, on values of a shape.

    The codes decode to the projection, which is float32 and finite; projecting twice is projecting once; masked values
    are zero. Its bits count codes and side data. `take` returns the encoding of the selection. It keeps its own
    promise, also under a further mask, and lets nobody undo it. State and file give back encoding and values. Summary
    and words agree; integer codes for exporters are exact or refused. Where a backend is given, what a layer reads is
    the projection and gradients pass straight through, but for masked values.

    Args:
        encoding: the encoding.
        shape: of a float32 tensor that it fits.
        evaluate: from encoding, values and the gradient of what the layer reads, what it reads and the gradient of the
            values: `bitwidth.backends.tensorflow.constraints.lowering.evaluate`. None to check the encoding alone.

    Raises:
        AssertionError: naming the law that does not hold.

    Example:
        >>> from bitwidth.encodings import Quantized, uniform_levels
        >>> check_encoding(Quantized(uniform_levels(4), np.array([[0.5, 0.1]], np.float32), (3, 1)), (3, 2))
    """
    shape = tuple(shape)
    encoding.check(shape, _PATH)
    for check in (check_mask, check_projection, check_idempotence, check_packed_bits, check_selections):
        check(encoding, shape)
    for check in (check_encoding_promise, check_state, check_encoding_file, check_summary, check_affine):
        check(encoding, shape)
    if evaluate is not None:
        check_lowering(encoding, shape, evaluate)


def example_values(shape: Sequence[int], seed: int = 0) -> Floats:
    """Values of many magnitudes, float32 and read-only: zeros of both signs, ties between integers, outliers."""
    rng = np.random.default_rng([seed, *shape])
    drawn = np.where(rng.random(shape) < 0.3, rng.choice(_SPECIAL, shape), rng.normal(0, 2, shape))
    values = np.asarray(drawn, np.float32)
    values.setflags(write=False)
    return values


def check_projection(encoding: Encoding, shape: tuple[int, ...]) -> None:
    """`decode(encode(x))` is `project(x)`: float32, finite, of the shape; codes pass `check_codes`."""
    x = example_values(shape)
    codes, projected = encoding.encode(x), encoding.project(x)
    require(
        codes.shape == projected.shape == shape, f"codes and values have the shapes {codes.shape}, {projected.shape}"
    )
    require(projected.dtype == np.float32, f"float32 values are projected onto {projected.dtype}")
    require(bool(np.isfinite(projected).all()), "project returns values that are not finite")
    require(same_bits(encoding.decode(codes), projected), "decode(encode(x)) is not project(x)")
    encoding.unmasked.check_codes(codes if encoding.mask is None else codes[encoding.mask])


def check_idempotence(encoding: Encoding, shape: tuple[int, ...]) -> None:
    """Projecting twice is projecting once, to the bit."""
    for seed in range(3):
        once = encoding.project(example_values(shape, seed))
        require(same_bits(encoding.project(once), once), "projecting twice is not projecting once")


def check_mask(encoding: Encoding, shape: tuple[int, ...]) -> None:
    """Where the mask is False the value is plus zero and the code zero, whatever they are given."""
    if encoding.mask is None:
        return
    require(encoding.mask.shape == shape, f"a mask of {encoding.mask.shape} for values of {shape}")
    x = np.where(encoding.mask, example_values(shape), np.float32(-3.7)).astype(np.float32)
    dropped = encoding.project(x)[~encoding.mask]
    require(same_bits(dropped, np.zeros_like(dropped)), "masked values are not zero")
    require(not np.count_nonzero(encoding.encode(x)[~encoding.mask]), "codes of masked values are not zero")


def check_packed_bits(encoding: Encoding, shape: tuple[int, ...]) -> None:
    """The bits are those of the codes, as many as `bits` can tell apart, and of the arrays of the state."""
    if isinf(encoding.bits):
        try:
            encoding.packed_bits(shape)
        except EncodingError:
            return
        raise AssertionError("codes without a bound have no packed width")
    every = np.ones(shape, np.bool_)
    some = np.asarray(np.random.default_rng(0).random(shape) < 0.5)
    codes = encoding.code_bits(every)
    require(codes == encoding.code_bits(some) + encoding.code_bits(~some), "code_bits of two parts is not their sum")
    require(codes <= encoding.bits * prod(shape), "codes are wider than `bits`")
    found = np.unique(encoding.encode(example_values(shape))).size
    require(found <= 2**encoding.bits, f"{found} codes in {encoding.bits} bits")
    least, most = _side_bits(encoding.state())
    side = encoding.packed_bits(shape) - codes
    require(least <= side <= most, f"packed_bits counts {side} bits besides codes; the state has {least} to {most}")


def _side_bits(state: EncodingState) -> tuple[int, int]:
    """Bits of the arrays of a state: in the smallest format that holds each, and as they are."""
    least = most = 0
    for array in state.arrays.values():
        wide = 1 if array.dtype == np.bool_ else 8 * array.dtype.itemsize
        narrow = least_format(array).width if array.dtype == np.float32 else wide
        least, most = least + array.size * narrow, most + array.size * wide
    parts = [_side_bits(part) for part in state.parts.values()]
    return least + sum(part[0] for part in parts), most + sum(part[1] for part in parts)


def _selections(length: int) -> Iterator[NDArray[np.intp]]:
    """Positions along an axis: all, backwards, the first, the first half, all twice, two moved to the end."""
    every = np.arange(length)
    yield every
    if length > 1:
        yield from (every[::-1], every[:1], every[: length // 2], np.repeat(every, 2))
        yield np.concatenate([every[2:], every[:2]])


def check_selections(encoding: Encoding, shape: tuple[int, ...]) -> None:
    """`take` returns the encoding of the selected values, or refuses with an EncodingError."""
    x = example_values(shape)
    projected = encoding.project(x)
    for axis, length in enumerate(shape):
        for indices in _selections(length):
            try:
                taken = encoding.take(axis, indices)
            except EncodingError:
                require(not np.array_equal(indices, np.arange(length)), f"take of the whole axis {axis} is refused")
                continue
            selected = x.take(indices, axis=axis)
            taken.check(selected.shape, _PATH)
            same = same_bits(taken.project(selected), projected.take(indices, axis=axis))
            require(same, f"take({axis}, {indices.tolist()}) is not the encoding of the selection")


def check_encoding_promise(encoding: Encoding, shape: tuple[int, ...]) -> None:
    """It keeps its own promise, under a further mask too; it is broken by plain float32 and by a mask taken off."""
    require(encoding.broken_by(encoding) is None, f"it breaks its own promise: {encoding.broken_by(encoding)}")
    keep = np.asarray(np.random.default_rng(1).random(shape) < 0.5)
    pruned = encoding.broken_by(masked(encoding, keep))
    require(pruned is None, f"a mask over it breaks its promise: {pruned}")
    x = example_values(shape)
    lossy = not np.array_equal(encoding.project(x), x)
    if lossy and encoding.unmasked.bits < 32:
        require(bool(encoding.broken_by(Dense("float32"))), "plain float32 would keep its promise")
    if encoding.mask is not None and not encoding.mask.all():
        require(bool(encoding.broken_by(encoding.unmasked)), "its promise would be kept without its mask")


def check_state(encoding: Encoding, shape: tuple[int, ...]) -> None:
    """The state goes through JSON and makes the same encoding; its arrays do not change the encoding."""
    x, state = example_values(shape, 1), encoding.state()
    again = encoding_from_state(_through_json(state))
    require(type(again) is type(encoding), f"its state makes a {type(again).__name__}")
    _check_equal(again, encoding, x, "its state")
    held = encoding.project(x)
    for array in _arrays(state):
        if array.flags.writeable:
            array[...] = 1
    require(same_bits(encoding.project(x), held), "it changes when an array of its state is written to")


def _check_equal(again: Encoding, encoding: Encoding, x: Floats, what: str) -> None:
    require(again.bits == encoding.bits, f"{what} makes an encoding of {again.bits} bits")
    require(again.summary() == encoding.summary(), f"{what} makes {again.describe()} of {encoding.describe()}")
    require(same_bits(again.project(x), encoding.project(x)), f"{what} makes an encoding that projects otherwise")
    require(encoding.broken_by(again) is None, f"{what} makes an encoding that breaks its promise")


def _through_json(state: EncodingState) -> EncodingState:
    parts = {name: _through_json(part) for name, part in state.parts.items()}
    return EncodingState(state.kind, json.loads(json.dumps(dict(state.config))), state.arrays, parts)


def _arrays(state: EncodingState) -> Iterator[Array]:
    yield from state.arrays.values()
    for part in state.parts.values():
        yield from _arrays(part)


def check_encoding_file(encoding: Encoding, shape: tuple[int, ...]) -> None:
    """A file returns encoding and values, to the bit, and the state that was written."""
    values = encoding.project(example_values(shape))
    parameter = StoredParameter(_PATH, "kernel", "float32", True, encoding, values)
    variables = [["kernel", list(shape), "float32"]]
    model = StoredModel("net", Architecture("none", None, "a test", None, variables), (parameter,))
    with open_bytes(pack(model).data, "a.bw") as file:
        (read,) = file.parameters()
    require(same_bits(read.values, values), "a file returns other values")
    _check_equal(read.encoding, encoding, example_values(shape, 1), "a file")
    _check_same_state(read.encoding.state(), encoding.state())


def _check_same_state(again: EncodingState, state: EncodingState) -> None:
    same = (again.kind, dict(again.config)) == (state.kind, dict(state.config)) and set(again.parts) == set(state.parts)
    require(same, f"a file makes a state of {again.kind} {dict(again.config)}")
    require(set(again.arrays) == set(state.arrays), f"a file makes a state with the arrays {', '.join(again.arrays)}")
    for name, array in state.arrays.items():
        found = again.arrays[name]
        message = f"the array {name}, {array.dtype} of {array.shape}, comes back from a file otherwise"
        require(same_bits(found, array), f"{message}, as {found.dtype} of {found.shape}")
    for name, part in state.parts.items():
        _check_same_state(again.parts[name], part)


def check_summary(encoding: Encoding, shape: tuple[int, ...]) -> None:
    """The summary agrees with the encoding and with its words, and goes through JSON."""
    summary = encoding.summary()
    require(bool(encoding.describe()), "it has no words")
    require(summary.words() == encoding.describe(), f"{encoding.describe()!r} is summarized as {summary.words()!r}")
    require(summary.bits == (None if isinf(encoding.bits) else encoding.bits), f"a summary of {summary.bits} bits")
    again = EncodingSummary.from_dict(json.loads(json.dumps(summary.to_dict(), allow_nan=False)))
    require(again == summary, "its summary comes back otherwise through JSON")
    share = None if encoding.mask is None else float(1 - encoding.mask.mean()) if encoding.mask.size else 0.0
    require(share is None or abs((summary.sparsity or 0.0) - share) < 1e-6, f"a summary of {summary.sparsity} zeros")
    require((summary.sparsity is None) == (share is None), "a summary of a mask that is not there, or none of one")
    plane = escaped_places(encoding)
    count = None if plane is None else int(np.count_nonzero(plane))
    require(summary.escapes == count, f"a summary of {summary.escapes} escapes; there are {count}")


def check_affine(encoding: Encoding, shape: tuple[int, ...]) -> None:
    """Codes, scales and zero points make the projection and are what `Affine` says, or are refused for a reason."""
    for seed in range(2):
        x = example_values(shape, seed)
        try:
            found = encoding.affine(x)
        except Refused as refusal:
            require(bool(refusal.reason), "integer codes are refused without a reason")
            return
        held, codes, zero = encoding.project(x), found.codes, found.zero_point
        require(np.array_equal(found.values(), held), "(codes - zero_point) * scale is not project(x)")
        low = -(1 << (found.bits - 1)) if found.signed else 0
        high = low + (1 << found.bits) - 1
        points = np.zeros(1, np.int32) if zero is None else zero
        require(codes.dtype == points.dtype == np.int32, f"codes of {codes.dtype}, zero points of {points.dtype}")
        for name, array in (("codes", codes), ("zero points", points)):
            inside = low <= array.min(initial=low) and array.max(initial=high) <= high
            require(inside, f"{name} outside of {low} to {high}")
        counts = tuple(-(-length // size) for length, size in zip(shape, found.block, strict=True))
        fits = found.scale.shape == counts and points.shape in (counts, (1,))
        require(fits and found.scale.dtype == np.float32, f"scales of {found.scale.shape} for blocks of {found.block}")
        require(bool((found.scale > 0).all()), "scales that are not positive")


def check_lowering(encoding: Encoding, shape: tuple[int, ...], evaluate: Evaluate) -> None:
    """A layer reads the projection, and the gradient passes straight through to all but masked values.

    Escaped values are read from the variable itself, so they are read as they were escaped here.
    """
    x = example_values(shape, 2)
    upstream = example_values(shape, 3)
    plane = escaped_places(encoding)
    if plane is not None:
        x = np.where(plane, encoding.project(x), x).astype(np.float32)
    read, gradient = evaluate(encoding, x, upstream)
    require(read.dtype == np.float32 and read.shape == shape, f"a layer reads {read.dtype} of {read.shape}")
    require(np.array_equal(read, encoding.project(x)), "a layer reads other values than project(x)")
    expected = upstream if encoding.mask is None else np.where(encoding.mask, upstream, np.float32(0))
    require(np.array_equal(gradient, expected), "the gradient does not pass straight through")
