"""One self-contained page about a run: numbers, curves, pictures, mistakes. Knows no model."""
