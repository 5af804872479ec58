"""Which parameters hold a model's weight: the matrices, as opposed to the parameters of one number per channel."""

from __future__ import annotations

from bitwidth.graph import Parameter

MATRIX_ROLES = ("kernel", "recurrent_kernel", "embedding")


def is_matrix(parameter: Parameter) -> bool:
    """Whether a parameter multiplies, or is looked up row by row.

    Kernels, embeddings, and unknown trained ones of two axes or more.
    """
    if parameter.role in MATRIX_ROLES:
        return True
    return parameter.role == "other" and len(parameter.shape) >= 2 and parameter.trainable
