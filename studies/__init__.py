"""Claims of the papers, each as a short script that measures it here and says what it saw."""
