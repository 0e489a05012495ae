"""Attackers: what a member that wants to do harm publishes instead of its model. No bank's daemon imports this."""
