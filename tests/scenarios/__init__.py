"""Situations: whole processes, started and stopped as people do."""
