"""Weights from files and other programs into our networks, and back."""
