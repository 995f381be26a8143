"""The domain rules of the catalog: decide and evolve, pure."""
