"""How good clips are: distance to real ones, steadiness, identity, drift."""
