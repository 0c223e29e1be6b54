"""Trials: the space, the samplers, the study and what evaluates a recipe."""
