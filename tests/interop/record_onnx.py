"""Record the files of PyTorch's exporters: ``python -m tests.interop.record_onnx [NAME ...]``.

For each network there is a ``.npz`` file with its input, output, output gradient and gradients,
and an ``.onnx`` file of each exporter: the one of TorchScript and the one of ``torch.export``.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

DATA = Path(__file__).parent / "data"


def networks(torch: Any) -> dict[str, tuple[Any, Any]]:
    """Return modules and inputs for them by name."""
    t = torch.nn

    class Outputs(t.Module):
        """All outputs of a recurrent module, its last one, or its final state."""

        def __init__(self, cell: Any, what: str) -> None:
            super().__init__()
            self.cell, self.what = cell, what

        def forward(self, x: Any) -> Any:
            sequence, final = self.cell(x)
            final = final[0] if isinstance(final, tuple) else final
            return {"all": sequence, "last": sequence[:, -1], "final": final[-1]}[self.what]

    class Steps(t.Module):
        """A cell that is called for each step, from a state of zeros."""

        def __init__(self, cell: Any, pair: bool = False) -> None:
            super().__init__()
            self.cell, self.pair = cell, pair

        def forward(self, x: Any) -> Any:
            h = x.new_zeros(x.shape[0], self.cell.hidden_size)
            state = (h, h) if self.pair else h
            for step in range(x.shape[1]):
                state = self.cell(x[:, step], state)
            return state[0] if self.pair else state

    class SelfAttention(t.Module):
        """Attention of each step to those up to it, as the module or as the function."""

        def __init__(self, module: bool) -> None:
            super().__init__()
            self.project = None if module else t.Linear(4, 12)
            self.attention = t.MultiheadAttention(4, 2, batch_first=True) if module else None

        def forward(self, x: Any) -> Any:
            length = x.shape[1]
            if self.attention is not None:
                later = torch.ones(length, length, dtype=torch.bool).triu(1)
                return self.attention(x, x, x, attn_mask=later, need_weights=False)[0]
            parts = [
                part.view(x.shape[0], length, 2, 2).transpose(1, 2)
                for part in self.project(x).split(4, dim=2)
            ]
            y = t.functional.scaled_dot_product_attention(*parts, is_causal=True)
            return y.transpose(1, 2).reshape(x.shape[0], length, 4)

    class Normalized(t.Module):
        """Vectors of length 1, as siamese networks compare them."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = t.Sequential(t.Linear(4, 5), t.ReLU(), t.Linear(5, 3))

        def forward(self, x: Any) -> Any:
            return t.functional.normalize(self.layers(x), dim=1)

    class LanguageModel(t.Module):
        """Embeddings of codes and positions, and attention by hand with a buffer as its mask."""

        def __init__(self) -> None:
            super().__init__()
            self.codes, self.positions = t.Embedding(7, 4), t.Embedding(5, 4)
            self.norm, self.project, self.last = t.LayerNorm(4), t.Linear(4, 12), t.Linear(4, 7)
            self.register_buffer("mask", torch.ones(5, 5).tril()[None])

        def forward(self, x: Any) -> Any:
            h = self.codes(x) + self.positions(torch.arange(x.shape[1]))
            q, k, v = self.project(self.norm(h)).chunk(3, dim=-1)
            scores = (q @ k.transpose(1, 2) / 2).masked_fill(self.mask == 0, -torch.inf)
            return self.last(h + scores.softmax(-1) @ v)

    class Shortcut(t.Module):
        def __init__(self, body: Any) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Any) -> Any:
            return x + self.body(x)

    def normal(*shape: int) -> Any:
        return torch.randn(3, *shape)

    class Modules(t.Module):
        """Modules in modules, and functions between them."""

        def __init__(self) -> None:
            super().__init__()
            self.features = t.Sequential(
                t.Conv2d(1, 3, 3), t.ReLU(), t.Sequential(t.Conv2d(3, 4, 1), t.ReLU())
            )
            self.classifier = t.Sequential(t.Dropout(), t.Linear(4, 5), t.GELU(), t.Linear(5, 2))

        def forward(self, x: Any) -> Any:
            x = t.functional.adaptive_avg_pool2d(self.features(x), 1)
            return self.classifier(torch.flatten(x, 1))

    class Shapes(t.Module):
        """Layers that change shapes alone, between two products."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = t.Linear(6, 8), t.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            left, right = self.first(x).chunk(2, -1)
            both = torch.stack([left, right], 1)
            return self.last(both.transpose(1, 2).reshape(-1, 4, 2)[..., 1])

    images = t.Sequential(
        t.Conv2d(1, 3, 3, padding=1), t.BatchNorm2d(3), t.ReLU(), t.MaxPool2d(2),
        t.Conv2d(3, 4, 3, padding="same"), t.AvgPool2d(2), t.Flatten(), t.Linear(16, 3),
    )  # fmt: skip
    sequences = t.Sequential(
        t.Conv1d(2, 3, 3, stride=2, dilation=2), t.BatchNorm1d(3), t.GELU(), t.MaxPool1d(2),
        t.Flatten(), t.LayerNorm(9),
    )  # fmt: skip
    activations = t.Sequential(
        t.LeakyReLU(0.1), t.ELU(0.5), t.SiLU(), t.Softplus(2.0), t.GELU("tanh"), t.Sigmoid(),
        t.Tanh(),
    )  # fmt: skip
    return {
        "perceptron": (
            t.Sequential(t.Flatten(), t.Linear(12, 5), t.ReLU(), t.Dropout(), t.Linear(5, 3)),
            normal(3, 4),
        ),
        "images": (images, normal(1, 8, 8)),
        "modules": (Modules(), normal(1, 6, 6)),
        "shapes": (Shapes(), normal(6)),
        "sequences": (sequences, normal(2, 17)),
        "activations": (activations, normal(5)),
        "average": (
            t.Sequential(t.Conv2d(1, 3, 3), t.AdaptiveAvgPool2d(1), t.Flatten(), t.Softmax(1)),
            normal(1, 6, 6),
        ),
        "maximum": (
            t.Sequential(t.AdaptiveMaxPool2d(1), t.Flatten(), t.LogSoftmax(1)),
            normal(2, 6, 6),
        ),
        "embedding": (t.Sequential(t.Embedding(7, 4), t.Linear(4, 3)), torch.randint(7, (3, 5))),
        "norm": (t.Sequential(t.Linear(3, 4), t.BatchNorm1d(4, affine=False)), normal(3)),
        "shortcut": (
            t.Sequential(
                Shortcut(t.Sequential(t.Linear(3, 3), t.Tanh())), t.Linear(3, 2, bias=False)
            ),
            normal(3),
        ),
        "lstm": (Outputs(t.LSTM(3, 4, batch_first=True), "all"), normal(5, 3)),
        "lstm_deep": (
            Outputs(t.LSTM(3, 4, 2, batch_first=True, bidirectional=True), "all"),
            normal(5, 3),
        ),
        "lstm_final": (Outputs(t.LSTM(3, 4, batch_first=True), "final"), normal(5, 3)),
        "gru_final": (Outputs(t.GRU(3, 4, batch_first=True), "final"), normal(5, 3)),
        "rnn_last": (
            Outputs(t.RNN(3, 4, batch_first=True, nonlinearity="relu"), "last"),
            normal(5, 3),
        ),
        "rnn_cell": (Steps(t.RNNCell(3, 4)), normal(4, 3)),
        "gru_cell": (Steps(t.GRUCell(3, 4)), normal(4, 3)),
        "lstm_cell": (Steps(t.LSTMCell(3, 4), pair=True), normal(4, 3)),
        "attention": (SelfAttention(module=True), normal(5, 4)),
        "attention_function": (SelfAttention(module=False), normal(5, 4)),
        "encoder": (
            t.TransformerEncoder(
                t.TransformerEncoderLayer(4, 2, 6, batch_first=True, activation="gelu"),
                2,
                enable_nested_tensor=False,
            ),
            normal(5, 4),
        ),
        "encoder_time_first": (
            t.TransformerEncoder(
                t.TransformerEncoderLayer(4, 2, 6, norm_first=True),
                1,
                enable_nested_tensor=False,
            ),
            normal(5, 4),
        ),
        "normalized": (Normalized(), normal(4)),
        "language_model": (LanguageModel(), torch.randint(7, (3, 5))),
    }


def record(torch: Any, *names: str) -> None:
    """Write the files of these networks, or all, anew."""
    torch.manual_seed(0)
    for name, (module, x) in networks(torch).items():
        if names and name not in names:
            continue
        module.eval()
        with torch.no_grad():  # the exporter drops biases of 0, and merges equal parameters
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        if x.is_floating_point():
            x.requires_grad_()
        y = module(x)
        grad = torch.randn_like(y)
        y.backward(grad)
        figures = {"x": x, "y": y, "grad": grad}
        if x.requires_grad:
            figures["x_grad"] = x.grad
        arrays = {key: value.detach().numpy() for key, value in figures.items()}
        np.savez(DATA / f"{name}.npz", **arrays)
        script, program = io.BytesIO(), io.BytesIO()
        given = x.detach()
        torch.onnx.export(
            module, (given,), script, dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
        )  # fmt: skip
        dynamic = ({0: torch.export.Dim("batch")},)
        exported = torch.onnx.export(module, (given,), dynamo=True, dynamic_shapes=dynamic)
        exported.save(program)
        for kind, stream in (("script", script), ("export", program)):
            model = onnx.load_from_string(stream.getvalue())
            # Where in Python a node comes from takes more room than all else; modules are read.
            for node in model.graph.node:
                scopes = [p for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
                del node.metadata_props[:]
                node.metadata_props.extend(scopes)
                node.doc_string = ""
            del model.graph.metadata_props[:], model.graph.value_info[:]
            for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
                del value.metadata_props[:]
            (DATA / f"{name}.{kind}.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    import torch

    record(torch, *sys.argv[1:])
