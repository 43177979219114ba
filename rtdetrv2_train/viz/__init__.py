"""Drawing boxes and charts."""
