"""Core ML: a program as an .mlpackage, and the check of its structure; it runs on a Mac alone."""
