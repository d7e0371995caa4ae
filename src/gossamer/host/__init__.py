"""The machine: its description, atomic writes of files, progress on its terminal."""
