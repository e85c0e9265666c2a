"""What the gateway did, for charts, metrics and explanations."""
