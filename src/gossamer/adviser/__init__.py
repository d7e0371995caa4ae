"""The adviser: what the papers on small networks would change in a network, and what the change is worth here."""
