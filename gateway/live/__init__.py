"""The live feed: one reader of the log and of telemetry for all WebSockets and streams of events."""
