"""The k copies (or n shares) of an object: placing, repairing and finding them."""
