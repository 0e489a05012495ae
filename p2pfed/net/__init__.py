"""Mutual TLS between members, and finding them."""
