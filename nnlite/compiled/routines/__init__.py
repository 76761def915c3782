"""Functions of arrays that the sources of all models call, compiled once for all of them."""
