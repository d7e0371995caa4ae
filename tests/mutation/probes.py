"""Probes in the functions of gossamer: each process records which of their lines it has executed.

`install` changes how the package's sources are compiled: a call before every statement that can be the first to execute after
a jump. A traceback keeps its lines, and nothing is written beside the sources. It costs a tenth of a run, where tracing every line
doubles it.
"""

from __future__ import annotations

import ast
import builtins
import importlib.machinery
from typing import Any

NAME = "__executed__"
executed: set[tuple[str, int]] = set()  # (file, first line of statements that execute one after another)
COMPOUND = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.Match)


def install(package: str) -> None:
    """From here on sources below this folder are compiled with probes."""
    setattr(builtins, NAME, executed.add)
    compiled = importlib.machinery.SourceFileLoader.source_to_code
    cached = importlib.machinery.SourceFileLoader.get_code

    def source_to_code(self: Any, data: Any, path: Any, **options: Any) -> Any:
        if str(path).startswith(package):
            data = with_probes(ast.parse(data), str(path))
        return compiled(self, data, path, **options)

    def get_code(self: Any, name: str) -> Any:
        path = self.get_filename(name)
        if path.startswith(package):  # whatever is cached has no probes
            return source_to_code(self, self.get_data(path), path)
        return cached(self, name)

    importlib.machinery.SourceFileLoader.source_to_code = source_to_code  # type: ignore[method-assign,assignment]
    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def with_probes(tree: ast.Module, path: str) -> ast.Module:
    """The tree with a call at the start of each run of statements of its functions."""
    for body in _bodies(tree):
        for run in reversed(_runs(body)):
            first = body[run[0]]
            call = ast.parse(f"{NAME}(({path!r}, {first.lineno}))").body[0]
            for node in ast.walk(call):
                ast.copy_location(node, first)
            body.insert(run[0], call)
    return tree


def runs_of(source: str) -> dict[int, list[int]]:
    """First line of each run of statements -> the lines of the run, without those of blocks inside."""
    result = {}
    for body in _bodies(ast.parse(source)):
        for run in _runs(body):
            lines: list[int] = []
            for index in run:
                statement = body[index]
                last = statement.end_lineno or statement.lineno
                if isinstance(statement, COMPOUND):
                    inner = statement.cases[0].pattern if isinstance(statement, ast.Match) else statement.body[0]
                    last = max(statement.lineno, inner.lineno - 1)
                lines += range(statement.lineno, last + 1)
            result[body[run[0]].lineno] = lines
    return result


def _bodies(tree: ast.AST) -> list[list[ast.stmt]]:
    """The lists of statements in functions, inside nested functions too."""
    bodies = []
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            pending: list[ast.AST] = [function]
            while pending:
                node = pending.pop()
                for field in ("body", "orelse", "finalbody"):
                    part = getattr(node, field, None)
                    if isinstance(part, list) and part:
                        bodies.append(part)
                pending += [
                    child
                    for child in ast.iter_child_nodes(node)
                    if isinstance(child, (*COMPOUND, ast.ExceptHandler, ast.match_case))
                ]
    return bodies


def _runs(body: list[ast.stmt]) -> list[list[int]]:
    """Indices of statements that execute one after another: a compound statement ends a run."""
    runs: list[list[int]] = [[]]
    for index, statement in enumerate(body):
        if isinstance(statement, ast.Global | ast.Nonlocal) or (index == 0 and _is_text(statement)):
            continue
        runs[-1].append(index)
        if isinstance(statement, COMPOUND):
            runs.append([])
    return [run for run in runs if run]


def _is_text(statement: ast.stmt) -> bool:
    """Whether it is a docstring, which must stay the first statement."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
