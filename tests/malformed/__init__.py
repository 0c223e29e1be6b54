"""Malformed inputs of every kind, drawn from grammars: each is refused in one line, or is valid."""
