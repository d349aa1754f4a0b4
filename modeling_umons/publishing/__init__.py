"""Pushing models, data sets and Spaces to the Hub."""
