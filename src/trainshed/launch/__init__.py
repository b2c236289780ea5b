"""Where runs run: one contract (`contract`), one file a place."""
