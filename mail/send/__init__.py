"""From accepted to stored and collected (paper, 3.1)."""
