"""What pruning saves on a clock: strategies run side by side, on made-up prompts of exact sizes."""
