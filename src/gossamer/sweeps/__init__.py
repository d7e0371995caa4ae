"""Many trainings of one task: what varies drawn by Optuna, the worse ones left early, score and milliseconds together."""
