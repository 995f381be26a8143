"""Fields of GET responses that do not come from the log and may differ after a rebuild of the read model.

Keys are paths of the OpenAPI document, values JSON pointers into their responses (`*`: each item; empty: all of it).
Everything else, including ETags, is byte for byte the same before and after a rebuild.
"""

LIVE_FIELDS: dict[str, tuple[str, ...]] = {
    "/health": ("",),
    "/health/live": ("",),
    "/health/ready": ("",),
    "/metrics": ("",),
    "/api/v1/status": ("/workers", "/absent_since"),
    "/api/status": ("/workers", "/absent_since"),
    "/api/v1/audit/replay": ("",),
    "/api/v1/audit/blobs": ("",),
    "/api/v1/losses": ("",),
    "/api/v1/training/status": ("/workers",),
    "/api/v1/audit/head": ("/at", "/signature"),
    "/api/v1/tagging/models": ("",),
    "/api/v1/tagging/runs": ("/items/*/live",),
    "/api/v1/tagging/runs/{run}": ("/live",),
    "/api/v1/jobs": ("/items/*/live",),
    "/api/v1/jobs/{job}": ("/live",),
    "/api/v1/jobs/{job}/status": ("/phase", "/step", "/loss", "/eta"),
}
