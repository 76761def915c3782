"""The routines, functions of arrays that the source of a model calls, and their argument types.

Routines are plain Python. Numba compiles each of them once for all models, and the machine code of
a model calls them by their address, so that it is compiled without them. Hence their arguments have
one type each, which the annotations tell, and they return nothing.
"""

from __future__ import annotations

from typing import Any, TypeAlias

# By the name in the source: the module of this folder.
ROUTINES = {
    "dot_rows": "products",
    "dot_columns": "products",
    "matmul": "products",
    "add_matmul": "products",
    "sum_of_dots": "products",
    "copy_transposed": "products",
    "add_to_rows": "sums",
    "column_sums": "sums",
    "channel_sums": "sums",
    "add_at": "sums",
    "correlate": "correlation",
    "correlate_kernels": "correlation",
    "correlate_images": "correlation",
    "convolve": "channels",
    "convolve_kernels": "channels",
    "convolve_images": "channels",
    "max_pool": "maxima",
    "line_moments": "moments",
    "center_lines": "moments",
    "normalize_lines": "moments",
    "line_products": "moments",
    "line_gradients": "moments",
    "row_moments": "moments",
    "center_rows": "moments",
    "normalize_rows": "moments",
    "row_products": "moments",
    "row_gradients": "moments",
    "winograd": "winograd",
    "winograd_backward": "winograd",
}

# Arrays are in C order, but for `Rows`, a matrix whose rows may lie apart. `Real` is an
# element, `Numbers` and `Places` are a vector and a matrix of int32, and `Doubles` is a vector of
# float64.
Vector: TypeAlias = Any
Matrix: TypeAlias = Any
Rows: TypeAlias = Any
Cube: TypeAlias = Any
Images: TypeAlias = Any
Numbers: TypeAlias = Any
Places: TypeAlias = Any
Doubles: TypeAlias = Any
Real: TypeAlias = Any

AXES = {"Vector": 1, "Matrix": 2, "Cube": 3, "Images": 4}
"""The numbers of axes of these arrays."""
