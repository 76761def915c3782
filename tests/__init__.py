"""The tests of nnlite: one file for each module, and shared helpers."""
