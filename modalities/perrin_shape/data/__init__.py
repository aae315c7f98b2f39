"""From parts and furniture to packs of oriented points."""
