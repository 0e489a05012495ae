"""Baselines and reports beside which gossip is measured."""
