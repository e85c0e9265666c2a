"""Pictures for callers of the gateway, made by jobs."""
