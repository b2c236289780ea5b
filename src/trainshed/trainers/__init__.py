"""One file an algorithm, and the bases of their families."""
