"""Metric learning: images of one identity near each other, those of others far away."""
