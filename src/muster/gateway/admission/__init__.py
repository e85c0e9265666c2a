"""Lines of requests before models whose slots are all taken."""
