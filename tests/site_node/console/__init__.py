"""Proof for the part of the site node that the folder is named after."""
