"""Benchmarks of nnlite and PyTorch: one command prints one table.

They need the extra ``bench`` and are run from the root of the repository::

    pip install -e '.[bench]'
    python -m benchmarks                        # all cases; takes some minutes
    python -m benchmarks --quick mlp "batch 32" # a first look at some cases
    python -m benchmarks --help

``python -m benchmarks --against COMMIT`` compares with an earlier nnlite instead, ``--growth FILE``
plots the step time against batch size and width, and `test_benchmarks` has the same cases for
pytest-benchmark.

`cases` lists the cases. `training`, `inference`, `sigmoid_gradient` and `mnist_epoch` define a step
for each library, and `networks` the networks. `harness` checks and times the steps.
"""
