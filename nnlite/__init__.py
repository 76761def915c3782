"""nnlite: a layer-based neural-network framework in NumPy."""

from . import datasets, init
from .activations import ReLU, Sigmoid, Softmax, Tanh
from .containers import Sequential
from .data import DataLoader
from .gradcheck import gradcheck
from .layer import Layer, Parameter
from .linear import Linear
from .losses import CrossEntropy
from .optim import SGD, Optimizer
from .random import seed
from .serialization import load_state, save
from .shape import Flatten

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "CrossEntropy",
    "DataLoader",
    "Flatten",
    "Layer",
    "Linear",
    "Optimizer",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "datasets",
    "gradcheck",
    "init",
    "load_state",
    "save",
    "seed",
]
