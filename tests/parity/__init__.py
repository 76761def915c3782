"""nnlite beside PyTorch: the same inputs, parameters and gradients in, the same figures out.

``cases/`` says what is compared; ``record.py`` runs it in PyTorch and writes the figures into
``recorded/``; ``test_recorded.py`` holds nnlite to them without PyTorch; ``test_live.py`` does so
with PyTorch, for drawn values and shapes, and checks that the record is still what PyTorch gives.
"""
