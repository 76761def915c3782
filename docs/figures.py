"""The figures of the tutorial, under a short name."""

from nnlite import plot_model as draw

__all__ = ["draw"]
