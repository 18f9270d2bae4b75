"""Fuzz the decoders with atheris: `python -m tests.fuzz.run [NAME ...] [--seconds N]`.

Each target begins with its corpus and with what else it found in earlier runs (.fuzz/NAME, not committed). What makes
one fail is written to tests/fuzz/corpus/NAME/ as it is: the suite replays it from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
FOUND = Path(__file__).parents[2] / ".fuzz"
MOST_BYTES = 16_384


def main() -> int:
    """Fuzz the targets one after the other, each in a process of its own; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz the decoders with atheris.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="those of tests/fuzz/targets.py; all without one")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:  # nothing may be imported before atheris looks at it
        _fuzz(options.names[0], options.seconds)
    from tests.fuzz.targets import TARGETS

    if unknown := set(options.names) - set(TARGETS):
        parser.error(f"no target called {', '.join(sorted(unknown))}")
    failed = []
    for name in options.names or TARGETS:
        command = [sys.executable, "-m", "tests.fuzz.run", name, "--here", "--seconds", str(options.seconds)]
        if subprocess.run(command, cwd=CORPUS.parents[2], check=False).returncode:
            failed.append(name)
            print(f"{name} failed; see tests/fuzz/corpus/{name}/ and run the suite", flush=True)
    return bool(failed)


def _fuzz(name: str, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["overlay", "mail", "storage"]):
        from tests.fuzz.targets import TARGETS

    def one(data: bytes) -> None:
        try:
            TARGETS[name](data)
        except BaseException:
            keep(name, data)
            raise

    folders = [FOUND / name, CORPUS / name]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    arguments = [sys.argv[0], *map(str, folders), f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}"]
    atheris.Setup([*arguments, f"-artifact_prefix={FOUND / name}/", "-verbosity=0", "-print_final_stats=1"], one)
    atheris.Fuzz()


def keep(name: str, data: bytes) -> Path:
    """Put something into the corpus of a target, under a name made of it."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
