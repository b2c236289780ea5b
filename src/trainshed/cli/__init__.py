"""The command ``trainshed``: `main`, and one file a verb."""
