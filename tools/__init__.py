"""What makes the data files that the packages ship; not installed."""
