"""Thousands of nodes in virtual time, each of them the daemon's own `GossipNode`."""
