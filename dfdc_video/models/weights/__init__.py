"""Weights of other programs and files -> our networks, and back."""
