"""What a configuration from a file or a recipe may name: lists by kind of object, of the Keras that is installed.

Layers, initializers and the like are what the public modules of Keras hold, less the layers that load files or code.
Operations (`a + b`, `x[:, 0]` and `keras.ops.einsum` are stored as such) and functions are reviewed one by one: those
that take a function, that touch anything but their arguments, or that nobody has looked at are not listed. A name is
only ever looked up in these lists, so nothing is imported because a file names it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from importlib import import_module
from typing import Any, final

import keras

from bitwidth.backends.tensorflow.models.versions import check_keras

check_keras()  # before anything is looked up that an older one does not have


@final
class Kind(Enum):
    """A kind of place in a configuration, and so of what may stand there."""

    LAYER = "a layer, model or operation"
    ACTIVATION = "an activation"
    INITIALIZER = "an initializer"
    REGULARIZER = "a regularizer"
    CONSTRAINT = "a constraint"
    POLICY = "a dtype policy"
    SEED = "a seed generator"
    LOSS = "a loss"
    METRIC = "a metric"
    OPTIMIZER = "an optimizer"
    SCHEDULE = "a learning rate schedule"


@final
@dataclass(frozen=True)
class Named:
    """Something that the lists hold.

    Attributes:
        module: the module under which Keras finds it.
        name: its name there.
        target: the class or function itself.
    """

    module: str
    name: str
    target: Any


BASES: Mapping[Kind, type[Any]] = {
    Kind.LAYER: keras.Operation,
    Kind.INITIALIZER: keras.initializers.Initializer,
    Kind.REGULARIZER: keras.regularizers.Regularizer,
    Kind.CONSTRAINT: keras.constraints.Constraint,
    Kind.POLICY: keras.DTypePolicy,
    Kind.SEED: keras.random.SeedGenerator,
    Kind.LOSS: keras.Loss,
    Kind.METRIC: keras.Metric,
    Kind.OPTIMIZER: keras.Optimizer,
    Kind.SCHEDULE: keras.optimizers.schedules.LearningRateSchedule,
}

_HOMES = {
    Kind.LAYER: "keras.layers",
    Kind.INITIALIZER: "keras.initializers",
    Kind.REGULARIZER: "keras.regularizers",
    Kind.CONSTRAINT: "keras.constraints",
    Kind.SEED: "keras.random",
    Kind.LOSS: "keras.losses",
    Kind.METRIC: "keras.metrics",
    Kind.OPTIMIZER: "keras.optimizers",
    Kind.SCHEDULE: "keras.optimizers.schedules",
}

_POLICIES = ("DTypePolicy", "FloatDTypePolicy", "DTypePolicyMap")  # the others hold what Keras has quantized

# Layers that run code, or load it or data from a path that the configuration names.
REFUSED_LAYERS = frozenset({"Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper"})

# Classes without a public name that Keras writes into configurations.
_UNEXPORTED = {
    "keras.src.models.functional": "Functional",
    "keras.src.applications.convnext": "LayerScale StochasticDepth",
    "keras.src.applications.inception_resnet_v2": "CustomScaleLayer",
}

# Layers of Keras 2 that Keras 3 still reads, where they are and under the name that it writes.
_LEGACY = ("keras.src.legacy.layers", "keras._legacy.layers", "AlphaDropout RandomHeight RandomWidth ThresholdedReLU")

# Reviewed: each computes with its arguments alone. Left out: what takes functions (Map, Scan, Cond, WhileLoop ...).
OPERATIONS: Mapping[str, str] = {
    "keras.src.activations.activations": "Mish ReLU",
    "keras.src.ops.core": (
        "Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate StopGradient Unstack"
    ),
    "keras.src.ops.einops": "Rearrange",
    "keras.src.ops.image": (
        "AffineTransform CropImages ElasticTransform ExtractPatches GaussianBlur HSVToRGB MapCoordinates PadImages "
        "PerspectiveTransform RGBToGrayscale RGBToHSV Resize SSIM ScaleAndTranslate SobelEdges"
    ),
    "keras.src.ops.linalg": (
        "Cholesky CholeskyInverse Det Eig Eigh Inv Lstsq LuFactor MatrixRank Norm Pinv Qr SVD Solve SolveTriangular"
    ),
    "keras.src.ops.math": (
        "CDist Erf Erfc Erfinv ExtractSequences FFT FFT2 IFFT2 IRFFT ISTFT InTopK Logdet Logsumexp RFFT Rsqrt STFT "
        "SegmentMax SegmentMin SegmentProd SegmentSum TopK ViewAsComplex ViewAsReal"
    ),
    "keras.src.ops.nn": (
        "AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm BinaryCrossentropy CTCDecode CTCLoss "
        "CategoricalCrossentropy Celu Conv ConvTranspose DepthToSpace DepthwiseConv DotProductAttention Elu Fold Gelu "
        "Glu HardShrink HardSigmoid HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Moments "
        "MultiHot Normalize OneHot PSNR Polar RMSNorm Relu Relu6 Selu SeparableConv Sigmoid Silu SoftShrink Softmax "
        "Softplus Softsign SpaceToDepth SparseCategoricalCrossentropy SparsePlus SparseSigmoid Sparsemax Squareplus "
        "TanhShrink Threshold Unfold"
    ),
    "keras.src.ops.numpy": (
        "Abs Absolute Add All AllClose Amax Amin Angle Any Append Arange Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 "
        "Arctanh Argmax Argmin Argpartition Argsort Array ArraySplit Average Bincount BitwiseAnd BitwiseInvert "
        "BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo Cbrt Ceil Clip Concatenate "
        "Conj Conjugate Copy Corrcoef Correlate Cos Cosh CountNonzero Cross Cumprod Cumsum Deg2rad Diag Diagflat "
        "Diagonal Diff Digitize Divide DivideNoNan Dot Dsplit Dstack Einsum EmptyLike Equal Exp Exp2 ExpandDims Expm1 "
        "Fabs Flip Fliplr Flipud Floor FloorDivide Fmax Fmin Fmod Full FullLike Gcd Geomspace GetItem Greater "
        "GreaterEqual Heaviside Histogram Hsplit Hstack Hypot I0 Imag Inner IsIn Isclose Isfinite Isinf Isnan "
        "Isneginf Isposinf Isreal Kron Lcm Ldexp LeftShift Less LessEqual Linspace Log Log10 Log1p Log2 Logaddexp "
        "Logaddexp2 LogicalAnd LogicalNot LogicalOr LogicalXor Logspace Matmul Max Maximum Mean Median Meshgrid Min "
        "Minimum Mod Moveaxis Multiply NanToNum Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmean Nanmedian "
        "Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative Nextafter Nonzero NotEqual "
        "OnesLike Outer Pad Percentile Power Prod Ptp Quantile Rad2deg Ravel Real Reciprocal Repeat Reshape "
        "RightShift Roll Rot90 Round SearchSorted Select Sign Signbit Sin Sinc Sinh Size Slogdet Sort Split Sqrt "
        "Square Squeeze Stack Std Subtract Sum Swapaxes Take TakeAlongAxis Tan Tanh Tensordot Tile Trace Transpose "
        "Trapezoid Tril Triu TrueDivide Trunc Unique UnravelIndex Vander Var Vdot View Vsplit Vstack Where ZerosLike"
    ),
}

# Functions of one tensor, element by element or along an axis, that may serve as activations besides Keras's own.
_FUNCTIONS_OF_OPS = (
    "abs absolute arctan arcsinh cbrt ceil celu cos cosh elu erf erfc exp exp2 expm1 floor gelu glu hard_shrink "
    "hard_sigmoid hard_silu hard_swish hard_tanh identity leaky_relu log log10 log1p log2 log_sigmoid log_softmax "
    "logsumexp negative normalize reciprocal relu relu6 round rsqrt selu sigmoid sign silu sin sinh soft_shrink "
    "softmax softplus softsign sparse_plus sparse_sigmoid sparsemax sqrt square squareplus swish tan tanh tanh_shrink "
    "threshold"
)
_PLUMBING = ("get", "serialize", "deserialize")


@cache
def classes(kind: Kind) -> Mapping[str, Named]:
    """The classes of Keras that may stand in places of a kind, by each of the names that a configuration may use:

    the class's, with its module in front for those without a public name.
    """
    found: dict[str, Named] = {}
    if kind in _HOMES:
        home = import_module(_HOMES[kind])
        for name in dir(home):
            target = getattr(home, name)
            if isinstance(target, type) and issubclass(target, BASES[kind]) and name not in REFUSED_LAYERS:
                found[name] = Named(_HOMES[kind], name, target)
    if kind is Kind.OPTIMIZER:  # Keras finds these in lower case too
        found |= {name.lower(): named for name, named in found.items()}
    if kind is Kind.POLICY:
        found = {name: Named("keras.dtype_policies", name, getattr(keras.dtype_policies, name)) for name in _POLICIES}
    if kind is Kind.LAYER:
        found |= {name: Named("keras", name, getattr(keras, name)) for name in ("Sequential", "Model")}
        source, written, names = _LEGACY
        old = [replace(named, module=written) for named in _of_modules({source: names}).values()]
        found |= {f"{written}.{named.name}": named for named in old}
        found |= _of_modules(_UNEXPORTED) | _of_modules(OPERATIONS)
    return found


def class_named(kind: Kind, module: str | None, name: str) -> Named | None:
    """The class of Keras that a configuration names by module and name; None where it may not stand in such a place.

    Args:
        kind: of the place.
        module: as the configuration gives it; None where it gives none.
        name: the class's name there.
    """
    known = classes(kind)
    if module is not None and f"{module}.{name}" in known:
        return known[f"{module}.{name}"]
    found = known.get(name)
    if found is None or module in (None, found.module, "keras", found.target.__module__):
        return found
    return None


@cache
def functions(kind: Kind) -> Mapping[str, Named]:
    """The functions of Keras that may stand in places of a kind, by name."""
    home = {Kind.ACTIVATION: "keras.activations", Kind.LOSS: "keras.losses", Kind.METRIC: "keras.metrics"}.get(kind)
    if home is None:
        return {}
    found = {
        name: Named("keras.ops", name, getattr(keras.ops, name))
        for name in (_FUNCTIONS_OF_OPS.split() if kind is Kind.ACTIVATION else ())
        if hasattr(keras.ops, name)
    }
    module = import_module(home)
    for name in dir(module):
        if is_function(target := getattr(module, name)) and name not in _PLUMBING:
            found[name] = Named(home, name, target)
    return found


def is_function(target: Any) -> bool:
    """Whether something is a function, not a class or a module."""
    return callable(target) and not isinstance(target, type)


def fits(kind: Kind, target: Any) -> bool:
    """Whether a class or function of the user's own may stand in a place of a kind."""
    if kind is Kind.ACTIVATION and isinstance(target, type):
        return issubclass(target, keras.Layer) or not _has_kind(target)
    if not isinstance(target, type):
        return callable(target) and kind not in (Kind.LAYER, Kind.OPTIMIZER, Kind.SCHEDULE, Kind.POLICY, Kind.SEED)
    if issubclass(target, BASES[kind]):
        return True
    # any class that can be called may serve as an initializer, regularizer or constraint, in Keras too
    free = kind in (Kind.INITIALIZER, Kind.REGULARIZER, Kind.CONSTRAINT)
    return free and not _has_kind(target)


def _has_kind(target: type[Any]) -> bool:
    return issubclass(target, (*BASES.values(), keras.callbacks.Callback))


def _of_modules(names: Mapping[str, str]) -> dict[str, Named]:
    """By their names with the module in front, what there is of the classes that `names` lists for each module."""
    found: dict[str, Named] = {}
    for module, listed in names.items():
        try:
            home = sys.modules.get(module) or import_module(module)
        except ImportError:  # another version of Keras
            continue
        for name in listed.split():
            if isinstance(target := getattr(home, name, None), type):
                found[f"{module}.{name}"] = Named(module, name, target)
    return found
