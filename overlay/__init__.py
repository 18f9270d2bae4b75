"""The overlay: the distributed hash table and the system node (paper, sections 2 and 4)."""
