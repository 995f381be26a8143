"""One file per resource. A route reads the request, calls the catalog and builds the response."""
