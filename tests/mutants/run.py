"""`make mutants`: would the tests notice? Each small change to a module must make one of its tests fail.

    python -m tests.mutants.run [MODULE ...] [--workers N] [--seconds N]

A mutant that no test notices is a hole in the tests, or changes nothing that can be seen; the second kind is explained
in tests/mutants/explained.toml. Ends with 1 when fewer than 95% of a module's mutants are killed, explained ones aside.

How: the tests of a module run once under coverage, which tells what test runs which line. A mutant is compiled in a
forked process in place of its module, and the tests that run its line decide, the quickest first. A mutant that takes
five times as long as it should hangs, and counts as killed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.util
import os
import resource
import signal
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

import coverage
import pytest

from tests.mutants.mutate import Mutant, mutants_of
from tests.mutants.targets import TARGETS

ROOT = Path(__file__).parent.parent.parent
EXPLAINED = Path(__file__).parent / "explained.toml"
WANTED = 0.95
OURS = frozenset({"tui", "mail", "overlay", "storage", "tests", "bench", "__main__", "__mp_main__"})
AT_LEAST = 10.0
"""Seconds that a mutant may take whatever its tests take."""
SLOWER = 5.0
MEMORY = 4 << 30
"""Bytes of address space that a mutant's process may take."""


@dataclass
class Tests:
    """What the tests of a module run: seconds of each test, and the tests that run each line."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[int, set[str]] = field(default_factory=dict)

    def of(self, line: int, last: int) -> list[str]:
        """The tests that run one of these lines, the quickest first; all where the line runs at import."""
        names: set[str] = set()
        for number in range(line, last + 1):
            names |= self.lines.get(number, set())
        return sorted(names - {""} or self.seconds, key=lambda name: self.seconds.get(name, 0.0))


class _Recorder:
    """A pytest plugin: measures each test, and tells coverage which one is running."""

    def __init__(self, measured: coverage.Coverage | None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._measured = measured

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterable[None]:
        """One test, its fixtures too."""
        if self._measured is not None:
            self._measured.switch_context(item.nodeid)
        begun = time.monotonic()
        result = yield
        self.seconds[item.nodeid] = time.monotonic() - begun
        return result


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
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


def _pytest(arguments: Sequence[str], plugin: object) -> int:
    options = ["-q", "-x", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    for plugin_name in ("cacheprovider", "xdist", "syrupy", "textual-snapshot"):
        options += ["-p", f"no:{plugin_name}"]
    return int(pytest.main([*options, *arguments], plugins=[plugin]))


def _in_child(work: object, seconds: float, output: Path | None = None) -> int | None:
    """The exit code of `work` in a forked process, or None when it takes longer than `seconds`."""
    assert callable(work)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # a mutant may well fill it for ever
        target = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        code = 99
        try:
            code = work()
        except BaseException:  # whatever a mutant does, this process must not go on as its parent
            code = 98
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def measure(module: str, selection: Sequence[str]) -> Tests:
    """Run the tests of a module as it is. Raises SystemExit when they fail."""
    path = ROOT / (module.replace(".", "/") + ".py")
    with tempfile.TemporaryDirectory() as folder:
        data, times, foreign = (Path(folder) / name for name in ("coverage", "times", "foreign"))

        def work() -> int:
            measured = coverage.Coverage(data_file=str(data), include=[str(path)], concurrency=["thread"])
            recorder = _Recorder(measured)
            measured.start()
            code = _pytest(selection, recorder)
            measured.stop()
            measured.save()
            lines = [f"{seconds}\t{name}" for name, seconds in recorder.seconds.items()]
            foreign.write_text("\n".join(name for name in sys.modules if name.partition(".")[0] not in OURS), "utf-8")
            times.write_text("\n".join(lines), "utf-8")
            return code

        output = Path(folder) / "output"
        if _in_child(work, 900.0, output) != 0:
            raise SystemExit(f"The tests of {module} fail as they are:\n{output.read_text('utf-8')[-3000:]}")
        found = Tests()
        for line in times.read_text("utf-8").splitlines():
            seconds, _, name = line.partition("\t")
            found.seconds[name] = float(seconds)
        _preload(foreign.read_text("utf-8").splitlines())
        read = coverage.CoverageData(str(data))
        read.read()
        for name in read.measured_files():
            found.lines = {line: set(tests) for line, tests in read.contexts_by_lineno(name).items()}
        return found


def _preload(names: Iterable[str]) -> None:
    """Import what tests import of others, so that each mutant's process has it already."""
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)


def survives(module: str, mutant: Mutant, tests: Tests) -> bool:
    """Whether no test notices this mutant."""
    path = ROOT / (module.replace(".", "/") + ".py")
    chosen = tests.of(mutant.line, mutant.line + mutant.before.count("\n"))
    if not chosen:
        return True
    expected = sum(tests.seconds.get(name, 0.0) for name in chosen)

    def work() -> int:
        sys.meta_path.insert(0, _Mutated(module, path, mutant.source))
        return _pytest(chosen, _Recorder(None))

    return _in_child(work, AT_LEAST + SLOWER * expected) == 0


def explained() -> dict[str, dict[str, str]]:
    """Why some mutants survive: by module and by the mutant's name."""
    read = tomllib.loads(EXPLAINED.read_text("utf-8"))
    return {module: {str(one["mutant"]): str(one["why"]) for one in found} for module, found in read.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run; 1 when too many survive."""
    parser = argparse.ArgumentParser(prog="make mutants", description="Would the tests notice?")
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--every", type=int, default=1, help="only each Nth mutant, for a quick look")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    known, failed = explained(), False
    total = killed = excused = 0
    for module in options.modules or TARGETS:
        tests = measure(module, TARGETS[module])
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text("utf-8")
        if not survives(module, Mutant(1, "", "", "", source), tests):
            raise SystemExit(f"{module} as it is fails where its mutants are tried: nothing could be learnt from them.")
        mutants = mutants_of(source)[:: options.every]
        with ThreadPoolExecutor(options.workers) as pool:
            left = list(pool.map(lambda mutant, m=module, t=tests: survives(m, mutant, t), mutants))
        survivors = [mutant for mutant, lives in zip(mutants, left, strict=True) if lives]
        why = known.get(module, {})
        holes = [mutant for mutant in survivors if mutant.name not in why]
        counted = len(mutants) - (len(survivors) - len(holes))
        share = 1 - len(holes) / counted if counted else 1.0
        failed = failed or share < WANTED
        total, killed = total + len(mutants), killed + len(mutants) - len(survivors)
        excused += len(survivors) - len(holes)
        print(f"{module}: {len(mutants)} mutants, {len(mutants) - len(survivors)} killed", end="")
        print(f", {len(survivors) - len(holes)} explained, {share:.1%} of the rest killed", flush=True)
        for mutant in holes:
            print(f"  line {mutant.line}: {mutant.name}", flush=True)
    print(f"{total} mutants, {killed} killed, {excused} explained, {total - killed - excused} survive")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
