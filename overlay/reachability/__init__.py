"""Whether others reach this node, and whether it reaches them."""
