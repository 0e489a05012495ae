"""p2pfed: banks learn a fraud model together, peer to peer."""

__version__ = "0.1.0"
