"""The model in 4 bit that the method `grouped` trains."""
