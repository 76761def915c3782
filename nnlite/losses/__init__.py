"""Losses: layers that compare a prediction with a target and return one number to minimise.

``loss(prediction, target)`` returns a float. ``loss.backward()`` returns its gradient with respect
to the prediction, which is the argument of ``model.backward``.
"""

from .base import ElementwiseLoss, Loss
from .binary import BinaryCrossEntropy, are_sigmoids
from .classification import CrossEntropy, NegativeLogLikelihood
from .regression import Huber, MeanAbsoluteError, MeanSquaredError
from .scores import class_weights

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "ElementwiseLoss",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "NegativeLogLikelihood",
    "are_sigmoids",
    "class_weights",
]
