"""Tiers: which images lie in the hospital's folder, which only at its locked copies, and the way between."""
