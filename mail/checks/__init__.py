"""Checks that every message passes after it is opened and before it is shown (paper, section 3.4)."""
