"""The user agent (paper, section 3): sealing, sending, receiving, checking mail."""
