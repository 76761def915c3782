"""Compilation: a model's training step as readable Python source, which Numba makes native.

The README of this folder says which file does what.
"""
