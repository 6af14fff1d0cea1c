"""The published networks and their fast forward."""
