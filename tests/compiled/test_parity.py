"""The compiled form of each layer and loss gives PyTorch's figures: those of `tests.parity`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnlite as nn

from ..parity.case import TOLERANCE, assert_figures, nnlite_figures, torch_figures
from ..parity.cases import DRAWN_LAYERS, LAYERS
from ..parity.record import read

pytestmark = pytest.mark.filterwarnings("ignore:.* a single class")

RECORDED = {group: read(group) for group in LAYERS}


class CompiledLoss:
    """A loss that is compiled behind a model whose only parameter is added to the prediction."""

    def __init__(self, loss):
        self.loss = loss

    def __call__(self, prediction, *target):
        self.added = nn.Weight(np.zeros_like(prediction))
        model = nn.Graph({"w": (self.added,), "y": (nn.Add(), "x", "w")})
        return nn.compile(model, self.loss, native=False)(prediction, *target)

    def backward(self, grad):
        return grad * self.added.weight.grad


def compiled(layer):
    return CompiledLoss(layer) if isinstance(layer, nn.Loss) else nn.compile(layer, native=False)


UNCOMPILED = (
    *(nn.CosineEmbedding, nn.GaussianNLL, nn.TripletMargin),
    *(nn.RNNCell, nn.LSTMCell, nn.GRUCell),
)


def can_be_compiled(case):
    """Whether the case is no layer without a compiled form, and no loss of several numbers."""
    layer = case.layer()
    several_numbers = isinstance(layer, nn.Loss) and layer.reduction == "none"
    return not (several_numbers or isinstance(layer, UNCOMPILED))


CASES = [
    (group, case) for group, cases in LAYERS.items() for case in cases if can_be_compiled(case)
]


@pytest.mark.parametrize(("group", "case"), CASES, ids=str)
def test_recorded_figures(group, case):
    recorded = RECORDED[group][case.name]
    assert_figures(nnlite_figures(case, recorded, compiled), recorded, TOLERANCE[case.dtype])


@pytest.mark.parametrize("group", DRAWN_LAYERS)
@settings(max_examples=10)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_drawn_shapes_and_options(group, data, seed):
    torch = pytest.importorskip("torch")
    case = data.draw(DRAWN_LAYERS[group].filter(can_be_compiled))
    expected = torch_figures(case, torch, seed)
    assert_figures(nnlite_figures(case, expected, compiled), expected, TOLERANCE[case.dtype])
