"""The daemon: the protocol's effects carried out on asyncio."""
