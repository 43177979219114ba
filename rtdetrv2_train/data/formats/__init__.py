"""Annotation files: each format is read into one table."""
