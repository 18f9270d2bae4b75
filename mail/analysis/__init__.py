"""Section 4 of the paper worked out, simulated and measured, for `p2pmail analyse`."""
