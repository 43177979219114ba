"""COCO metrics, tables and the analysis of detections. Imports no model."""
