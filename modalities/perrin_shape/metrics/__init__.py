"""How good shapes are."""
