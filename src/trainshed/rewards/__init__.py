"""Functions that judge completions, by themselves or several with weights."""
