"""Exported files of a training run."""
