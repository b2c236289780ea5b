"""What one node of a plan may do."""
