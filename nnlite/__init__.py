"""nnlite: a layer-based neural-network framework in NumPy."""

from importlib import import_module as _import_module
from typing import Any as _Any

from . import datasets, init
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
from .layer import Layer
from .layers.activations import (
    ELU,
    GELU,
    GLU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
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
from .layers.containers import Residual, Sequential
from .layers.convolution import Conv1d, Conv2d
from .layers.dropout import Dropout
from .layers.embedding import Embedding
from .layers.function import Lambda
from .layers.graph import Graph
from .layers.linear import Linear
from .layers.normalization import BatchNorm1d, BatchNorm2d, LayerNorm
from .layers.pooling import (
    AvgPool1d,
    AvgPool2d,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    MaxPool1d,
    MaxPool2d,
)
from .layers.recurrent import GRU, LSTM, RNN
from .layers.shape import Flatten, Identity, Reshape
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
from .optim.base import Optimizer
from .optim.clipping import clip_grad_norm, clip_grad_value
from .optim.optimizers import SGD, Adam, AdamW, RMSprop
from .optim.schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    Schedule,
    SequentialLR,
    StepLR,
)
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
from .training.callbacks import Callback, Checkpoint, EarlyStopping
from .training.evaluation import evaluate, predict
from .training.fit import fit
from .training.history import History
from .training.metrics import (
    EpochMetric,
    accuracy,
    binary_accuracy,
    confusion_matrix,
    top_k_accuracy,
)
from .training.state import Training

__version__ = "0.2.0"


__all__ = [
    "ELU",
    "GELU",
    "GLU",
    "GRU",
    "LSTM",
    "RNN",
    "SELU",
    "SGD",
    "Abs",
    "Adam",
    "AdamW",
    "Add",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BinaryCrossEntropy",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "Compose",
    "Conv1d",
    "Conv2d",
    "CosineAnnealingLR",
    "CosineEmbedding",
    "CrossEntropy",
    "DataLoader",
    "Divide",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "EpochMetric",
    "Exp",
    "ExponentialLR",
    "Flatten",
    "Focal",
    "GaussianNLL",
    "GaussianNoise",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "Graph",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Hinge",
    "Histograms",
    "History",
    "Huber",
    "Identity",
    "KLDivergence",
    "Lambda",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LinearLR",
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
    "Multiply",
    "Negative",
    "NegativeLogLikelihood",
    "OneCycleLR",
    "Optimizer",
    "PReLU",
    "Parameter",
    "PoissonNLL",
    "Power",
    "Quantile",
    "RMSprop",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "ReLU",
    "ReLU6",
    "Reciprocal",
    "ReduceLROnPlateau",
    "Reshape",
    "Residual",
    "Schedule",
    "Sequential",
    "SequentialLR",
    "SiLU",
    "Sigmoid",
    "SmoothL1",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Square",
    "StepLR",
    "Subtract",
    "Sum",
    "Tanh",
    "Training",
    "TripletMargin",
    "Weight",
    "WeightedRandomSampler",
    "accuracy",
    "binary_accuracy",
    "class_weights",
    "clip_grad_norm",
    "clip_grad_value",
    "confusion_matrix",
    "datasets",
    "diagnose",
    "evaluate",
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
    "predict",
    "saliency",
    "save",
    "save_checkpoint",
    "save_model",
    "seed",
    "to_html",
    "top_k_accuracy",
    "trace",
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
    "plot_model": ".drawing",
    "saliency": ".debug.saliency",
    "save_model": ".files.model",
    "to_html": ".interop.page",
    "to_onnx": ".interop.onnx.write",
    "to_torch": ".interop.torch",
}


def __getattr__(name: str) -> _Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(_import_module(_ON_FIRST_USE[name], __name__), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"nnlite.{name} needs {error.name}; install it with: pip install {error.name}"
        ) from error
