"""Answers that go on without their caller, and are kept for when the caller comes back."""
