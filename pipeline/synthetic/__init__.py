"""Procedural portraits with exact ground truth."""
