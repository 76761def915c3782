"""Parameter initialisation: each function fills a ``Parameter`` in place and returns it."""

from __future__ import annotations

import math

import numpy as np

from .checks import one_of
from .parameter import Parameter
from .random import RandomState, generator

NONLINEARITIES = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu")


def calculate_gain(nonlinearity: str, negative_slope: float = 0.01) -> float:
    """Return the recommended scale of the weights before a nonlinearity, as PyTorch defines it.

    Parameters
    ----------
    nonlinearity : {"linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"}
        The function after the layer. The gains are 1, 1, 5/3, √2, √(2 / (1 + slope²)) and 3/4.
    negative_slope : float
        Slope of a leaky ReLU for negative inputs; ignored for other functions.

    Examples
    --------
    >>> import nnlite as nn
    >>> nn.init.calculate_gain("relu") ** 2
    2.0000000000000004
    """
    one_of(nonlinearity, NONLINEARITIES, "nonlinearity")
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + negative_slope**2))
    return {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}.get(nonlinearity, 1.0)


def fans(parameter: Parameter) -> tuple[int, int]:
    """Return fan-in, the number of inputs of each output, and fan-out, of outputs of each input.

    For a weight of shape ``(out, in, *kernel)``, fan-in is in × kernel size and fan-out is
    out × kernel size.

    Raises
    ------
    ValueError
        If the parameter has fewer than two axes.
    """
    shape = parameter.shape
    if len(shape) < 2:
        raise ValueError(f"fan-in and fan-out need a weight of two axes or more, got shape {shape}")
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def constant_(parameter: Parameter, value: float) -> Parameter:
    """Fill with `value`."""
    parameter.data[...] = value
    return parameter


def zeros_(parameter: Parameter) -> Parameter:
    """Fill with 0."""
    return constant_(parameter, 0.0)


def ones_(parameter: Parameter) -> Parameter:
    """Fill with 1."""
    return constant_(parameter, 1.0)


def uniform_(
    parameter: Parameter, low: float = 0.0, high: float = 1.0, *, rng: RandomState = None
) -> Parameter:
    """Fill with values from the uniform distribution on [low, high)."""
    parameter.data[...] = generator(rng).uniform(low, high, parameter.shape)
    return parameter


def normal_(
    parameter: Parameter, mean: float = 0.0, std: float = 1.0, *, rng: RandomState = None
) -> Parameter:
    """Fill with values from the normal distribution with this mean and standard deviation."""
    parameter.data[...] = generator(rng).normal(mean, std, parameter.shape)
    return parameter


def trunc_normal_(
    parameter: Parameter,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    *,
    rng: RandomState = None,
) -> Parameter:
    """Fill with values from the normal distribution, drawn again until they lie in [a, b].

    As in PyTorch, `a` and `b` are values and no multiples of `std`.

    Raises
    ------
    ValueError
        If less than a thousandth of the distribution lies in [a, b].

    Examples
    --------
    >>> import nnlite as nn
    >>> weight = nn.init.trunc_normal_(nn.Linear(100, 50).weight, std=0.02, a=-0.04, b=0.04, rng=0)
    >>> bool(abs(weight.data).max() <= 0.04)
    True
    """
    low, high = ((bound - mean) / (std * math.sqrt(2)) for bound in (a, b))
    if not math.erf(high) - math.erf(low) > 0.002:  # twice the probability
        raise ValueError(
            f"trunc_normal_: too few values of mean {mean} and std {std} lie in [{a}, {b}]"
        )
    rng = generator(rng)
    normal_(parameter, mean, std, rng=rng)
    values = parameter.data
    while (outside := (values < a) | (values > b)).any():
        values[outside] = rng.normal(mean, std, np.count_nonzero(outside))
    return parameter


def xavier_uniform_(
    parameter: Parameter, gain: float = 1.0, *, rng: RandomState = None
) -> Parameter:
    """Fill with values uniform on ±gain·√(6 / (fan_in + fan_out)).

    This is a compromise between keeping the variance of the activations in the forward pass and
    that of the gradients in the backward pass.

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.

    Examples
    --------
    >>> import nnlite as nn
    >>> layer = nn.Linear(100, 50)
    >>> weight = nn.init.xavier_uniform_(layer.weight, rng=0)
    >>> bool(abs(weight.data).max() <= 0.2)  # √(6 / 150)
    True
    """
    bound = gain * math.sqrt(6 / sum(fans(parameter)))
    return uniform_(parameter, -bound, bound, rng=rng)


def xavier_normal_(
    parameter: Parameter, gain: float = 1.0, *, rng: RandomState = None
) -> Parameter:
    """Fill with normal values of mean 0 and standard deviation gain·√(2 / (fan_in + fan_out)).

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.
    """
    return normal_(parameter, 0.0, gain * math.sqrt(2 / sum(fans(parameter))), rng=rng)


def _kaiming_std(parameter: Parameter, a: float, mode: str, nonlinearity: str) -> float:
    fan = fans(parameter)[one_of(mode, ("fan_in", "fan_out"), "mode") == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(
    parameter: Parameter,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: RandomState = None,
) -> Parameter:
    """Fill with values uniform on ±gain·√(3 / fan).

    Parameters
    ----------
    parameter : Parameter
        A weight of two or more axes.
    a : float
        Negative slope of the leaky ReLU after the layer; 0 for a ReLU.
    mode : {"fan_in", "fan_out"}
        Keep the variance in the forward pass ("fan_in") or in the backward pass ("fan_out").
    nonlinearity : str
        The function after the layer: see `calculate_gain`.
    rng : int, numpy.random.Generator or None

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015.

    Examples
    --------
    >>> import nnlite as nn
    >>> layer = nn.Linear(600, 50)
    >>> weight = nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", rng=0)
    >>> bool(abs(weight.data).max() <= 0.1)  # √2 · √(3 / 600)
    True
    """
    bound = math.sqrt(3) * _kaiming_std(parameter, a, mode, nonlinearity)
    return uniform_(parameter, -bound, bound, rng=rng)


def kaiming_normal_(
    parameter: Parameter,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: RandomState = None,
) -> Parameter:
    """Fill with normal values of mean 0 and standard deviation gain / √fan.

    Parameters as in `kaiming_uniform_`.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", ICCV 2015.
    """
    return normal_(parameter, 0.0, _kaiming_std(parameter, a, mode, nonlinearity), rng=rng)


def orthogonal_(parameter: Parameter, gain: float = 1.0, *, rng: RandomState = None) -> Parameter:
    """Fill with `gain` times a random orthogonal matrix; all axes after the first are merged.

    If there are more rows than columns, the columns are orthonormal, otherwise the rows.

    References
    ----------
    A. Saxe, J. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks", ICLR 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import nnlite as nn
    >>> weight = nn.init.orthogonal_(nn.Linear(3, 3).weight, rng=0).data
    >>> bool(np.allclose(weight @ weight.T, np.eye(3), atol=1e-6))
    True
    """
    fans(parameter)
    rows, columns = parameter.shape[0], math.prod(parameter.shape[1:])
    draws = generator(rng).normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(draws)
    # The signs of r's diagonal make q uniformly distributed over the orthogonal matrices.
    q *= np.sign(np.diag(r))
    parameter.data[...] = (gain * (q if rows >= columns else q.T)).reshape(parameter.shape)
    return parameter


def default_(parameter: Parameter, fan_in: int, *, rng: RandomState = None) -> Parameter:
    """Fill with values uniform on ±1/√fan_in, PyTorch's default for weights and biases."""
    bound = 1 / math.sqrt(fan_in)
    return uniform_(parameter, -bound, bound, rng=rng)
