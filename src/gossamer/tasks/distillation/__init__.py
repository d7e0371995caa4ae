"""Learning from a teacher: the losses, and which of them each head has."""
