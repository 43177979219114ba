"""COCO metrics, per-class tables and pictures of detections. Knows no model."""
