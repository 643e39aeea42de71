"""Proof: the folders mirror the packages."""
