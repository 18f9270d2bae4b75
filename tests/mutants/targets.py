"""The modules that hold the promise, and which tests answer for each, as pytest takes them."""

from __future__ import annotations

TARGETS: dict[str, tuple[str, ...]] = {
    "mail.sealed.padding": ("tests/mail/sealed/test_body.py",),
    "mail.sealed.segments": (
        "tests/mail/sealed/test_body.py",
        "tests/mail/send/test_delivery.py",
        "tests/mail/sealed/test_notification.py",
    ),
    "mail.sealed.body": ("tests/mail/sealed/test_body.py",),
    "mail.sealed.erasure_shares": (
        "tests/mail/sealed/test_erasure_shares.py",
        "tests/mail/send/test_coded_messages.py",
    ),
    "mail.receive.receiver": (
        "tests/mail/receive/test_attempts.py",
        "tests/mail/receive/test_filing.py",
        "tests/mail/receive/test_receiver.py",
        "tests/mail/receive/test_bad_notifications.py",
        "tests/mail/send/test_coded_messages.py",
        "tests/mail/test_clocks.py",
    ),
    "mail.receive.body_download": ("tests/mail/receive/test_receiver.py", "tests/mail/send/test_coded_messages.py"),
    "mail.receive.segment_cache": ("tests/mail/receive/test_segment_cache.py",),
    "mail.send.sender": (
        "tests/mail/send/test_attempts.py",
        "tests/mail/send/test_sender.py",
        "tests/mail/send/test_replica_check.py",
        "tests/mail/send/test_coded_messages.py",
        "tests/mail/test_clocks.py",
        "tests/mail/send/test_delivery.py",
    ),
    "mail.send.body_upload": ("tests/mail/send/test_sender.py", "tests/mail/send/test_coded_messages.py"),
    "mail.send.collection_check": (
        "tests/mail/send/test_delivery.py",
        "tests/mail/send/test_replica_check.py",
        "tests/mail/test_clocks.py",
    ),
    "mail.send.replica_check": ("tests/mail/send/test_replica_check.py",),
    "mail.asyncio_tools": ("tests/mail/test_asyncio_tools.py",),
    "mail.send.enqueue": ("tests/mail/send/test_enqueue.py",),
    "mail.write.submit_draft": ("tests/mail/send/test_enqueue.py",),
    "storage.user.keyring": ("tests/storage/user/test_keyring.py",),
    "storage.user.keyring_contents": ("tests/storage/user/test_keyring.py",),
    "storage.user.outbox": ("tests/storage/user/test_outbox.py", "tests/mail/send/test_enqueue.py"),
    "storage.user.outbox_entry": ("tests/storage/user/test_outbox.py",),
    "storage.user.notices": ("tests/storage/user/test_notices.py",),
}
