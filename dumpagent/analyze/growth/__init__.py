"""What grew from one heap dump to the next."""
