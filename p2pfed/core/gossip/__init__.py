"""The rounds of a node: when they are, what they merge, how it catches up and what it serves."""
