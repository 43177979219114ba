"""Image files: decoding, resizing, caching."""
