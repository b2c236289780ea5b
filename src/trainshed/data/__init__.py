"""Datasets: formats, validation and loading, documents and chunks, and the built-in corpus."""
