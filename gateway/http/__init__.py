"""What every route shares: problems, who asks, files, lists, uploads, the OpenAPI document."""
