"""Errors that the end of a run tells apart."""


class ConfigError(ValueError):
    """A run refused because of what was typed. The message names the key, what was found and what to do."""


class DamagedError(ConfigError):
    """A file of a run is cut off, empty or of another program."""


class WaitError(RuntimeError):
    """A process waited in vain for others. The message names the place, who did not come, and where that one is."""


class LostError(WaitError):
    """One of the others gives no answer at all: it was stopped, or its machine is gone."""


class PeerError(RuntimeError):
    """The cause lies in another process, which tells it."""


class JobError(Exception):
    """A job of a sweep failed or was refused; it has told so itself, and this is what its sweeper sees."""


class LostJobError(JobError):
    """A job's process is gone; the same command runs it again."""


class SweepError(Exception):
    """Jobs of a sweep failed, each of which was told. The message says how many, and where they are."""
