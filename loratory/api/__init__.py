"""The public API, one class for each group of routes; `loratory.client.AsyncClient` has them all."""
