"""Tasks: a head, a loss, a decoding and a score around a backbone."""
