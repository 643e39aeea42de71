"""Recovery drills: what they prove, and every way in which they have to fail."""
