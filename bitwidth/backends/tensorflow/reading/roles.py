"""Roles: what a parameter does, told from what operations do with it; names decide what they leave open."""

from __future__ import annotations

from collections.abc import Collection

from bitwidth.backends.tensorflow.reading.rules import Effect
from bitwidth.graph import Role

_NORMALISATION: tuple[Effect, ...] = ("scale", "offset", "mean", "variance")
# Names that Keras gives in normalisations, and the effect that a parameter of that role has where it is not fused.
_NAMED: dict[str, tuple[Role, Effect]] = {
    "gamma": ("scale", "multiply"),
    "beta": ("offset", "add"),
    "mean": ("mean", "add"),
    "moving_mean": ("mean", "add"),
    "adapt_mean": ("mean", "add"),
    "variance": ("variance", "multiply"),
    "moving_variance": ("variance", "multiply"),
    "adapt_variance": ("variance", "multiply"),
}


def role_of(name: str, dtype: str, effects: Collection[Effect]) -> Role:
    """The role of a parameter.

    Args:
        name: the variable's own name.
        dtype: numpy name of its dtype.
        effects: what the operations that use it do with it; empty for one that nothing reads.
    """
    if "float" not in dtype:
        return "state"
    if "look_up" in effects:
        return "embedding"
    if "contract" in effects:
        return "recurrent_kernel" if "recurrent" in name else "kernel"
    for effect in _NORMALISATION:
        if effect in effects:
            return effect  # type: ignore[return-value]
    role, shown_by = _NAMED.get(name, ("other", "unknown"))
    if not effects or shown_by in effects:
        return role
    if "multiply" in effects:
        return "scale"
    return "bias" if "add" in effects else "other"
