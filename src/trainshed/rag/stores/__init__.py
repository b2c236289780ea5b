"""Knowledge stores: passages with their embeddings, searched."""
