"""Web pages of networks: ``write`` makes the page, and ``forms`` is a table of layers.

A layer more is an entry in that table and, if it computes something new, one in the scripts of
``nnlite.web``.
"""
