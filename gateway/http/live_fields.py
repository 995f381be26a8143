"""What in the answers to GETs is true only now: it is not in the log, and differs after a rebuild of the read model.

Keys are routes of the OpenAPI document, values JSON pointers into their answers (`*`: every item; empty: all of it).
Everything else, ETags included, is byte for byte the same before and after.
"""

LIVE_FIELDS: dict[str, tuple[str, ...]] = {
    "/health": ("",),
    "/health/live": ("",),
    "/health/ready": ("",),
    "/metrics": ("",),
    "/api/v1/status": ("/workers", "/since"),
    "/api/status": ("/workers", "/since"),
    "/api/v1/audit/replay": ("",),
    "/api/v1/training/status": ("/workers",),
    "/api/v1/audit/head": ("/at", "/signature"),
    "/api/v1/tagging/models": ("",),
    "/api/v1/tagging/runs": ("/items/*/live",),
    "/api/v1/tagging/runs/{run}": ("/live",),
    "/api/v1/jobs": ("/items/*/live",),
    "/api/v1/jobs/{job}": ("/live",),
    "/api/v1/jobs/{job}/status": ("/phase", "/step", "/loss", "/eta"),
}
