"""Proof of training and evaluation, with the real frameworks on very small data."""
