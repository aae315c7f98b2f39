"""Molecules with coordinates and bonds: generation, data, metrics and training. Imports no torch by itself."""

from perrin_molecule.face import MoleculeParameters, modality

__all__ = ["MoleculeParameters", "modality"]
