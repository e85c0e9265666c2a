"""Any HTTP service that the node's own file names."""
