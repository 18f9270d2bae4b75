"""Whether other nodes can reach this node, and whether it can reach them."""
