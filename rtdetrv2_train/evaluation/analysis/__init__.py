"""Everything that is known about detections beyond the twelve numbers."""
