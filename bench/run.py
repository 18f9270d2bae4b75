"""`make bench`: run every bench_*.py in a process of its own, print a table, write bench/latest.json.

A module has `measure() -> list[Figure]`. A process each, so that no module's memory, event loop or patience touches
another's figures. A missed bar is shown and is no error (machines differ); a module that can't measure is one.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from bench.figure import Figure
from storage import durable

FOLDER = Path(__file__).parent
LATEST = FOLDER / "latest.json"
PATIENCE = 3600
"""Seconds for one module; the slowest (200 nodes under siege) needs a quarter of an hour on a free core."""


def main(arguments: list[str] | None = None) -> int:
    """Measure all modules, or those named (`screen` for bench_screen.py). Returns 1 when one couldn't measure."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure, side by side with peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="screen for bench/bench_screen.py; all without one")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.into is not None:
        measure_here(options.names[0], options.into)
        return 0
    known = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no bench called {', '.join(unknown)}; there are {', '.join(known)}")
    return run(options.names or known)


def run(names: list[str]) -> int:
    """Measure the modules `names`, print as they finish, write what was measured. Returns the exit code."""
    machine = describe_machine()
    print(machine, flush=True)
    figures: list[Figure] = []
    failed: list[str] = []
    for name in names:
        print(f"\n{name} ...", file=sys.stderr, flush=True)
        measured = measure_apart(name)
        if measured is None:
            failed.append(name)
            continue
        figures += [dataclasses.replace(figure, machine=machine) for figure in measured]
        print(table(measured), flush=True)
    durable.write(LATEST, msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n", mode=0o644)
    missed = [figure.name for figure in figures if figure.reached is False]
    print(f"\n{len(figures)} figures in {LATEST.relative_to(FOLDER.parent)}, {len(missed)} below their bar.")
    for name in failed:
        print(f"bench_{name} could not measure; see above.", file=sys.stderr)
    return 1 if failed else 0


def measure_apart(name: str) -> list[Figure] | None:
    """The figures of one module, measured in a new process; None when it failed, which it has then said itself."""
    with tempfile.TemporaryDirectory(prefix="p2pmail-bench-") as folder:
        into = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "bench.run", name, "--into", str(into)]
        try:
            subprocess.run(command, cwd=FOLDER.parent, check=True, timeout=PATIENCE)
            return msgspec.json.decode(into.read_bytes(), type=list[Figure])
        except subprocess.TimeoutExpired:
            print(f"bench_{name} was stopped after {PATIENCE} s.", file=sys.stderr)
        except subprocess.CalledProcessError as error:
            print(f"bench_{name} ended with exit code {error.returncode}.", file=sys.stderr)
        except (OSError, msgspec.DecodeError) as error:
            print(f"bench_{name} left no figures ({error}).", file=sys.stderr)
    return None


def measure_here(name: str, into: Path) -> None:
    """Measure one module in this process and leave its figures in the file `into`."""
    figures: list[Figure] = importlib.import_module(f"bench.bench_{name}").measure()
    into.write_bytes(msgspec.json.encode(figures))


def table(figures: list[Figure]) -> str:
    """The figures as lines of text: name, value, bar, and whether it was reached, then the peers."""
    width = max((len(figure.name) for figure in figures), default=0)
    lines = []
    for figure in figures:
        sign = "<=" if figure.better == "lower" else ">="
        bar = "" if figure.bar is None else f"{sign} {number(figure.bar)} {figure.unit}"
        verdict = {True: "reached", False: "MISSED", None: ""}[figure.reached]
        peers = ", ".join(f"{name} {number(value)}" for name, value in figure.peer.items())
        value = f"{number(figure.value)} {figure.unit}"
        lines.append(f"  {figure.name:<{width}}  {value:>14}  {bar:<16} {verdict:<8} {peers}".rstrip())
    return "\n".join(lines)


def number(value: float) -> str:
    """Four significant digits, thousands marked: what a measurement of this kind can bear."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def describe_machine() -> str:
    """Cores, processor, memory, system and Python, without the machine's name."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {processor}, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    raise SystemExit(main())
