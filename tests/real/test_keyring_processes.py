"""Two processes that change one keyring at the same time lose nothing of each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from storage.user.keyring import EncryptionKey, Keyring

pytestmark = pytest.mark.real

ROOT = Path(__file__).parent.parent.parent
ADD = """
import sys
from pathlib import Path
from storage.user.keyring import EncryptionKey, Keyring
keyring = Keyring.open(Path(sys.argv[1]), None)
print("open", flush=True)
sys.stdin.readline()
for number in range(40):
    keyring.add_encryption_key(EncryptionKey(b"other %d" % number, b"seeds", 0.0))
"""


def test_two_processes_that_change_a_keyring_at_once_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    ours = Keyring.create(path, None)
    with subprocess.Popen(
        [sys.executable, "-c", ADD, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "open\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        for number in range(40):
            ours.add_encryption_key(EncryptionKey(b"ours %d" % number, b"seeds", 0.0))
        assert other.wait(timeout=60) == 0
    kept = Keyring.open(path, None).contents
    names = {b"%s %d" % (who, number) for who in (b"ours", b"other") for number in range(40)}
    assert {key.key_id for key in kept.encryption_keys} == names
    assert kept.version == 81
    assert ours.encryption_keys == kept.encryption_keys
