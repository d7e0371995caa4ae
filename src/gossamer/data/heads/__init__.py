"""Datasets of several heads: a column for each, labels that only some images have."""
