"""Whom to give work to, by how their answers were."""
