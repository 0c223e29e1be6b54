"""Runs on a ZenML stack of the user's: checks before submission, progress, results."""
