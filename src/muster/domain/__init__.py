"""The nouns of a fleet: immutable records without behaviour beyond their own arithmetic."""
