"""Tagging runs: models in, predictions out."""
