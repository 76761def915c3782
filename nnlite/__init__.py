"""nnlite: a layer-based neural-network framework in NumPy."""

import sys as _sys
from importlib import import_module as _import_module
from typing import Any as _Any

from . import data, datasets, init, layers, losses, optim, training
from .data.augmentation import (
    Compose,
    GaussianNoise,
    MixUp,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
)
from .data.loader import DataLoader
from .data.sampler import WeightedRandomSampler
from .debug.gradcheck import gradcheck
from .debug.trace import trace
from .files.checkpoint import load_checkpoint, save_checkpoint
from .files.state import load_state, save
from .hints import GuessedModules as _GuessedModules
from .hints import hint as _hint
from .layer import Layer
from .layers.activations import (
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softplus,
    Softsign,
    Tanh,
)
from .layers.arithmetic import (
    Abs,
    Add,
    Divide,
    Exp,
    Log,
    MatMul,
    Maximum,
    Mean,
    Minimum,
    Multiply,
    Negative,
    Power,
    Reciprocal,
    Sqrt,
    Square,
    Subtract,
    Sum,
    Weight,
)
from .layers.attention import MultiheadAttention
from .layers.cells import GRUCell, LSTMCell, RNNCell
from .layers.containers import Residual, Sequential
from .layers.convolution import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d
from .layers.dropout import Dropout, Dropout1d, Dropout2d
from .layers.embedding import Embedding, LearnedPositions, SinusoidalPositions
from .layers.function import Lambda
from .layers.graph import Graph
from .layers.linear import Linear
from .layers.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    LayerNorm,
    RMSNorm,
)
from .layers.padding import (
    CircularPad1d,
    CircularPad2d,
    ConstantPad1d,
    ConstantPad2d,
    ReflectionPad1d,
    ReflectionPad2d,
    ReplicationPad1d,
    ReplicationPad2d,
    ZeroPad1d,
    ZeroPad2d,
)
from .layers.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AvgPool1d,
    AvgPool2d,
    GlobalAvgPool1d,
    GlobalAvgPool2d,
    GlobalMaxPool1d,
    GlobalMaxPool2d,
    MaxPool1d,
    MaxPool2d,
)
from .layers.recurrent import GRU, LSTM, RNN
from .layers.resampling import PixelShuffle, Upsample
from .layers.shape import (
    Concatenate,
    Flatten,
    Identity,
    Permute,
    Reshape,
    Slice,
    Split,
    Squeeze,
    Stack,
    Unflatten,
    Unsqueeze,
)
from .layers.softmax import GLU, LogSoftmax, Softmax
from .layers.transformer import TransformerDecoderLayer, TransformerEncoderLayer
from .losses import (
    BinaryCrossEntropy,
    CosineEmbedding,
    CrossEntropy,
    Focal,
    GaussianNLL,
    Hinge,
    Huber,
    KLDivergence,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    MultiMargin,
    NegativeLogLikelihood,
    PoissonNLL,
    Quantile,
    SmoothL1,
    TripletMargin,
    class_weights,
)
from .modes import is_grad_enabled, no_grad
from .optim.adaptive import Lion, NAdam, RAdam
from .optim.base import Optimizer
from .optim.clipping import clip_grad_norm, clip_grad_value
from .optim.lbfgs import LBFGS
from .optim.muon import Muon
from .optim.optimizers import Adagrad, Adam, AdamW, RMSprop
from .optim.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    Schedule,
    SequentialLR,
    StepLR,
)
from .optim.sgd import SGD
from .parameter import Parameter
from .plots import (
    plot_confusion_matrix,
    plot_gradients,
    plot_heatmaps,
    plot_histograms,
    plot_mistakes,
    plot_report,
    plot_weights,
)
from .random import seed
from .training.averaging import EMA, SWA, AveragedModel, update_bn
from .training.callbacks import Callback, Checkpoint, EarlyStopping
from .training.evaluation import evaluate, predict
from .training.fit import fit
from .training.history import History
from .training.metrics import (
    EpochMetric,
    accuracy,
    binary_accuracy,
    confusion_matrix,
    f1_score,
    precision_score,
    r2_score,
    recall_score,
    top_k_accuracy,
)
from .training.state import Training

__version__ = "0.2.0"


__all__ = [
    "ELU",
    "EMA",
    "GELU",
    "GLU",
    "GRU",
    "LBFGS",
    "LSTM",
    "RNN",
    "SELU",
    "SGD",
    "SWA",
    "Abs",
    "Adagrad",
    "Adam",
    "AdamW",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "Add",
    "AveragedModel",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BinaryCrossEntropy",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "CircularPad1d",
    "CircularPad2d",
    "Compose",
    "Concatenate",
    "ConstantLR",
    "ConstantPad1d",
    "ConstantPad2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CosineEmbedding",
    "CrossEntropy",
    "CyclicLR",
    "DataLoader",
    "Divide",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "EarlyStopping",
    "Embedding",
    "EpochMetric",
    "Exp",
    "ExponentialLR",
    "Flatten",
    "Focal",
    "GRUCell",
    "GaussianNLL",
    "GaussianNoise",
    "GlobalAvgPool1d",
    "GlobalAvgPool2d",
    "GlobalMaxPool1d",
    "GlobalMaxPool2d",
    "Graph",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Hinge",
    "Histograms",
    "History",
    "Huber",
    "Identity",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "KLDivergence",
    "LSTMCell",
    "Lambda",
    "LambdaLR",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LearnedPositions",
    "Linear",
    "LinearLR",
    "Lion",
    "LivePlot",
    "Log",
    "LogSigmoid",
    "LogSoftmax",
    "Loss",
    "MatMul",
    "MaxPool1d",
    "MaxPool2d",
    "Maximum",
    "Mean",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Minimum",
    "Mish",
    "MixUp",
    "MultiMargin",
    "MultiStepLR",
    "MultiheadAttention",
    "Multiply",
    "Muon",
    "NAdam",
    "Negative",
    "NegativeLogLikelihood",
    "OneCycleLR",
    "Optimizer",
    "PReLU",
    "Parameter",
    "Permute",
    "PixelShuffle",
    "PoissonNLL",
    "PolynomialLR",
    "Power",
    "Quantile",
    "RAdam",
    "RMSNorm",
    "RMSprop",
    "RNNCell",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "ReLU",
    "ReLU6",
    "Reciprocal",
    "ReduceLROnPlateau",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "Reshape",
    "Residual",
    "Schedule",
    "Sequential",
    "SequentialLR",
    "SiLU",
    "Sigmoid",
    "SinusoidalPositions",
    "Slice",
    "SmoothL1",
    "Softmax",
    "Softplus",
    "Softsign",
    "Split",
    "Sqrt",
    "Square",
    "Squeeze",
    "Stack",
    "StepLR",
    "Subtract",
    "Sum",
    "Tanh",
    "Training",
    "TransformerDecoderLayer",
    "TransformerEncoderLayer",
    "TripletMargin",
    "Unflatten",
    "Unsqueeze",
    "Upsample",
    "Weight",
    "WeightedRandomSampler",
    "ZeroPad1d",
    "ZeroPad2d",
    "accuracy",
    "binary_accuracy",
    "class_weights",
    "clip_grad_norm",
    "clip_grad_value",
    "confusion_matrix",
    "datasets",
    "diagnose",
    "evaluate",
    "f1_score",
    "fit",
    "grad_cam",
    "gradcheck",
    "init",
    "is_grad_enabled",
    "load_checkpoint",
    "load_model",
    "load_state",
    "no_grad",
    "plot_confusion_matrix",
    "plot_gradients",
    "plot_heatmaps",
    "plot_histograms",
    "plot_mistakes",
    "plot_model",
    "plot_report",
    "plot_weights",
    "precision_score",
    "predict",
    "r2_score",
    "recall_score",
    "saliency",
    "save",
    "save_checkpoint",
    "save_model",
    "seed",
    "to_html",
    "top_k_accuracy",
    "trace",
    "update_bn",
]

# Loaded on first use, so that `import nnlite` stays fast. Names that need an optional package are
# not in `__all__`, since `from nnlite import *` must work without it.
_ON_FIRST_USE = {
    "CSVLogger": ".training.loggers",
    "Histograms": ".debug.histograms",
    "LivePlot": ".training.loggers",
    "TensorBoard": ".interop.tensorboard",
    "compile": ".compiled.compile",
    "diagnose": ".debug.diagnose",
    "from_onnx": ".interop.onnx.read",
    "from_torch": ".interop.torch",
    "grad_cam": ".debug.saliency",
    "load_model": ".files.model",
    "plot_model": ".diagrams",
    "saliency": ".debug.saliency",
    "save_model": ".files.model",
    "to_html": ".interop.page.write",
    "to_onnx": ".interop.onnx.write",
    "to_torch": ".interop.torch",
}


def _refuse(name: str) -> _Any:
    """Raise the error of a name that nnlite does not have: what it is called here, if known."""
    initial = [f"init.{each}" for each in vars(init) if each[0] != "_" and each[-1] == "_"]
    cure = _hint(name, [*__all__, *initial, *(f"datasets.{each}" for each in datasets.__all__)])
    message = f"nnlite has no {name!r}" + (f"; {cure}" if cure else "")
    caller = _sys._getframe(1)  # of this function, or `__getattr__`
    callers = [each.f_code.co_name for each in (caller, caller.f_back) if each]
    if cure and "_handle_fromlist" in callers:
        # `from nnlite import name` would replace the message of an AttributeError.
        raise ImportError(message)
    raise AttributeError(message, name=name, obj=_sys.modules[__name__])


def __getattr__(name: str) -> _Any:
    if name in __all__ and name not in _ON_FIRST_USE:  # of nnlite.optim and the like, see below
        return globals()[name]
    if name not in _ON_FIRST_USE:
        _refuse(name)
    try:
        return getattr(_import_module(_ON_FIRST_USE[name], __name__), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"nnlite.{name} needs {error.name}; install it with: pip install {error.name}"
        ) from error


def __dir__() -> list[str]:
    return sorted({*__all__, *_ON_FIRST_USE, "__version__"})


# The folders' names are guessed for the names in them: nnlite.optim.SGD is nnlite.SGD.
for _folder in (data, init, layers, optim, training):
    _folder.__getattr__ = __getattr__  # type: ignore[method-assign]
# These have names of their own, which are answered alike.
for _folder in (datasets, losses):
    _folder.__getattr__ = _refuse  # type: ignore[method-assign]

# `import nnlite.nn` and the like are answered too.
_sys.meta_path.append(_GuessedModules)
