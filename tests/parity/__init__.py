"""nnlite compared with PyTorch: the same inputs, parameters and gradients give the same results.

``cases/`` defines the comparisons. ``record.py`` runs them in PyTorch and writes the results to
``recorded/``. ``test_recorded.py`` compares nnlite with them, without PyTorch. ``test_live.py``
compares nnlite with the installed PyTorch, for random values and shapes, and checks the records.
"""
