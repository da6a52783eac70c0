"""The one error that people cause and can mend."""


class ConfigError(ValueError):
    """A run refused because of what was typed. The message names the key, what was found and what to do."""
