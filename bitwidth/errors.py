"""Every error the library raises.

Each message says what was wrong, what was expected, and which layer, parameter or file it is about; within a chain it
begins with the pass and its place ("passes[1] Ramp > Prune: ..."). An error of another library or of a user's own pass
keeps its class and message, and gets the place as a note (`BaseException.add_note`). Errors of a pass or
a manager are raised before work starts wherever that is possible, and the user's model and files are untouched by them.

::

    BitwidthError
    ├── ConfigError            an argument, a pass's field or a recipe is not valid   (also a ValueError)
    │   └── SelectionError     a `where` names no layer or parameter of the model
    ├── ModelError             the model cannot be read, or not in this state        (also a ValueError)
    │   └── UnsupportedModelError   another framework, backend, or a foreign quantization
    ├── DataError              the data is empty, not finite, or does not fit        (also a ValueError)
    ├── EncodingError          a value, mask or scale does not fit its encoding      (also a ValueError)
    ├── Refused                a question has no answer that can be used, for a reason
    ├── ContractError          a pass's `requires` or `ensures` does not hold
    │   └── PromiseError       a pass would break what an earlier pass promised
    └── FileError              a file cannot be written or read
        ├── CorruptFileError   truncated, altered, or not a .bw file at all
        ├── UnknownEncodingError   holds tensors in an encoding that is not registered in this process
        ├── UnsafeFileError    asks for more than a model: code, files, addresses, other objects
        └── VersionError       written by a newer version of the format

Example:
    >>> from bitwidth import errors
    >>> issubclass(errors.PromiseError, errors.BitwidthError)
    True
"""

from typing_extensions import override


class BitwidthError(Exception):
    """The root of every error that `bitwidth` raises.

    Attributes:
        pass_path: the pass of a chain that it was raised in, and the passes around it, outermost first; empty where no
            pass was running. The message begins with it.

    Example:
        >>> error = BitwidthError("nothing to do")
        >>> error.pass_path = ("passes[1] Ramp", "Prune")
        >>> str(error)
        'passes[1] Ramp > Prune: nothing to do'
    """

    pass_path: tuple[str, ...] = ()

    @override
    def __str__(self) -> str:
        text = super().__str__()
        if not self.pass_path:
            return text
        name = self.pass_path[-1].rpartition(" ")[2]
        return f"{' > '.join(self.pass_path)}: {text.removeprefix(f'{name}: ')}"


class Refused(BitwidthError):  # noqa: N818 - an answer, and no fault
    """A question has no answer that can be used, for a reason that goes into a report.

    Functions that may have no answer raise it, and whoever works through a model catches it once for each part: what
    is refused is skipped with the reason. No pass of the library lets it out; one that does ends the run.

    Attributes:
        reason: in words, to stand behind "skipped: ".

    Example:
        >>> try:
        ...     raise Refused("float16 values have no integer codes")
        ... except Refused as refusal:
        ...     refusal.reason
        'float16 values have no integer codes'
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConfigError(BitwidthError, ValueError):
    """An argument, a field of a pass, or a recipe is not valid."""


class SelectionError(ConfigError):
    """A `where` names no layer or parameter of the model."""


class ModelError(BitwidthError, ValueError):
    """The model cannot be read, or is not in a state that can be compressed."""


class UnsupportedModelError(ModelError):
    """The model belongs to another framework or backend, or was already quantized by another tool."""


class DataError(BitwidthError, ValueError):
    """The data is empty, holds values that are not finite, or does not fit the model."""


class EncodingError(BitwidthError, ValueError):
    """A value, mask, scale or level table does not fit its encoding."""


class ContractError(BitwidthError):
    """What a pass requires before, or ensures after, does not hold."""


class PromiseError(ContractError):
    """A pass would break what an earlier pass promised about a parameter."""


class FileError(BitwidthError):
    """A file cannot be written or read."""


class CorruptFileError(FileError):
    """The file is truncated, altered, or not a `.bw` file at all."""


class UnknownEncodingError(FileError):
    """The file is whole, but an encoding that it names is not registered in this process: import what registers it."""


class UnsafeFileError(FileError):
    """The file's configuration names what a file may not: code, files, addresses, or objects that are no model's."""


class VersionError(FileError):
    """The file was written by a newer version of the format than this library reads."""
