"""The bytes of HTTP: requests read, answers delivered, engines asked."""
