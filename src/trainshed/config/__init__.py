"""What a configuration may say, and what it means: reading, checking, sweeps, the JSON schema."""
