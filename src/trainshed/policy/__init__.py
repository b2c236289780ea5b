"""Policies that learn from what they generate: sampling, advantages, losses; pure functions of tensors."""
