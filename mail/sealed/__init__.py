"""What travels, sealed: bodies, notifications, erasure-coded shares, and the keys for them. Formats only."""
