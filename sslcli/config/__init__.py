"""Configuration: YAML files, their composition, checks, and construction of objects from them."""

from typing import Any

Config = dict[str, Any]  # a resolved configuration, or the node of one group: keys -> values, without interpolations
