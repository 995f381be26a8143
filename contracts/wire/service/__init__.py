"""What all services share: settings, start, connection, requests, health, telemetry."""
