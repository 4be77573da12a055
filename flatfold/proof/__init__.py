"""Proof that a rewritten graph computes what the original computed."""
