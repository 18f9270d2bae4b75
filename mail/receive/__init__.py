"""From a notification to a message filed in a folder (paper, 3.2 and 3.3)."""
