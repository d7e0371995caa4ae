"""Several heads on one backbone: network, losses, transforms and scores."""
