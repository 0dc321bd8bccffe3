"""The exceptions that steerlens raises on purpose; each carries one message that says what is wrong and what to do."""


class SteerlensError(Exception):
    """Base of every error raised on purpose; a command ends with `exit_code` and prints only the message."""

    exit_code = 1


class UsageError(SteerlensError):
    """The request itself cannot be carried out: an unknown model, site, head or option, a missing file."""

    exit_code = 2


class PictureError(SteerlensError):
    """A file exists but cannot be used as a picture: corrupt, truncated, empty or far too large."""


class ModelError(SteerlensError):
    """A model cannot be used: unreachable, weights missing or not finite, sizes that do not fit, unknown parts."""


class TraceError(SteerlensError):
    """The decomposition of a residual does not add up, so no result of it can be trusted."""


class TermsWarning(UserWarning):
    """Terms of a model's weights that its user should know before they are downloaded."""


class StoreError(SteerlensError):
    """Results cannot be written or read: disk full, folder not writable, another run in the same place."""
