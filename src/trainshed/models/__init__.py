"""Models, encoders, tokenizers and number types."""
