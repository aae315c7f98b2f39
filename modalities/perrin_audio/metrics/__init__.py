"""How good sounds are."""
