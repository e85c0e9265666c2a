"""Programs that the node's own file names, each run for itself."""
