"""Names for types: what is meant where Python's own types cannot say it.

Where a framework's object is meant that no stub describes, the name says which; a checker takes anything for it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # of any dtype
Integers: TypeAlias = NDArray[np.integer[Any]]  # of any width, signed or not
Floats: TypeAlias = NDArray[np.floating[Any]]  # of any width
Arrays: TypeAlias = dict[str, Array]  # by name

Json: TypeAlias = Any  # what JSON holds: None, a boolean, a number, a text, a list or a dict of such
JsonDict: TypeAlias = dict[str, Json]

Model: TypeAlias = Any  # a model of the backend's framework, such as a `keras.Model`
Variable: TypeAlias = Any  # one of its variables, such as a `keras.Variable`
Data: TypeAlias = Any  # what `model.fit` takes: arrays, tuples of them, datasets, generators
Nest: TypeAlias = Any  # one thing, or a list, tuple or dict of nests of such things
