"""Tests of the consortium's side."""
