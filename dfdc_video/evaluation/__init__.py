"""Predictions -> video scores -> metrics with intervals."""
