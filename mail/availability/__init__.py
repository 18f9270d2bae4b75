"""How many copies a message needs (paper, section 4): measured availability, and k or m of n from it."""
