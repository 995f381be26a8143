"""The crash drill: all services under load, faults from a seeded schedule, and a check of every outcome."""
