"""Every error that Perrin raises on purpose.

::

    PerrinError                    something went wrong; the message says what it got, what it wanted, what to do
    ├── InvalidInput               a value a person gave is out of range; names the field          (422, exit 2)
    │   └── UnknownName            a modality, model, sampler, ... that does not exist             (422, exit 2)
    ├── NotFound                   no such job, artifact or file                                   (404, exit 2)
    ├── Conflict                   valid, but not now: wrong state, port taken, already running    (409, exit 2)
    │   └── SchemaMismatch         the store was made by an older or newer Perrin                  (409, exit 2)
    ├── NotAllowed                 missing or wrong API key, or another user's object              (401, exit 2)
    ├── NotInstalled               an optional part of Perrin is needed and missing                (exit 2)
    ├── StorageError               disk full, unwritable, or an artifact whose bytes changed       (507, exit 1)
    │   └── StorageAway            the artifact store does not answer; trying again may help       (503, exit 1)
    ├── Unreachable                the gateway, broker or database does not answer                 (503, exit 1)
    ├── JobFailed                  a job ended without a result; carries the job's reason          (exit 1)
    │   └── JobCancelled           ... because somebody cancelled it                               (exit 1)
    ├── OutOfMemory                a model, or one sample of a request, is larger than memory  (507, exit 1)
    ├── ModelError                 a model folder that is incomplete, changed or not readable      (exit 1)
    └── SamplingError              the numbers went wrong: names the row and the field             (exit 1)
        └── Degenerate             an empty, constant, black or silent result                      (exit 1)

``exit_code`` is what the command line returns, ``status`` what the gateway answers. Both print the same text.
"""

from __future__ import annotations

__all__ = [
    "Conflict",
    "Degenerate",
    "InvalidInput",
    "JobCancelled",
    "JobFailed",
    "ModelError",
    "NotAllowed",
    "NotFound",
    "NotInstalled",
    "OutOfMemory",
    "PerrinError",
    "SamplingError",
    "SchemaMismatch",
    "StorageAway",
    "StorageError",
    "UnknownName",
    "Unreachable",
]


class PerrinError(Exception):
    """Something went wrong, and the message says what to do about it."""

    exit_code = 1
    status = 500

    @property
    def message(self) -> str:
        """The one line that a person reads."""
        return str(self)


class InvalidInput(PerrinError):
    """A value that a person gave is out of range.

    Args:
        field: the parameter's name, as the person knows it.
        got: the value received.
        wanted: the range or the choices allowed, in words.
    """

    exit_code = 2
    status = 422

    def __init__(self, field: str, got: object, wanted: str) -> None:
        shown = repr(got)
        if len(shown) > 80:
            length = len(got) if isinstance(got, str) else len(shown)
            shown = shown[:60] + f"... ({length} characters)"
        super().__init__(f"{field}: got {shown}, wanted {wanted}")
        self.field = field
        self.got = got
        self.wanted = wanted


class UnknownName(InvalidInput):
    """A modality, model, sampler or format that does not exist."""


class NotFound(PerrinError):
    """No such job, artifact or file."""

    exit_code = 2
    status = 404


class Conflict(PerrinError):
    """Valid, but not in the present state."""

    exit_code = 2
    status = 409


class SchemaMismatch(Conflict):
    """The store was made by an older or a newer Perrin."""


class NotAllowed(PerrinError):
    """The API key is missing or wrong, or the object is somebody else's."""

    exit_code = 2
    status = 401


class NotInstalled(PerrinError):
    """An optional part of Perrin is needed here.

    Args:
        what: what cannot be done without it.
        extra: the extra of the ``perrin`` distribution that brings it.
    """

    exit_code = 2

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs parts that are not installed: pip install 'perrin[{extra}]'")
        self.extra = extra


class StorageError(PerrinError):
    """The disk is full or unwritable, or an artifact's bytes have changed."""

    status = 507


class StorageAway(StorageError):
    """The artifact store does not answer; trying again may help."""

    status = 503


class Unreachable(PerrinError):
    """The gateway, the broker or the database does not answer."""

    status = 503


class JobFailed(PerrinError):
    """A job ended without a result."""


class JobCancelled(JobFailed):
    """A job ended because somebody cancelled it."""


class OutOfMemory(PerrinError, MemoryError):
    """A model, or one sample of a request, needs more memory than there is.

    Args:
        what: what was to be held in memory, and where.
        needed: bytes it takes; 0 if not known.
        room: bytes that were left; 0 if not known.
    """

    status = 507

    def __init__(self, what: str, needed: int, room: int) -> None:
        def size(count: int) -> str:
            return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"

        got = size(room) if room > 0 else "less"
        super().__init__(f"{what} needs {size(needed) if needed else 'more memory'}, and there is {got}")
        self.needed = needed


class ModelError(PerrinError):
    """A model folder is incomplete, was changed, or cannot be read."""


class SamplingError(PerrinError):
    """The numbers went wrong while sampling."""


class Degenerate(SamplingError):
    """The result is empty, constant, black or silent, and is not passed off as a success."""
