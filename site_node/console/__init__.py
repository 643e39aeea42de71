"""The hospital's console: pages for its consent managers and auditors, on this machine alone."""
