"""Everything that can go wrong, as a tree.

    AudioError                catch this one to catch them all
    |- BadInput               no such file, conflicting options ...: mostly found before anything is sent
    |- AuthError              the key is missing, misspelt, or for another region or project
    |- RequestRefused         other 4xx, a proxy's refusal, a bad certificate ...: trying again will not help
    |- ServiceUnavailable     no answer, 408, 425, 429 or 5xx, even after the retries
    |  '- AnswerLost          the same, but the request may have been carried out: check before you try again
    |- AnswerCut              a model's answer was cut off; the part before the cut has been yielded
    |- TranscriptFailed       the service tried and failed (no audio in the file ...)
    '- StillProcessing        we stopped waiting; the job continues: fetch it later by its id

    error.retryable           whether the same call may succeed later, without risk
    error.status              the HTTP status code, if there was one
    error.transcript_id       the id of the job concerned, if there is one

Every warning is an AudioWarning: something looks wrong, but the work goes on.
"""


class AudioError(Exception):
    """`known`: the attributes to set; see the module docstring."""

    retryable, status, transcript_id = False, None, None

    def __init__(self, message, **known):
        super().__init__(message)
        vars(self).update(known)


class BadInput(AudioError, ValueError):
    pass


class AuthError(AudioError):
    pass


class RequestRefused(AudioError):
    pass


class ServiceUnavailable(AudioError):
    retryable = True


class AnswerLost(ServiceUnavailable):
    """pending: the server may still be working on the request, and may yet carry it out."""

    retryable, pending = False, False


class AnswerCut(AudioError):
    pass


class TranscriptFailed(AudioError):
    """Retryable if the service itself was at fault: then submit the recording again, because fetching this
    job again changes nothing."""


class StillProcessing(AudioError):
    retryable = True


class AudioWarning(UserWarning):
    pass
