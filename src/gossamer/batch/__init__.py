"""Predictions for millions of images: units of work, worker processes, and an output folder that can be resumed."""
