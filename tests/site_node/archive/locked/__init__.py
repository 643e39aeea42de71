"""Tests of locked copies."""
