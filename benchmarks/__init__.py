"""What Filmroom costs: each module measures one thing and stores its figures in `benchmarks/results`."""
