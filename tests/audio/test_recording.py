"""recording: bad input is refused before anything is sent, and every attempt sends the whole recording."""

import contextlib
import io
import os
import threading
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted import tone

from audio import AudioWarning
from audio.errors import BadInput
from audio.recording import HEAD, PIECE, Recording, looks_like_audio, recordings_in

HEADS = {
    "wav": b"RIFF\x24\0\0\0WAVE",
    "mp3": b"ID3\x04\0\0\0\0\0\0\0\0",
    "mpeg": b"\xff\xfb\x90\x00" * 3,
    "flac": b"fLaC\0\0\0\x22" + b"x" * 4,
    "ogg": b"OggS\0\x02" + b"\0" * 6,
    "m4a": b"\0\0\0 ftypM4A ",
    "webm": b"\x1aE\xdf\xa3" + b"x" * 8,
    "aiff": b"FORM\0\0\0\0AIFF",
    "amr": b"#!AMR\n" + b"x" * 6,
    "ac3": b"\x0b\x77" + b"x" * 10,
    "tta": b"TTA1" + b"x" * 8,
    "dss": b"\x02dss" + b"x" * 8,
    "ds2": b"\x03ds2" + b"x" * 8,
    "mts": (b"\0\0\0\0G" + bytes(187)) * 3,
    "ts": (b"G" + bytes(187)) * 3,
    "8svx": b"FORM\0\0\0\x108SVX",
    "qcp": b"RIFF\0\0\0\x10QLCM",
    "voc": b"Creative Voice File\x1a",
    "mxf": b"\x06\x0e\x2b\x34\2\5\1\1",
    "w64": b"riff\x2e\x91\xcf\x11",
    "mp3 with leading zeros": bytes(1000) + b"\xff\xfb\x90\x00" * 3,
    "adts": b"\xff\xf1\x50\x80" * 3,
}


@pytest.mark.parametrize("kind", HEADS)
def test_audio_is_recognised_by_its_first_bytes(kind):
    assert looks_like_audio(HEADS[kind])


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"%PDF-1.7\n",
        b"Hello world!",
        b"\x89PNG\r\n",
        b"<html><head",
        b"PK\x03\x04",
        b"RIFF....WEBP",
        "text".encode("utf-16"),
        bytes(HEAD),
    ],
)
def test_other_files_are_not_taken_for_audio(head):
    assert not looks_like_audio(head)


@given(st.binary(min_size=1, max_size=3 * PIECE), st.integers(0, 5))
def test_every_attempt_sends_the_whole_recording(data, start):
    file = io.BytesIO(b"\0" * start + data)
    file.seek(start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recording = Recording(file)
    for _ in range(2):
        assert b"".join(recording) == data and len(recording) == len(data)
    assert all(len(piece) <= PIECE for piece in recording)


def test_the_hash_depends_only_on_the_content(tmp_path):
    (tmp_path / "a").write_bytes(tone())
    assert Recording(tmp_path / "a").sha256() == Recording(tone()).sha256() != Recording(tone(3)).sha256()


def test_a_pipe_is_read_once_and_sent_as_often_as_needed():
    reading, writing = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writing, tone(1)), os.close(writing)))
    thread.start()
    with open(reading, "rb") as pipe:
        recording = Recording(pipe)
    assert [b"".join(recording.pieces()) for _ in range(2)] == [tone(1)] * 2
    thread.join()


def test_a_source_that_cannot_be_sent_is_refused(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "open.txt").write_text("words")
    with contextlib.ExitStack() as stack:
        text = stack.enter_context(open(tmp_path / "open.txt"))
        closed = stack.enter_context(open(tmp_path / "open.txt", "rb"))
        closed.close()
        new = stack.enter_context(open(tmp_path / "new.wav", "wb"))
        for source, words in (
            (tmp_path / "none.wav", "no such file"),
            (tmp_path, "a folder"),
            ("/dev/null", "a device"),
            (b"", "empty"),
            (tmp_path / "empty.wav", "empty"),
            ("s3://bucket/key", "no such file"),
            (None, "not NoneType"),
            (text, "mode 'rb'"),
            (io.StringIO("x"), "mode 'rb'"),
            (closed, "closed"),
            (new, "mode 'rb'"),
            ("a\0b", "a\0b"),
            ("", "the name of the recording is empty"),
            (" ", "the name of the recording is empty"),
        ):
            with pytest.raises(BadInput, match=words):
                Recording(source)


def test_an_unreadable_folder_is_reported(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(tone())
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def locked(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.warns(AudioWarning, match="locked cannot be read: Permission denied"):
        assert len(recordings_in(tmp_path)) == 1


def test_the_scheme_of_a_url_may_be_in_capitals():
    assert Recording("HTTPS://x.example/A.mp3").url == "https://x.example/A.mp3"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_file_is_refused(tmp_path):
    (tmp_path / "a.wav").write_bytes(tone())
    (tmp_path / "a.wav").chmod(0)
    with pytest.raises(BadInput, match="cannot be read"):
        Recording(tmp_path / "a.wav")


def test_a_file_that_does_not_look_like_audio_causes_a_warning_but_no_error():
    with pytest.warns(AudioWarning, match="does not look like audio"):
        Recording(b"some text")


def test_a_file_that_grows_is_sent_at_its_old_length_and_one_that_shrinks_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(tone(10))
    recording = Recording(path)
    path.write_bytes(tone(20))  # longer, but no more bytes are sent than before
    assert len(b"".join(recording.pieces())) == len(tone(10))
    path.write_bytes(tone(1))
    with pytest.raises(BadInput, match="became shorter"):
        list(recording.pieces())


def test_a_folder_is_searched_for_audio(tmp_path):
    for name in ("b.wav", "deep/a.mp3", ".hidden.wav", ".Trash/deleted.wav", "deep/.old/c.wav", "z"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(tone())
    (tmp_path / "notes.wav").write_text("these are notes")
    (tmp_path / "b.wav.txt").write_text("MAC and cheese")  # "MAC " also begins Monkey's Audio files
    (tmp_path / "b.wav.0.transcript.json").write_text("{}")
    (tmp_path / "deep" / "empty.mp3").touch()
    with pytest.warns(AudioWarning, match="b.wav.txt, deep/empty.mp3, notes.wav$") as caught:
        recordings_in(tmp_path)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = recordings_in(tmp_path)
    assert [os.path.relpath(name, tmp_path) for name in paths] == ["b.wav", "deep/a.mp3", "z"]
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match="no audio"):
        recordings_in(tmp_path / "none")
