"""Shared by all routes: problem documents, access control, files, paging, uploads, the OpenAPI document."""
