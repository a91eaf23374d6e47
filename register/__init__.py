"""The register knows which gateways, workers and callers are alive and tells everybody."""
