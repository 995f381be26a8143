"""The work queue, and the loop of the workers that fetch from it."""
