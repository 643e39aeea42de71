"""The demo's data, searches and report."""
