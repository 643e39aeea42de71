"""What is planted to be found: made-up people in texts, headers and pictures, and what became of them."""
