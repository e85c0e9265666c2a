"""Machines rented by the hour: launched once, found by their tags, started, stopped."""
