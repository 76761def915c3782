"""Losses: layers that compare a prediction with a target and return one number to minimise.

``loss(prediction, target)`` returns a float. ``loss.backward()`` returns its gradient with respect
to the prediction, which is the argument of ``model.backward``.
"""

from .base import ElementwiseLoss, Loss
from .binary import BinaryCrossEntropy, Hinge, are_sigmoids
from .classification import Focal, KLDivergence, MultiMargin, NegativeLogLikelihood
from .cross_entropy import CrossEntropy
from .regression import (
    GaussianNLL,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    PoissonNLL,
    Quantile,
    SmoothL1,
)
from .scores import class_weights
from .similarity import CosineEmbedding, TripletMargin

__all__ = [
    "BinaryCrossEntropy",
    "CosineEmbedding",
    "CrossEntropy",
    "ElementwiseLoss",
    "Focal",
    "GaussianNLL",
    "Hinge",
    "Huber",
    "KLDivergence",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "MultiMargin",
    "NegativeLogLikelihood",
    "PoissonNLL",
    "Quantile",
    "SmoothL1",
    "TripletMargin",
    "are_sigmoids",
    "class_weights",
]
