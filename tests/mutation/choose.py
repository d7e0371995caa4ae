"""The tests that run on a mutant: quick ones that execute what it changes."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Any

from tests.mutation.mutants import Mutant
from tests.mutation.record import PACKAGE, ROOT, moved_lines

TESTS = 150  # of a mutant
FILES = 6  # that those tests are in: each costs its imports
SECONDS = 10.0  # that those tests take together without a mutant
WIDER = 10  # times as much of each before a mutant is said to survive


class Chooser:
    """The tests for a mutant, by a record that may be of somewhat older sources."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.seconds: dict[str, float] = record["seconds"]
        self.sources = {
            str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / PACKAGE).rglob("*.py"))
        }
        self.trees = {file: ast.parse(source) for file, source in self.sources.items()}
        self.lines: dict[str, dict[int, list[str]]] = {}
        for file, source in self.sources.items():
            moved = moved_lines(record["sources"].get(file, ""), source)
            self.lines[file] = {
                moved[int(line)]: names for line, names in record["lines"].get(file, {}).items() if int(line) in moved
            }

    def of(self, mutant: Mutant, times: int = 1) -> list[str]:
        """At most TESTS tests that execute the mutant's statement, quick ones first, of as many test files as possible.

        times: this many times as many tests, files and seconds.
        """
        by_file: dict[str, list[str]] = defaultdict(list)
        for test in sorted(self._candidates(mutant), key=lambda test: (self.seconds[test], test)):
            by_file[test.split("::")[0]].append(test)
        # the files with the most such tests first: they are about what is changed
        most = sorted(by_file, key=lambda file: (-len(by_file[file]), file))[: times * FILES]
        by_file = {file: by_file[file] for file in most}
        chosen, total = [], 0.0
        for rank in range(times * TESTS):
            row = [names[rank] for names in by_file.values() if rank < len(names)]
            for test in sorted(row, key=lambda test: self.seconds[test]):
                if len(chosen) < times * TESTS and (not chosen or total + self.seconds[test] <= times * SECONDS):
                    chosen.append(test)
                    total += self.seconds[test]
        return chosen

    def _candidates(self, mutant: Mutant) -> set[str]:
        path = _path_to(self.trees[mutant.file], mutant)
        statement = next(node for node in reversed(path) if isinstance(node, ast.stmt))
        exact = self._at(mutant.file, mutant.line, mutant.line)
        if exact:
            return exact
        function = next((node for node in reversed(path) if isinstance(node, ast.FunctionDef)), None)
        if function is not None and statement is not function:
            body = getattr(statement, "body", None)
            return self._at(mutant.file, statement.lineno, body[0].lineno - 1 if body else statement.end_lineno or 0)
        if function is not None:  # a default of an argument
            return self._at(mutant.file, function.body[0].lineno, function.end_lineno or 0)
        # executed when imported: the tests of the functions that use what is defined
        names = {node.name for node in path if isinstance(node, ast.ClassDef)}
        for node in path:
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        return self._users(mutant.file, names)

    def _at(self, file: str, first: int, last: int) -> set[str]:
        lines = self.lines[file]
        return {test for line in range(first, last + 1) for test in lines.get(line, ()) if test in self.seconds}

    def _users(self, file: str, names: set[str]) -> set[str]:
        """Tests of the functions that mention one of these names of a file's module level, or what stands on it there."""
        module = file.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        result: set[str] = set()
        for other, tree in self.trees.items():
            known = set(names) if other == file else _imported(tree, module) & names
            if not known:
                continue
            for node in [*tree.body, *tree.body]:  # twice, for constants that stand on later ones
                if isinstance(node, ast.Assign | ast.AnnAssign) and _mentions(node, known):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    known |= {target.id for target in targets if isinstance(target, ast.Name)}
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef) and (_mentions(node, known) or node.name in known):
                    result |= self._at(other, node.body[0].lineno, node.end_lineno or 0)
                elif isinstance(node, ast.ClassDef) and node.name in known:
                    for method in node.body:
                        if isinstance(method, ast.FunctionDef):
                            result |= self._at(other, method.body[0].lineno, method.end_lineno or 0)
        return result


def _imported(tree: ast.Module, module: str) -> set[str]:
    return {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module == module or f"{node.module}.{node.names[0].name}" == module)
        for alias in node.names
    }


def _mentions(node: ast.AST, names: set[str]) -> bool:
    return any(
        (isinstance(part, ast.Name) and part.id in names) or (isinstance(part, ast.Attribute) and part.attr in names)
        for part in ast.walk(node)
    )


def _path_to(tree: ast.Module, mutant: Mutant) -> list[ast.AST]:
    """The nodes from the module down to the narrowest that holds the mutant's first line and text."""
    path: list[ast.AST] = [tree]
    while True:
        for child in ast.iter_child_nodes(path[-1]):
            first = min([getattr(child, "lineno", 0), *(d.lineno for d in getattr(child, "decorator_list", []))])
            if isinstance(child, ast.stmt) and first <= mutant.line <= (child.end_lineno or 0):
                path.append(child)
                break
        else:
            return path
