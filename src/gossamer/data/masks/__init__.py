"""Datasets of index masks: layouts, classes, images with their masks."""
