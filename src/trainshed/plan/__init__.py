"""What will run and what has run: the graph of runs, their keys, and their directories."""
