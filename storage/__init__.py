"""Everything kept on disk: what a node keeps for others, and what a user keeps."""
