"""All configuration: parsed and checked against each other once; everything else gets plain arguments."""

from muster.settings.fields import Settings, parse_address, parse_pairs
from muster.settings.load import SEED_NAMES, load_settings, public_values

__all__ = ["SEED_NAMES", "Settings", "load_settings", "parse_address", "parse_pairs", "public_values"]
