"""The embedded nats-server, and what each service may do on the bus."""
