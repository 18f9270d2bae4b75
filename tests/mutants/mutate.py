"""Mutants of one module: each is its source with one small change, such as `<` for `<=`, or a statement left out.

Pure functions of source text; tests/mutants/run.py runs the tests against what is made here. Wording isn't mutated:
docstrings, messages of errors, log calls, f-strings and annotations stay as they are.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Add,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
N = TypeVar("N", ast.expr, ast.stmt)
LOGGERS = frozenset({"log", "logging"})


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: `line` (from 1) and its `text` are where, `before` and `after` differ, `source` is the module."""

    line: int
    text: str
    before: str
    after: str
    source: str
    number: int = 1
    """Which it is of the changes to its line that look the same."""

    @property
    def name(self) -> str:
        """What it is called in lists: the same for the same text, wherever it stands in the module."""
        change = f"{_one_line(self.before)}  ->  {_one_line(self.after)}"
        name = change if _one_line(self.before) == self.text else f"{change}  in  {self.text}"
        return name if self.number == 1 else f"{name}  (number {self.number})"


def mutants_of(source: str, within: ast.expr | None = None) -> list[Mutant]:
    """All mutants of a module, in the order of their lines; only those of the expression `within`, if one is given."""
    found: dict[str, Mutant] = {}
    for node, changed in _changes(within or ast.parse(source)):
        mutant = replaced(source, node, changed)
        if mutant is not None:
            found.setdefault(mutant.source, mutant)
    numbers: Counter[tuple[int, str]] = Counter()
    mutants = []
    for mutant in sorted(found.values(), key=lambda mutant: mutant.line):
        numbers[mutant.line, mutant.name] += 1
        mutants.append(replace(mutant, number=numbers[mutant.line, mutant.name]))
    return mutants


def _changes(tree: ast.AST) -> Iterator[tuple[ast.stmt | ast.expr, ast.AST]]:
    """Each node that can be changed, and what stands in its place."""
    for node in _walk(tree):
        if isinstance(node, ast.expr):
            yield from ((node, changed) for changed in _expressions(node))
        elif isinstance(node, ast.stmt):
            yield from ((node, changed) for changed in _statements(node))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes whose meaning is tested: no wording, no annotations, no decorators."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_wording(child):
                yield from _walk(child)


def _is_wording(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.JoinedStr():
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return name in LOGGERS
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__" | "log")]):
            return True
    return False


def _expressions(node: ast.expr) -> Iterator[ast.expr]:  # noqa: C901 - a case for each kind of expression
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARISONS:
            yield _with(node, ops=[COMPARISONS[type(operator)]()])
        case ast.Compare(ops=operators):
            for index, operator in enumerate(operators):
                if type(operator) in COMPARISONS:
                    swapped = [*operators]
                    swapped[index] = COMPARISONS[type(operator)]()
                    yield _with(node, ops=swapped)
        case ast.BoolOp(op=ast.And()):
            yield _with(node, op=ast.Or())
        case ast.BoolOp(op=ast.Or()):
            yield _with(node, op=ast.And())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.BinOp(op=operator) if type(operator) in OPERATORS and not _is_text(node):
            yield _with(node, op=OPERATORS[type(operator)]())
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.IfExp():
            yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Call(keywords=keywords):
            for keyword in keywords:
                if keyword.arg is not None and not isinstance(keyword.value, ast.Constant):
                    yield _with(node, keywords=[other for other in keywords if other is not keyword])


def _statements(node: ast.stmt) -> Iterator[ast.stmt]:
    match node:
        case ast.If(test=test) | ast.While(test=test):
            # Only the line of the test is replaced, see replaced.
            if not isinstance(test, ast.Compare | ast.UnaryOp | ast.BoolOp):
                yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise():
            yield ast.Pass()
        case ast.AugAssign(op=operator):
            yield ast.Pass()
            if type(operator) in OPERATORS:
                yield _with(node, op=OPERATORS[type(operator)]())
        case ast.Assign(targets=[ast.Attribute()]):
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )


def _with(node: N, **fields: object) -> N:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def replaced(source: str, node: ast.stmt | ast.expr, changed: ast.AST) -> Mutant | None:
    """The module with `changed` at the place of `node`; of an `if` or a `while` only the test is another one."""
    if isinstance(changed, ast.If | ast.While) and isinstance(node, ast.If | ast.While):
        node, changed = node.test, changed.test
    assert node.end_lineno is not None and node.end_col_offset is not None
    data = source.encode()
    lines = data.splitlines(keepends=True)
    text = ast.unparse(ast.fix_missing_locations(changed))
    if isinstance(node, ast.expr):
        text = f"({text})"
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    before = data[start:end].decode()
    mutated = (data[:start] + text.encode() + data[end:]).decode()
    try:
        if ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(source)):
            return None
    except SyntaxError:
        return None
    return Mutant(node.lineno, _one_line(lines[node.lineno - 1].decode()), before, text, mutated)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:160]
