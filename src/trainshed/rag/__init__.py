"""Retrieval-augmented generation: stores, retriever, generator, system, losses."""
