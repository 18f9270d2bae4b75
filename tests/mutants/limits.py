"""`make mutants` begins here: each limit of docs/protocol.md changed in the code must make its test fail.

    python -m tests.mutants.limits [CONSTANT ...]

Changes each number and operator of a constant's definition, one at a time; adds 1 where the definition has neither.
Ends with 1 when a change survives.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.mutants.mutate import Mutant, mutants_of, replaced
from tests.mutants.run import ROOT, MutantFate, Tests, fate, preload
from tests.test_limits import module_of, table

TEST = "tests/test_limits.py::test_each_limit_has_its_value"


@dataclass(frozen=True, slots=True)
class Definition:
    """The expression that defines a limit, and the source of its module."""

    node: ast.expr
    source: str

    def mutants(self) -> list[Mutant]:
        """One mutant for each number and operator in the expression, or its value + 1 where it has neither."""
        if found := mutants_of(self.source, self.node):
            return found
        more = ast.BinOp(self.node, ast.Add(), ast.Constant(1))
        return [one for one in [replaced(self.source, self.node, more)] if one is not None]


def definition(constant: str) -> Definition:
    """The definition of a limit by its dotted name. Raises LookupError."""
    module = module_of(constant)
    source = (ROOT / (module.replace(".", "/") + ".py")).read_text("utf-8")
    first, _, field = constant.removeprefix(f"{module}.").partition(".")
    body: list[ast.stmt] = ast.parse(source).body
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == first:
            body, first, field = node.body, field, ""
    for name, value in _assigned(body):
        if name == first:
            return Definition(_argument(value, field) if field else value, source)
    raise LookupError(f"{constant} is assigned nowhere")


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for node in body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    match target, value:
                        case ast.Name(id=name), _:
                            yield name, value
                        case ast.Tuple(elts=names), ast.Tuple(elts=values):
                            for one, its in zip(names, values, strict=True):
                                if isinstance(one, ast.Name):
                                    yield one.id, its


def _argument(value: ast.expr, field: str) -> ast.expr:
    """The argument of a Rate for this field."""
    assert isinstance(value, ast.Call)
    return value.args[("each_second", "at_once").index(field)]


def _fate(constant: str, mutant: Mutant) -> MutantFate:
    return fate(module_of(constant), mutant, Tests({f"{TEST}[{constant}]": 1.0}))


def _imported() -> list[str]:
    """The names of all modules that are imported with the limits."""
    code = "import sys, tests.test_limits as t\nfor name in t.LIMITS: t.value_of(name)\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return run.stdout.split()


def main(arguments: list[str] | None = None) -> int:
    """Run; 1 when a change of a limit survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.limits", description=__doc__.partition("\n")[0])
    parser.add_argument("constants", nargs="*", help="dotted names; all of docs/protocol.md where none is given")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    preload(_imported())
    limits = options.constants or list(table())
    tried = [(constant, mutant) for constant in limits for mutant in definition(constant).mutants()]
    unchanged = Mutant(1, "", "", "", definition(limits[0]).source)
    if _fate(limits[0], unchanged) is not MutantFate.SURVIVES:
        raise SystemExit(f"{TEST} fails as it is: nothing could be learnt.")
    with ThreadPoolExecutor(options.workers) as pool:
        fates = list(pool.map(lambda one: _fate(*one), tried))
    survivors = [one for one, became in zip(tried, fates, strict=True) if became is not MutantFate.KILLED]
    for constant, mutant in survivors:
        print(f"  survives: {constant}, {mutant.name}")
    print(f"limits: {len(limits)} constants, {len(tried)} changes, {len(survivors)} survive")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
