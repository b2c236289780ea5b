"""Train every part of a retrieval-augmented, aligned language-model system from one YAML."""

__version__ = "0.1.0"
