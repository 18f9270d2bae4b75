"""`make mutants`: would the tests notice? Each small change to a module must make one of its tests fail.

    python -m tests.mutants.run [MODULE ...] [--workers N] [--every N] [--lines N ...]

A mutant that no test notices is a hole in the tests, or changes nothing that can be seen; the second kind is explained
in tests/mutants/explained.toml. Ends with 1 when fewer than 95% of a module's mutants are killed, explained ones aside.

How: the tests of a module run once under coverage, which tells what test runs which line. One process collects them,
and forks for each mutant: there the code of the function that is changed is replaced, and the tests that run its line
decide, the quickest first. What survives that, and what isn't inside a function, is imported in place of its module by
a process that has imported nothing of ours before (tests/mutants/swapped.py). A mutant that uses
five times the processor time that it should, or that sleeps for 20 seconds, hangs: it counts as killed, and is counted
apart. How busy the machine is makes no difference to either.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import coverage
import pytest

from tests.mutants.mutate import Mutant, mutants_of
from tests.mutants.swapped import Mutated, Swapped
from tests.mutants.targets import TARGETS

ROOT = Path(__file__).parent.parent.parent
EXPLAINED = Path(__file__).parent / "explained.toml"
WANTED = 0.95
OURS = frozenset({"tui", "mail", "overlay", "storage", "tests", "bench", "__main__", "__mp_main__"})
AT_LEAST = 5.0
"""Seconds of processor time that a mutant may take whatever its tests take."""
SLOWER = 5.0
ASLEEP = 20.0
"""Seconds after which a process whose threads all sleep waits for what won't come: no test sleeps."""
LONGEST = 1800.0
"""Seconds after which a run that neither works nor sleeps is given up, and nothing was learnt."""
MEMORY = 4 << 30
"""Bytes of address space that a mutant's process may take."""


class MutantFate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    HANGS = "hangs"
    SURVIVES = "survives"


class ProcessHangs(Exception):
    """A process doesn't come to an end."""


@dataclass
class Tests:
    """What the tests of a module run: seconds of processor time of each test, and the tests that run each line."""

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
        begun = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - begun
        return result


def _pytest(arguments: Sequence[str], plugin: object) -> int:
    options = ["-q", "-x", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    for plugin_name in ("cacheprovider", "xdist", "syrupy", "textual-snapshot"):
        options += ["-p", f"no:{plugin_name}"]
    return int(pytest.main([*options, *arguments], plugins=[plugin]))


def _in_child(work: Callable[[], int], seconds: float, output: Path | None = None, *, watch: bool = True) -> int:
    """The exit code of `work` in a forked process. Raises ProcessHangs when it sleeps, or takes `seconds` of CPU.

    Without `watch` it may take what it takes.
    """
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
    begun = awake = time.monotonic()
    pause = 0.005
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(1.5 * pause, 0.5)
        used, asleep = _observed(child) if watch and pause >= 0.2 else (0.0, False)
        now = time.monotonic()
        awake = awake if asleep else now
        if used > seconds or now - awake > ASLEEP or (watch and now - begun > LONGEST):
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if used <= seconds and now - awake <= ASLEEP:
                raise SystemExit("A run neither ended nor hung: nothing was learnt.")
            raise ProcessHangs


def _observed(process: int) -> tuple[float, bool]:
    """Seconds of processor time that a process has used, and whether all its threads sleep now (proc(5))."""
    used, asleep = 0.0, True
    for thread in Path(f"/proc/{process}/task").glob("*/stat"):
        with suppress(OSError):
            fields = thread.read_text("utf-8", "replace").rpartition(")")[2].split()
            used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            asleep = asleep and fields[0] == "S"
    return used, asleep


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
            foreign.write_text("\n".join(sys.modules), "utf-8")
            times.write_text("\n".join(lines), "utf-8")
            return code

        output = Path(folder) / "output"
        if _in_child(work, 600.0, output) != 0:
            raise SystemExit(f"The tests of {module} fail as they are:\n{output.read_text('utf-8')[-3000:]}")
        found = Tests()
        for line in times.read_text("utf-8").splitlines():
            seconds, _, name = line.partition("\t")
            found.seconds[name] = float(seconds)
        preload(foreign.read_text("utf-8").splitlines())
        read = coverage.CoverageData(str(data))
        read.read()
        for name in read.measured_files():
            found.lines = {line: set(tests) for line, tests in read.contexts_by_lineno(name).items()}
        return found


def preload(names: Iterable[str]) -> None:
    """Import what tests import of others, so that each mutant's process has it already; nothing of ours."""
    for name in names:
        if name.partition(".")[0] not in OURS:
            with suppress(Exception):
                importlib.import_module(name)


def fate(module: str, mutant: Mutant, tests: Tests) -> MutantFate:
    """What the tests make of this mutant."""
    path = ROOT / (module.replace(".", "/") + ".py")
    chosen = tests.of(mutant.line, mutant.line + mutant.before.count("\n"))
    if not chosen:
        return MutantFate.SURVIVES
    expected = sum(tests.seconds.get(name, 0.0) for name in chosen)

    def work() -> int:
        sys.meta_path.insert(0, Mutated(module, path, mutant.source))
        return _pytest(chosen, _Recorder(None))

    try:
        return MutantFate.KILLED if _in_child(work, AT_LEAST + SLOWER * expected) else MutantFate.SURVIVES
    except ProcessHangs:
        return MutantFate.HANGS


def killed_at_once(module: str, mutants: Sequence[Mutant], tests: Tests, workers: int) -> dict[str, MutantFate]:
    """What became of those mutants that the collected tests notice where only a function's code is replaced."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        server = _ForkServer(module, mutants, tests, workers, Path(folder))

        def work() -> int:
            return _pytest(TARGETS[module], server)

        _in_child(work, float("inf"), watch=False)
        found = {}
        for line in results.read_text("utf-8").splitlines():
            number, _, became = line.partition("\t")
            found[mutants[int(number)].source] = MutantFate(became)
        return found


class _ForkServer:
    """A pytest plugin: collects once, then runs the chosen tests for each mutant in a process of its own."""

    def __init__(self, module: str, mutants: Sequence[Mutant], tests: Tests, workers: int, folder: Path) -> None:
        self._module, self._mutants, self._tests, self._workers = module, mutants, tests, workers
        self._folder = folder

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of running the tests."""
        items = {item.nodeid: item for item in session.items}
        gc.freeze()  # what is collected here is the same in every process

        def one(number: int) -> str:
            mutant = self._mutants[number]
            function = Swapped.of(self._module, mutant.source, mutant.line)
            chosen = self._tests.of(mutant.line, mutant.line + mutant.before.count("\n"))
            if function is None or not chosen:
                return ""
            folder = self._folder / str(number)

            def work() -> int:
                folder.mkdir()
                session.config._tmp_path_factory._basetemp = folder  # type: ignore[attr-defined]
                function.swap()
                return _run([items[name] for name in chosen], session)

            expected = sum(self._tests.seconds.get(name, 0.0) for name in chosen)
            try:
                return f"{number}\t{MutantFate.KILLED}\n" if _in_child(work, AT_LEAST + SLOWER * expected) else ""
            except ProcessHangs:
                return f"{number}\t{MutantFate.HANGS}\n"
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        with (self._folder / "results").open("w", encoding="utf-8") as out, ThreadPoolExecutor(self._workers) as pool:
            out.writelines(pool.map(one, range(len(self._mutants))))
        return True


def _run(items: Sequence[pytest.Item], session: pytest.Session) -> int:
    """Run these tests until one fails; how many failed."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            break
    return session.testsfailed


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
    parser.add_argument("--lines", type=int, nargs="+", help="only the mutants of these lines")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    known, failed = explained(), False
    totals: Counter[str] = Counter()
    for module in options.modules or TARGETS:
        tests = measure(module, TARGETS[module])
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text("utf-8")
        if fate(module, Mutant(1, "", "", "", source), tests) is not MutantFate.SURVIVES:
            raise SystemExit(f"{module} as it is fails where its mutants are tried: nothing could be learnt from them.")
        mutants = [one for one in mutants_of(source) if not options.lines or one.line in options.lines]
        mutants = mutants[:: options.every]
        why = known.get(module, {})
        count: Counter[str] = Counter(mutants=len(mutants))
        print(f"{module}:", flush=True)
        quick = killed_at_once(module, mutants, tests, options.workers)
        with ThreadPoolExecutor(options.workers) as pool:
            fates = pool.map(
                lambda mutant, m=module, t=tests, q=quick: q.get(mutant.source) or fate(m, mutant, t), mutants
            )
            for mutant, became in zip(mutants, fates, strict=True):
                excused = became is MutantFate.SURVIVES and mutant.name in why
                count["explained" if excused else str(became)] += 1
                if became is not MutantFate.KILLED and not excused:
                    print(f"  {became}, line {mutant.line}: {mutant.name}", flush=True)
        counted = len(mutants) - count["explained"]
        share = 1 - count[MutantFate.SURVIVES] / counted if counted else 1.0
        failed = failed or share < WANTED
        totals += count
        print(f"{module}: {_said(count)}, {share:.1%} killed of those that aren't explained", flush=True)
    print(f"Altogether: {_said(totals)}")
    return int(failed)


def _said(count: Counter[str]) -> str:
    killed = count[MutantFate.KILLED] + count[MutantFate.HANGS]
    return (
        f"{count['mutants']} mutants, {killed} killed ({count[MutantFate.HANGS]} of them hang),"
        f" {count['explained']} explained, {count[MutantFate.SURVIVES]} survive"
    )


if __name__ == "__main__":
    sys.exit(main())
