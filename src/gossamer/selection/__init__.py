"""Which network fits a budget: networks counted, timed here, and trained by successive halving on the user's data."""
