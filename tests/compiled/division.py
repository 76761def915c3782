"""Batches that are divided however small they are."""

from __future__ import annotations

import pytest

from nnlite.compiled import split


def divide(monkeypatch: pytest.MonkeyPatch, threads: int, in_samples: bool) -> None:
    """Let threads divide every batch, each into one chunk, or into single samples."""
    if in_samples:
        monkeypatch.setattr(split, "_CACHED", 1)
        monkeypatch.setattr(split, "_TIMES", 0)
    monkeypatch.setattr(split, "_REGISTER", 1)
    monkeypatch.setattr(split, "_WAITING", 0)
    monkeypatch.setattr(split, "_ADDING", 0)
    monkeypatch.setattr(split, "_LEAD", 0)
    monkeypatch.setattr(split, "threads_of_products", lambda: threads)
