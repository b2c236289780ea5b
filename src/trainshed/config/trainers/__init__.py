"""The parameters of each algorithm, one file each, free of torch."""
