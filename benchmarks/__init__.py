"""nnlite and PyTorch side by side: one command prints one table.

It needs the extra ``bench``, and is run from the root of the repository::

    pip install -e '.[bench]'
    python -m benchmarks                        # everything; some minutes
    python -m benchmarks --quick mlp "batch 32" # a first look at some cases
    python -m benchmarks --help

``python -m benchmarks --against COMMIT`` compares with an earlier nnlite instead, ``--growth FILE``
plots the step time against batch size and width, and `test_benchmarks` has the same cases for
pytest-benchmark.

Where to read on: `cases` lists what is measured. `training`, `inference`, `sigmoid_gradient` and
`mnist_epoch` say what a step is, one side below the other, and `networks` of which network.
`harness` says how it is checked and timed.
"""
