"""Mutants of a Python source: each changes one operator, constant, condition, return value or pair of arguments.

Text is left alone: docstrings, annotations, messages of errors and progress, help, `__repr__` and `text`.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
TEXT_FUNCTIONS = ("__repr__", "__str__", "text")
TEXT_CALLS = ("say", "warn", "write_line", "print")
TEXT_KEYWORDS = ("help", "metavar", "what", "title", "description")


class Mutant(NamedTuple):
    """One change of a file: the source between two offsets in UTF-8 bytes, before and after it."""

    file: str
    line: int
    function: str  # dotted, "" at the module's level
    kind: str
    start: int
    end: int
    before: str
    after: str

    def apply(self, source: bytes) -> bytes:
        """The source of the file with this change."""
        assert source[self.start : self.end].decode() == self.before, f"{self.file} is not the source of the mutant"
        return source[: self.start] + self.after.encode() + source[self.end :]

    @property
    def name(self) -> str:
        """What stays the same when lines above it change."""
        return f"{self.file}:{self.function}:{self.kind}:{self.before}:{self.after}"


def mutants(file: str, source: str) -> list[Mutant]:
    """All mutants of a source, in the order of its lines."""
    return sorted(
        _Finder(file, source).find(), key=lambda mutant: (mutant.start, mutant.end, mutant.kind, mutant.after)
    )


class _Finder:
    def __init__(self, file: str, source: str) -> None:
        self.file = file
        self.source = source.encode()
        self.tree = ast.parse(source)
        self.starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def find(self) -> Iterator[Mutant]:
        yield from self._walk(self.tree, "", False)

    def _walk(self, node: ast.AST, function: str, annotation: bool) -> Iterator[Mutant]:
        """The mutants in a node and below; `annotation`: it stands where types do."""
        if not annotation:
            for kind, target, changed in _changes(node):
                yield self._mutant(function, kind, target, changed)
        for child, is_annotation in _children(node):
            name = function
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if child.name in TEXT_FUNCTIONS:
                    continue
                name = f"{function}.{child.name}".lstrip(".")
            yield from self._walk(child, name, annotation or is_annotation)

    def _mutant(self, function: str, kind: str, target: ast.expr | ast.stmt, changed: str) -> Mutant:
        start = self.starts[target.lineno - 1] + target.col_offset
        assert target.end_lineno is not None and target.end_col_offset is not None
        end = self.starts[target.end_lineno - 1] + target.end_col_offset
        return Mutant(self.file, target.lineno, function, kind, start, end, self.source[start:end].decode(), changed)


def _children(node: ast.AST) -> Iterator[tuple[ast.AST, bool]]:
    """The nodes below, without text; and whether each is an annotation."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Call) and _is_text(node.func):
        return
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or (isinstance(child, ast.keyword) and child.arg in TEXT_KEYWORDS):
                continue
            yield child, name in ("annotation", "returns")


def _is_text(function: ast.expr) -> bool:
    """Whether a call of it makes a message."""
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in TEXT_CALLS or name.endswith("Error") or name in ("TypeVar", "NewType", "cast")


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """(kind, node that is replaced, its new source) of each change to this node itself."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                changed = copy.deepcopy(node)
                changed.ops[index] = other()
                yield "comparison", node, f"({ast.unparse(changed)})"
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _has_text(node):
        yield "arithmetic", node, f"({ast.unparse(ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right))})"
    elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield "arithmetic", node, ast.unparse(ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value))
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "boolean", node, f"({ast.unparse(ast.BoolOp(other_op, node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", node, f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", node, str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        for step in (1, -1):
            yield "constant", node, f"({node.value + step!r})"
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield "return", node, "return None"
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and ast.unparse(node.test) not in ("TYPE_CHECKING", "True"):
        yield "condition", node.test, f"(not ({ast.unparse(node.test)}))"
    elif isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield "condition", test, f"(not ({ast.unparse(test)}))"
    elif isinstance(node, ast.Call) and len(node.args) >= 2 and not _is_text(node.func):
        first, second = node.args[:2]
        if not any(isinstance(argument, ast.Starred) for argument in (first, second)) and ast.dump(first) != ast.dump(
            second
        ):
            swapped = copy.deepcopy(node)
            swapped.args[:2] = swapped.args[1::-1]
            yield "arguments", node, ast.unparse(swapped)


def _has_text(node: ast.BinOp) -> bool:
    """Whether text is concatenated or formatted, or a path."""
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )
