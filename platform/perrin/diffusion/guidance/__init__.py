"""Guidance: which evaluations a row needs, and what to make of them. Everything here stacks or wraps."""

from __future__ import annotations

from perrin.diffusion.guidance.base import Branch, Combined, Guidance, Memory, Unguided, evaluate
from perrin.diffusion.guidance.classifier_free import (
    APG,
    CFGPlusPlus,
    CFGZeroStar,
    ClassifierFree,
    apg,
    autoguidance,
    cfg_plus_plus,
    cfg_zero_star,
    classifier_free,
    perturbed,
)
from perrin.diffusion.guidance.steered import (
    Clipped,
    Constrained,
    Steered,
    Tempered,
    Thresholded,
    classifier,
    clipped,
    constrained,
    reconstruction,
    tempered,
    thresholded,
)
from perrin.diffusion.guidance.weighted import Weighted, weighted

__all__ = [
    "APG",
    "Branch",
    "CFGPlusPlus",
    "CFGZeroStar",
    "ClassifierFree",
    "Clipped",
    "Combined",
    "Constrained",
    "Guidance",
    "Memory",
    "Steered",
    "Tempered",
    "Thresholded",
    "Unguided",
    "Weighted",
    "apg",
    "autoguidance",
    "cfg_plus_plus",
    "cfg_zero_star",
    "classifier",
    "classifier_free",
    "clipped",
    "constrained",
    "evaluate",
    "perturbed",
    "reconstruction",
    "tempered",
    "thresholded",
    "weighted",
]
