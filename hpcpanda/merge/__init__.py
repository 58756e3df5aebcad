"""Segments to output files, in event order."""
