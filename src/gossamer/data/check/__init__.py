"""A look through a dataset before training: unreadable images, duplicates, labels that do not fit."""
