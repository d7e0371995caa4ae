"""The dataset check before training: unreadable images, duplicates, labels that do not fit."""
