"""How good pictures are: distances between sets of pictures, captions recognised, copies found. Imports torch."""
