"""One self-contained page about a run: metrics, curves, pictures, mistakes. Knows no model."""
