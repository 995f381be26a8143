"""The event log on JetStream: appending, reading, its streams, and the lease of its writer."""
