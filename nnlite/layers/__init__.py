"""The layers: each a short class whose ``forward`` and ``backward`` stand side by side."""
