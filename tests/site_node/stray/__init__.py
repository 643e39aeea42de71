"""Tests of the search for stray identities."""
