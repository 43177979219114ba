"""Analysis of detections beyond the twelve metrics: curves, confusion, calibration, mistakes, advice."""
