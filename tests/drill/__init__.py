"""The crash drill: the whole workshop at work, faults from a seed, and a checker that asks what became of each wish."""
