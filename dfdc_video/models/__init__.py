"""Clip -> logits."""
