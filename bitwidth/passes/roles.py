"""Which parameters hold a model's weight: the matrices, as opposed to the parameters of one number per channel."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bitwidth.graph import Parameter, Refused

MATRIX_ROLES = ("kernel", "recurrent_kernel", "embedding")


def is_matrix(parameter: Parameter) -> bool:
    """Whether a parameter multiplies, or is looked up row by row.

    Kernels, embeddings, and unknown trained ones of two axes or more.
    """
    if parameter.role in MATRIX_ROLES:
        return True
    return parameter.role == "other" and len(parameter.shape) >= 2 and parameter.trainable


def need_selected(parameters: Iterable[Parameter], inside: Collection[str]) -> None:
    """Check that parameters which can only change together are all among the paths `inside`.

    Raises:
        Refused: one is not.
    """
    for parameter in parameters:
        if parameter.path not in inside:
            raise Refused(f"{parameter.path} is not selected by `where`")
