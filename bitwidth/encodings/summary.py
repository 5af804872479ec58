"""`EncodingSummary`: what an encoding is, as values, and the words for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal, final

from typing_extensions import override

from bitwidth.encodings.interface import LevelKind
from bitwidth.typing import JsonDict


@final
@dataclass(frozen=True)
class EncodingSummary:
    """What an encoding is, as values: plain data, without codes, scales or masks.

    Attributes:
        kind: registered name of the encoding under mask and escapes: `"dense"`, `"quantized"`, a user's own.
        bits: width of a code; None where it has no bound.
        format: `"float32"`, `"float16"`, `"bfloat16"`, or `"e8m6"` to `"e8m1"` with so many mantissa bits, where every
            value is rounded to it; else None.
        levels: the kind of levels of a grid: `"integers"`, `"prefix"` (leading bits of integers), `"table"`,
            `"tables"` (one for each block); None where there is no grid.
        level_count: how many levels, those of all tables; None without a grid and for integers without bounds.
        tables: how many tables of levels.
        dropped_bits: of a prefix, the low bits that are left out.
        symmetric: of integers and prefixes, whether least and greatest value are the same but for the sign; None for
            tables and without a grid.
        scale_shape: shape of the scales: one per block; None without a grid.
        block: lengths of a block, one per axis; None without a grid.
        zero_points: whether there is a zero point per block.
        biases: whether there is a bias per block.
        sparsity: share of the values that a mask holds at zero, 0 to 1; None where there is no mask.
        escapes: how many values are held by themselves beside the grid; None where none can be.
        escape_format: format of those; None where there are none.
        label: the words of an encoding that describes itself; None for those of the library.

    Example:
        >>> summary = EncodingSummary("quantized", 4, levels="integers", scale_shape=(1, 8), block=(6, 1), sparsity=0.5)
        >>> summary.words(), summary.granularity, summary.scales
        ('50.0% zero, 4-bit x8', 'channel', 8)
    """

    kind: str
    bits: float | None = None
    format: str | None = None
    levels: LevelKind | None = None
    level_count: int | None = None
    tables: int = 0
    dropped_bits: int = 0
    symmetric: bool | None = None
    scale_shape: tuple[int, ...] | None = None
    block: tuple[int, ...] | None = None
    zero_points: bool = False
    biases: bool = False
    sparsity: float | None = None
    escapes: int | None = None
    escape_format: str | None = None
    label: str | None = None

    @property
    def scales(self) -> int | None:
        """How many scales there are; None without a grid."""
        return None if self.scale_shape is None else prod(self.scale_shape)

    @property
    def granularity(self) -> Literal["tensor", "channel", "group"] | None:
        """One scale for all, one for each element of some axes, or one for each group along one; None without a grid.

        A tensor with one channel has one scale for all.
        """
        if self.scale_shape is None or self.block is None:
            return None
        several = [size for count, size in zip(self.scale_shape, self.block, strict=False) if count > 1]
        if not several:
            return "tensor"
        return "group" if max(several) > 1 else "channel"

    @property
    def is_float(self) -> bool:
        """Whether the values that no mask hides are floating point numbers, each by itself."""
        return self.kind == "dense" and self.escapes is None

    @property
    def is_plain(self) -> bool:
        """Whether all values are held as they are."""
        return self.is_float and self.format is None and self.sparsity is None

    def words(self, dtype: str | None = None) -> str:
        """A few words for a table.

        Args:
            dtype: of the values, to be shown where they are held as they are; None for "dense".
        """
        words = self.label or self._held(dtype)
        if self.escapes is not None:
            words = f"{words}, {self.escapes:,} as {self.escape_format}"
        return words if self.sparsity is None else f"{self.sparsity:.1%} zero, {words}"

    @override
    def __str__(self) -> str:
        return self.words()

    def _held(self, dtype: str | None) -> str:
        if self.scale_shape is None or self.levels is None:
            if self.format is not None and self.format.startswith("e8m"):
                return f"{self.bits}-bit float {self.format}"
            return self.format or (dtype or "dense" if self.kind == "dense" else self.kind)
        width = "integer steps" if self.bits is None else f"{self.bits:g}-bit"
        table = {"table": " table", "tables": f" table of {self.tables}"}.get(self.levels, "")
        return f"{width}{table} x{self.scales}"

    def to_dict(self) -> JsonDict:
        """Plain data (JSON)."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EncodingSummary:
        """The summary of plain data that `to_dict` returned, through JSON or not.

        Raises:
            TypeError: the data does not describe a summary.
        """
        shapes = {name: data.get(name) for name in ("scale_shape", "block")}
        return cls(**{**data, **{name: None if shape is None else tuple(shape) for name, shape in shapes.items()}})
