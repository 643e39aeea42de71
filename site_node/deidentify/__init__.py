"""What may stay in an image: the profile of PS3.15 Annex E, and the refusals around it."""
