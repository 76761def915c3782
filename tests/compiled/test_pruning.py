"""Sources have no statement whose results nothing reads."""

import ast
import copy

import numpy as np
import pytest

import nnlite as nn
from nnlite.compiled.forms import FORMS
from nnlite.compiled.pruning import pruned

from ..registry import LAYERS, LOSSES

assert nn.compile  # its module registers the forms


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a = 1\nb = 2\nreturn b", "b = 2\nreturn b"),
        ("a, b = 1, 2\nreturn b", "b = 2\nreturn b"),
        ("a, b = f()\nreturn b", "a, b = f()\nreturn b"),
        ("a = 1\na = 2\nreturn a", "a = 2\nreturn a"),
        ("a = b\nb = 2\nreturn a", "a = b\nreturn a"),
        # A variable that is read only for another unread one is left out too.
        ("a = 1\nb = a\nreturn c", "return c"),
        # Calls that may do something stay, and so does what is written into arrays.
        ("a = view(x, n)\nb = f(x)\nreturn x", "b = f(x)\nreturn x"),
        ("a = view(x, n)\na[0] = 1\nreturn x", "a = view(x, n)\na[0] = 1\nreturn x"),
        ("a = x\na += 1", "a = x\na += 1"),
        # Loops: the next turn may read it, and so may what follows.
        ("for i in r:\n    x[i] = a\n    a = 1", "for i in r:\n    x[i] = a\n    a = 1"),
        ("for i in r:\n    a = 1\n    x[i] = 2", "for i in r:\n    x[i] = 2"),
        ("for i in r:\n    a = 1\nreturn a", "for i in r:\n    a = 1\nreturn a"),
        ("for i in r:\n    for j in r:\n        a = 1\nreturn b", "return b"),
        ("for i in r:\n    b = a\n    a = i\nreturn b",) * 2,
        ("for i in r:\n    x[i] = b\n    b = a\n    a = i",) * 2,
        ("for i in r:\n    c = 1\nfor i in r:\n    c = 2\n    x[i] = c",
         "for i in r:\n    c = 2\n    x[i] = c"),
        ("for i in r:\n    if i:\n        a = 1\n        continue\n    a = 2\n    x[i] = a",
         "for i in r:\n    if i:\n        continue\n    a = 2\n    x[i] = a"),
        ("for i in r:\n    x[i] = a\n    if i:\n        a = 1\n        continue\n    a = 2",) * 2,
        ("for i in r:\n    a = 1\n    if i:\n        break\n    a = 2\nreturn a",) * 2,
        ("for i in r:\n    a = 1\n    if i:\n        break\n    a = 2\n    x[i] = a",
         "for i in r:\n    if i:\n        break\n    a = 2\n    x[i] = a"),
        # Conditions
        ("if c:\n    a = 1\nelse:\n    a = 2\nreturn c", "return c"),
        ("if c:\n    a = 1\nelse:\n    b = 2\nreturn b",) * 2,
        ("if c:\n    a = 1\nreturn a",) * 2,
        ("if c:\n    b = 1\nelse:\n    a = 2\nreturn b",) * 2,
        # Comments
        ("# A\na = 1\n# B\nreturn b", "# A\n# B\nreturn b"),
    ],
)  # fmt: skip
def test_what_nothing_reads_is_left_out(before, after):
    assert pruned(before) == after


def superfluous(source):
    """Return the names that a part of a function assigns, from a comment to the next, for nobody.

    This looks at lines alone, other than what it tests.
    """
    found, lines = [], source.splitlines()
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        titles = [
            number
            for number in range(function.lineno, function.end_lineno + 1)
            if lines[number - 1].lstrip().startswith("#")
        ]
        names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
        names.sort(key=lambda name: (name.lineno, isinstance(name.ctx, ast.Store)))
        given = {argument.arg for argument in function.args.args}

        def part(name, titles=titles):
            return sum(title <= name.lineno for title in titles)

        for name in names:
            same = [each for each in names if each.id == name.id]
            is_read = any(isinstance(e.ctx, ast.Load) for e in same if part(e) == part(name))
            later = [e for e in same if part(e) > part(name)]
            if (
                not is_read
                and name.id not in given
                and (not later or isinstance(later[0].ctx, ast.Store))
            ):
                found.append(f"{function.name}: {lines[name.lineno - 1]}")
        read = {name.id for name in names if isinstance(name.ctx, ast.Load)}
        found += [f"{function.name}({name})" for name in given - {"n"} - read]
    return found


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize(
    "case",
    [case for case in LAYERS if all(type(part) in FORMS for part in case.make().layers())],
    ids=lambda case: case.name,
)
def test_of_a_layer(case, is_frozen):
    layer = case.make()
    for parameter in list(layer.parameters())[:1]:
        parameter.requires_grad = not is_frozen
    for mode in (layer.train, layer.eval):
        mode()
        compiled = nn.compile(copy.deepcopy(layer), native=False)
        compiled(*case.inputs(np.random.default_rng(0), 4))
        assert not superfluous(compiled.source)


@pytest.mark.parametrize(
    "case",
    [case for case in LOSSES if case.make().reduction != "none"],
    ids=lambda case: case.name,
)
def test_of_a_loss(case):
    rng = np.random.default_rng(0)
    prediction, target = case.prediction(rng, 4), case.target(rng, 4)
    model = nn.Graph({"y": (nn.Add(), "x", "w"), "w": nn.Weight(np.zeros(prediction.shape))})
    compiled = nn.compile(model, case.make(), native=False)
    for weights in ((), (np.ones(4),)):
        compiled(prediction, target, *weights)
        assert not superfluous(compiled.source)


def test_modules_are_imported_once():
    model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.Tanh(), nn.Linear(3, 2, rng=0))
    compiled = nn.compile(model, nn.CrossEntropy(), native=False)
    compiled(np.ones((2, 2), np.float32), np.array([0, 1]))
    modules = [n.module for n in ast.parse(compiled.source).body if isinstance(n, ast.ImportFrom)]
    assert len(modules) == len(set(modules))
