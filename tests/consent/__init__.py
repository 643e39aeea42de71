"""Proof of the consent package."""
