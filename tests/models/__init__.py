"""Proof of the mathematics."""
