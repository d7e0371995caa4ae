"""The machine: what it is, files written whole or not at all, progress on its terminal."""
