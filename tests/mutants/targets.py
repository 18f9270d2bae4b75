"""The modules that hold the promise, and which tests answer for each, as pytest takes them."""

from __future__ import annotations

TARGETS: dict[str, tuple[str, ...]] = {
    "mail.padding": ("tests/mail/test_sealing.py",),
    "mail.segments": ("tests/mail/test_sealing.py", "tests/mail/test_delivery.py", "tests/mail/test_notification.py"),
    "mail.sealing": ("tests/mail/test_sealing.py",),
    "mail.shares": ("tests/mail/test_shares.py", "tests/mail/test_coded_letters.py"),
    "mail.receiving": (
        "tests/mail/test_receiving.py",
        "tests/mail/test_bad_notifications.py",
        "tests/mail/test_coded_letters.py",
        "tests/mail/test_clocks.py",
    ),
    "mail.fetching": ("tests/mail/test_receiving.py", "tests/mail/test_coded_letters.py"),
    "mail.parts": ("tests/mail/test_parts.py",),
    "mail.sending": (
        "tests/mail/test_sending.py",
        "tests/mail/test_recheck.py",
        "tests/mail/test_coded_letters.py",
        "tests/mail/test_clocks.py",
        "tests/mail/test_delivery.py",
    ),
    "mail.storing": ("tests/mail/test_sending.py", "tests/mail/test_coded_letters.py"),
    "mail.proving": ("tests/mail/test_delivery.py", "tests/mail/test_recheck.py", "tests/mail/test_clocks.py"),
    "mail.recheck": ("tests/mail/test_recheck.py",),
    "mail.together": ("tests/mail/test_together.py",),
    "mail.accepting": ("tests/mail/test_accepting.py",),
    "mail.accept_draft": ("tests/mail/test_accepting.py",),
    "storage.keyring": ("tests/storage/test_keyring.py",),
    "storage.keyring_contents": ("tests/storage/test_keyring.py",),
    "storage.outbox": ("tests/storage/test_outbox.py", "tests/mail/test_accepting.py"),
    "storage.letter": ("tests/storage/test_outbox.py",),
    "storage.notices": ("tests/storage/test_notices.py",),
}
