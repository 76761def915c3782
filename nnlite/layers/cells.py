"""One step of a recurrent layer: ``RNNCell``, ``LSTMCell`` and ``GRUCell``.

The loop over the steps is the caller's, and so is the one back: see `RNN`, `LSTM` and `GRU` for
whole sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .. import init
from ..checks import as_floats, as_output_grad, boolean, integer, one_of
from ..engine.arrays import Array
from ..engine.blas import affine, matmul
from ..engine.elementwise import sigmoid
from ..layer import Layer
from ..parameter import Parameter
from ..random import RandomState, generator


class _Cell(Layer):
    """Base of the cells: parameters, checks, and the products with the weights.

    A subclass defines the formulas of the gates. s and t are the sums x W_ihᵀ + b_ih and
    h W_hhᵀ + b_hh, one column for each unit of each gate.
    """

    gates: ClassVar[int]
    states: ClassVar[int] = 1

    input_size: int
    hidden_size: int
    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, rng: RandomState = None
    ) -> None:
        name = type(self).__name__
        self.input_size = integer(input_size, f"{name}: input_size")
        self.hidden_size = integer(hidden_size, f"{name}: hidden_size")
        self.bias = boolean(bias, f"{name}: bias")
        rows, rng = self.gates * self.hidden_size, generator(rng)

        def new(*shape: int) -> Parameter:
            parameter = Parameter(np.empty(shape, np.float32))
            init.default_(parameter, self.hidden_size, rng=rng)
            return parameter

        self.weight_ih = new(rows, self.input_size)
        self.weight_hh = new(rows, self.hidden_size)
        self.bias_ih = new(rows) if bias else None
        self.bias_hh = new(rows) if bias else None

    def forward(self, x: Array, *state: Any) -> Any:
        dtype = self.weight_ih.dtype
        x = np.ascontiguousarray(as_floats(self, x, dtype))
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise ValueError(
                f"{self.label}: expected input of shape (N, {self.input_size}), got {x.shape}"
            )
        before = self._checked_state(state, (len(x), self.hidden_size), dtype)
        biases = [None if b is None else b.data for b in (self.bias_ih, self.bias_hh)]
        s = affine(x, self.weight_ih.data, biases[0])
        t = affine(before[0], self.weight_hh.data, biases[1])
        after, saved = self._step(s, t, before)
        self.cache(x, before, bool(state), saved)
        return after if self.states > 1 else after[0]

    def backward(self, grad: Any, input_grad: bool = True) -> Any:
        x, before, is_given, saved = self.cached()
        grads = grad if self.states > 1 else (grad,)
        if len(grads) != self.states:
            raise ValueError(
                f"{self.label}: backward expects {self.states} gradients, got {len(grads)}"
            )
        zeros = np.zeros_like(before[0])
        flows = [
            zeros if each is None else as_output_grad(self, each, zeros.shape, x.dtype)
            for each in grads
        ]
        ds, dt, direct = self._step_back(saved, before, flows)
        self.weight_ih.accumulate_product(ds.T, x)
        self.weight_hh.accumulate_product(dt.T, before[0])
        if self.bias_ih is not None and self.bias_hh is not None:
            self.bias_ih.accumulate_sums(ds)
            self.bias_hh.accumulate_sums(dt)
        if not input_grad:
            return None
        dx = matmul(ds, self.weight_ih.data, like=x)
        dh = matmul(dt, self.weight_hh.data, like=before[0])
        d_state = [dh if direct[0] is None else dh + direct[0], *direct[1:]]
        return (dx, *d_state) if is_given else dx

    def multiply_adds(self, input_shapes: tuple[tuple[int, ...], ...], output_shape: Any) -> int:
        # Every weight is used once; a state that is not given is a product with zeros.
        return input_shapes[0][0] * (self.weight_ih.size + self.weight_hh.size)

    def _checked_state(
        self, state: tuple[Any, ...], shape: tuple[int, ...], dtype: Any
    ) -> list[Array]:
        """Return the arrays of the state before the step; zeros if none is given."""
        if len(state) == 1 and isinstance(state[0], tuple):
            state = state[0]
        if not state:
            return [np.zeros(shape, dtype)] * self.states
        arrays = [np.ascontiguousarray(as_floats(self, each, dtype, "state")) for each in state]
        if [array.shape for array in arrays] != [shape] * self.states:
            names = ("h", "c")[: self.states]
            raise ValueError(
                f"{self.label}: expected {' and '.join(names)} of shape {shape} "
                f"(N, hidden_size), got {[array.shape for array in arrays]}"
            )
        return arrays

    def _step(self, s: Array, t: Array, before: Sequence[Array]) -> tuple[tuple[Array, ...], Any]:
        """Return the state after the step, and the values that `_step_back` needs."""
        raise NotImplementedError

    def _step_back(
        self, saved: Any, before: Sequence[Array], grads: Sequence[Array]
    ) -> tuple[Array, Array, list[Any]]:
        """Return dL/ds, dL/dt, and for each state its gradient besides that through t, or None."""
        raise NotImplementedError


class RNNCell(_Cell):
    """One step of an Elman network: ``h' = tanh(x W_ihᵀ + b_ih + h W_hhᵀ + b_hh)``.

    Parameters
    ----------
    input_size, hidden_size : int
        Sizes of x and of h.
    bias : bool, default True
        Whether to add the learned biases.
    nonlinearity : {"tanh", "relu"}, default "tanh"
    rng : int, numpy.random.Generator or None
        Source of the initial values, uniform on ±1/√hidden_size as in PyTorch.

    Attributes
    ----------
    weight_ih : Parameter of shape (hidden_size, input_size)
    weight_hh : Parameter of shape (hidden_size, hidden_size)
    bias_ih, bias_hh : Parameter of shape (hidden_size,), or None

    Raises
    ------
    ValueError
        If x is not (N, input_size), or h is not (N, hidden_size).

    Notes
    -----
    ``cell(x)`` begins with h = 0, ``cell(x, h)`` with h; then `backward` returns the gradients of
    both. With G = dL/dh' and f' = 1 - h'² (for ReLU: [h' > 0])::

        ds = G f'      dL/dx = ds W_ih     dL/dW_ih = dsᵀ x     dL/db_ih = Σ_n ds
                       dL/dh = ds W_hh     dL/dW_hh = dsᵀ h     dL/db_hh = Σ_n ds

    Over several steps, call `backward` of a tied cell for each step, the last one first, and add
    what it returns for h to the gradient of the h before.

    References
    ----------
    J. Elman, "Finding structure in time", Cognitive Science 14, 1990.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> cell = nn.RNNCell(3, 4, rng=0)
    >>> h = cell(np.ones((2, 3), dtype=np.float32))
    >>> cell(np.ones((2, 3), dtype=np.float32), h).shape
    (2, 4)
    """

    gates = 1

    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        rng: RandomState = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, rng=rng)
        self.nonlinearity = one_of(nonlinearity, ("tanh", "relu"), "RNNCell: nonlinearity")

    def _step(self, s: Array, t: Array, before: Sequence[Array]) -> tuple[tuple[Array, ...], Any]:
        h = np.tanh(s + t) if self.nonlinearity == "tanh" else np.maximum(s + t, 0)
        return (h,), h

    def _step_back(
        self, saved: Any, before: Sequence[Array], grads: Sequence[Array]
    ) -> tuple[Array, Array, list[Any]]:
        (grad,), h = grads, saved
        ds = grad * (1 - h * h) if self.nonlinearity == "tanh" else np.where(h > 0, grad, 0)
        return ds, ds, [None]


class LSTMCell(_Cell):
    """One step of an LSTM, with the formulas of `LSTM`.

    Parameters and errors as in `RNNCell`, without the nonlinearity. The weights have four times as
    many rows, for the gates i, f, g and o.

    Notes
    -----
    ``cell(x)`` begins with h = c = 0, ``cell(x, h, c)`` or ``cell(x, (h, c))`` with those; it
    returns h' and c'. `backward` takes the gradients of both, of which one may be None, and returns
    those of x, h and c. With a = s + t, the sums of the products with x and with h::

        i = σ(a_i)    f = σ(a_f)    g = tanh(a_g)    o = σ(a_o)
        c' = f c + i g              h' = o tanh(c')

    With H = dL/dh' and C = dL/dc' + H o (1 - tanh² c')::

        da_i = C g i (1 - i)        da_f = C c f (1 - f)
        da_g = C i (1 - g²)         da_o = H tanh(c') o (1 - o)        dL/dc = C f

    References
    ----------
    S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> cell = nn.LSTMCell(3, 4, rng=0)
    >>> h, c = cell(np.ones((2, 3), dtype=np.float32))
    >>> h, c = cell(np.ones((2, 3), dtype=np.float32), h, c)
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    gates, states = 4, 2

    def _step(self, s: Array, t: Array, before: Sequence[Array]) -> tuple[tuple[Array, ...], Any]:
        i, f, g, o = np.split(s + t, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * before[1] + i * g
        tanh_c = np.tanh(c)
        return (o * tanh_c, c), (i, f, g, o, tanh_c)

    def _step_back(
        self, saved: Any, before: Sequence[Array], grads: Sequence[Array]
    ) -> tuple[Array, Array, list[Any]]:
        i, f, g, o, tanh_c = saved
        dh, dc = grads
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        da = np.concatenate(
            [
                dc * g * i * (1 - i),
                dc * before[1] * f * (1 - f),
                dc * i * (1 - g * g),
                dh * tanh_c * o * (1 - o),
            ],
            axis=1,
        )
        return da, da, [None, dc * f]


class GRUCell(_Cell):
    """One step of a GRU, with the formulas of `GRU`.

    Parameters and errors as in `RNNCell`, without the nonlinearity. The weights have three times as
    many rows, for the gates r, z and n.

    Notes
    -----
    ``cell(x)`` begins with h = 0, ``cell(x, h)`` with h. With the sums s of the products with x,
    and t of those with h::

        r = σ(s_r + t_r)    z = σ(s_z + t_z)    n = tanh(s_n + r t_n)    h' = (1 - z) n + z h

    With G = dL/dh'::

        ds_n = G (1 - z) (1 - n²)           dt_n = ds_n r
        ds_r = dt_r = ds_n t_n r (1 - r)    ds_z = dt_z = G (h - n) z (1 - z)
        dL/dh = dt W_hh + G z

    References
    ----------
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
    machine translation", EMNLP 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> cell = nn.GRUCell(3, 4, rng=0)
    >>> cell(np.ones((2, 3), dtype=np.float32)).shape
    (2, 4)
    """

    gates = 3

    def _step(self, s: Array, t: Array, before: Sequence[Array]) -> tuple[tuple[Array, ...], Any]:
        (s_r, s_z, s_n), (t_r, t_z, t_n) = np.split(s, 3, axis=1), np.split(t, 3, axis=1)
        r, z = sigmoid(s_r + t_r), sigmoid(s_z + t_z)
        n = np.tanh(s_n + r * t_n)
        return ((1 - z) * n + z * before[0],), (r, z, n, t_n)

    def _step_back(
        self, saved: Any, before: Sequence[Array], grads: Sequence[Array]
    ) -> tuple[Array, Array, list[Any]]:
        (grad,), (r, z, n, t_n) = grads, saved
        d_n = grad * (1 - z) * (1 - n * n)
        d_r = d_n * t_n * r * (1 - r)
        d_z = grad * (before[0] - n) * z * (1 - z)
        ds, dt = (np.concatenate([d_r, d_z, last], axis=1) for last in (d_n, d_n * r))
        return ds, dt, [grad * z]
