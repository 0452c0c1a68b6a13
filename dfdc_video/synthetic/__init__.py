"""Generators of labelled videos."""
