"""Everything that can go wrong, drawn first.

    AudioError                catch this one to catch them all
    |- BadInput               found before anything was sent: no such file, options that exclude each other
    |- AuthError              the key is missing, misspelt, or of another region or project
    |- RequestRefused         other 4xx, or a proxy's refusal: asking again will not help
    |- ServiceUnavailable     no answer, 408, 425, 429 or 5xx, also after the retries
    |  '- AnswerLost          the same where a job may have been made: look before you ask again
    |- AnswerCut              a model stopped before the end of its answer, which came so far
    |- TranscriptFailed       the service tried and could not (no audio in the file ...)
    '- StillProcessing        we stopped waiting; the job goes on, its transcript_id can be fetched later

    error.retryable           whether the same call may succeed later, at no risk
    error.status              the HTTP status code, where there was one
    error.transcript_id       the job it is about, where there is one

AudioWarning is the category of warnings: what looks wrong, but only the service can know.
"""


class AudioError(Exception):
    """`known`: attributes besides the message; see the docstring of this file."""

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
    """`transcript` is the answer of the service. Retryable if the service itself was at fault: then submit
    again, because fetching this job again changes nothing."""

    transcript = None


class StillProcessing(AudioError):
    retryable = True


class AudioWarning(UserWarning):
    pass
