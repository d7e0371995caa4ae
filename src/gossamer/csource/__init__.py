"""A network as C source for chips without an operating system: C99, no library, no memory but one static arena."""
