"""Training: the loop and what it stands on, and the way back from a run folder to a network."""
