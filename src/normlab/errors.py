"""Errors that the end of a run tells apart."""


class ConfigError(ValueError):
    """A run refused because of what was typed. The message names the key, what was found and what to do."""


class PeerError(RuntimeError):
    """The cause lies in another process, which tells it."""
