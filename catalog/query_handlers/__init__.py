"""The handlers of queries: they read the read model, the archive, the keys and the blobs. `table` has all of them."""
