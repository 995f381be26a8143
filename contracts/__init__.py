"""Shared by all services: message types with their pure logic and, in `contracts.wire`, the infrastructure."""
