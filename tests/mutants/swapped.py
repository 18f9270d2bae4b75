"""Putting a mutant in the place of its module: a function's code replaced, or the whole module imported from it."""

from __future__ import annotations

import ast
import gc
import importlib.abc
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType


@dataclass(frozen=True, slots=True)
class Swapped:
    """Functions of an imported module, and the code that they get."""

    functions: tuple[FunctionType, ...]
    code: CodeType

    @classmethod
    def of(cls, module: str, source: str, line: int) -> Swapped | None:
        """What is replaced for a mutant whose change is at `line`; None where no function's code alone holds it."""
        named = _function_at(ast.parse(source), line)
        if named is None:
            return None
        name, first = named
        codes = [
            code for code in _codes(compile(source, module, "exec", dont_inherit=True)) if code.co_qualname == name
        ]
        functions = tuple(
            one
            for one in gc.get_objects()
            if isinstance(one, FunctionType) and one.__module__ == module and one.__code__.co_qualname == name
        )
        for function in functions:
            before = function.__code__
            if len(codes) != 1 or (before.co_firstlineno, before.co_freevars) != (first, codes[0].co_freevars):
                return None
        return cls(functions, codes[0]) if functions else None

    def swap(self) -> None:
        """From here on, in this process, the functions do what the mutant does."""
        for function in self.functions:
            function.__code__ = self.code


def _function_at(tree: ast.Module, line: int) -> tuple[str, int] | None:
    """The qualified name and the first line of the outermost function in whose body `line` is."""
    places: list[tuple[str, ast.stmt]] = [("", statement) for statement in tree.body]
    while places:
        prefix, node = places.pop()
        if isinstance(node, ast.ClassDef):
            places += [(f"{prefix}{node.name}.", statement) for statement in node.body]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
            node.body[0].lineno <= line <= (node.end_lineno or 0)
        ):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return f"{prefix}{node.name}", first
    return None


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from other source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name, self._path, self._source = name, path, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The mutant, when it is asked for."""
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def get_source(self, fullname: str) -> str:
        """Its source."""
        return self._source

    def get_code(self, fullname: str) -> CodeType:
        """Its code, never from a cache."""
        return compile(self._source, self._path, "exec", dont_inherit=True)
