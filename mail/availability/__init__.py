"""Measures availability, and chooses the number of copies or shares by it (paper, section 4)."""
