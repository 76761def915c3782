"""nnlite among other libraries; each module needs a package of its own, loaded on first use."""
