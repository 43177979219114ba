"""Writing a detector for other software."""
