"""Dead-code elimination: assignments that nothing reads are left out of a source.

A backward liveness analysis finds them. A form writes all that its layer may need. Which of it a
function reads follows from the other layers, from the parameters that are trained, and from what
the function returns.
"""

from __future__ import annotations

import ast
import functools

# Functions without side effects.
_PURE = {
    "view",
    "part",
    "reshape",
    "empty",
    "empty_like",
    "zeros",
    "full",
    "real",
    "float",
    "range",
}


def pruned(text: str) -> str:
    """Return the statements without assignments to variables that are not read afterwards."""
    lines = text.splitlines()
    pruner = _Pruner()
    pruner.prune(ast.parse(text).body, set())
    for statement, rest in pruner.edits:  # the last statement first
        indentation = " " * statement.col_offset
        lines[statement.lineno - 1 : statement.end_lineno] = [indentation + rest] if rest else []
    return "\n".join(lines)


class _Pruner:
    """Goes through statements from the last to the first, with the variables that are read later.

    Attributes
    ----------
    edits : list of (statement, str)
        The replacement of each statement: "" if it is left out.
    """

    def __init__(self) -> None:
        self.edits: list[tuple[ast.stmt, str]] = []
        self._read_in_loop: set[str] = set()  # by this or the next turn of the loop, or after it
        self._read = functools.cache(_read)  # a loop is gone through several times

    def prune(self, statements: list[ast.stmt], live: set[str]) -> set[str]:
        """Return the variables that are read from the first of the statements on."""
        for statement in reversed(statements):
            live = self._before(statement, live)
        return live

    def _before(self, statement: ast.stmt, live: set[str]) -> set[str]:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            return self._before_assignment(statement, live)
        if isinstance(statement, ast.For):
            return self._before_loop(statement, live)
        if isinstance(statement, ast.If):
            inner = self._before_parts(statement, live)
            return live if inner is None else self._read(statement.test) | inner
        if isinstance(statement, (ast.Break, ast.Continue)):
            return self._read_in_loop
        return live | self._read(statement)

    def _before_loop(self, loop: ast.For, live: set[str]) -> set[str]:
        outer, mark, inner = self._read_in_loop, len(self.edits), set[str]()
        while True:
            self._read_in_loop = live | inner
            found = self._before_parts(loop, self._read_in_loop)
            if found is None or found - _set(loop) <= self._read_in_loop:
                break
            del self.edits[mark:]  # once more, with what the next turn reads
            inner |= found - _set(loop)
        self._read_in_loop = outer
        return live if found is None else live | inner | self._read(loop.iter)

    def _before_parts(self, statement: ast.For | ast.If, live: set[str]) -> set[str] | None:
        """Return what the parts of a statement read, or None if nothing of them is left."""
        mark = len(self.edits)
        inner = self.prune(statement.orelse, live) | self.prune(statement.body, live)
        gone = {id(each) for each, rest in self.edits[mark:] if not rest}
        blocks = [block for block in (statement.body, statement.orelse) if block]
        empty = [all(id(each) in gone for each in block) for block in blocks]
        if not any(empty):
            return inner
        del self.edits[mark:]
        if not all(empty):  # Python has no block without statements
            return live | self._read(statement)
        self.edits.append((statement, ""))
        return None

    def _before_assignment(self, statement: ast.Assign, live: set[str]) -> set[str]:
        (target,), value = statement.targets, statement.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=True))
        kept = [(to, of) for to, of in pairs if not _is_superfluous(to, of, live)]
        if not kept:
            self.edits.append((statement, ""))
            return live
        if len(kept) < len(pairs):
            sides = [", ".join(map(ast.unparse, side)) for side in zip(*kept, strict=True)]
            self.edits.append((statement, " = ".join(sides)))
        names = {to.id for to, _ in kept if isinstance(to, ast.Name)}
        return (live - names).union(*[self._read(to) | self._read(of) for to, of in kept])


def _is_superfluous(target: ast.expr, value: ast.expr, live: set[str]) -> bool:
    if not isinstance(target, ast.Name) or target.id in live:
        return False
    calls = [node.func for node in ast.walk(value) if isinstance(node, ast.Call)]
    return {getattr(call, "attr", getattr(call, "id", "")) for call in calls} <= _PURE


def _set(loop: ast.For) -> set[str]:
    """Return the variables of a loop."""
    return {each.id for each in ast.walk(loop.target) if isinstance(each, ast.Name)}


def _read(node: ast.AST) -> set[str]:
    """Return the variables that are read; those of ``x += 1`` are."""
    nodes = list(ast.walk(node))
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    targets = [n.target for n in nodes if isinstance(n, ast.AugAssign)]
    return names | {target.id for target in targets if isinstance(target, ast.Name)}
