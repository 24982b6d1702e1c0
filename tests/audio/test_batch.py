"""batch: results come in order, and each recording is paid for only once.

That must hold even if a run is interrupted, or if two runs use the same folder at the same time."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted import tone

from audio import AudioWarning, Client, Transcript
from audio.batch import locked, transcribe_all
from audio.errors import BadInput, StillProcessing, TranscriptFailed
from audio.sandbox import Sandbox

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def key():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSEMBLYAI_API_KEY", "test-key")
        yield


def client_of(box):
    return Client(box.url, pause=0.001, poll=0.005)


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.wav").write_bytes(tone(1 + i))
    return tmp_path


def files(folder):
    return sorted(folder.glob("*.wav"))


def test_results_come_in_order_and_a_second_run_costs_nothing(folder):
    with Sandbox(seconds=0.05) as box:
        for _ in range(2):
            results = list(transcribe_all(client_of(box), files(folder), speakers=2))
            assert [source for source, _ in results] == files(folder)
            assert [transcript.seconds for _, transcript in results] == [1, 2, 3, 4, 5, 6]
            assert len(box.jobs) == len(box.uploads) == 6
        os.rename(folder / "0.wav", folder / "zero.wav")  # the same recording under another name
        (folder / "1.wav").write_bytes(tone(9))  # another recording under the same name
        seconds = [
            transcript.seconds for _, transcript in transcribe_all(client_of(box), files(folder), speakers=2)
        ]
        assert seconds == [9, 3, 4, 5, 6, 1] and len(box.jobs) == 7
        list(transcribe_all(client_of(box), files(folder)[:1], speakers=3))
        assert len(box.jobs) == 8, "a request with other options needs a new job"
        saved = json.loads(next(folder.glob("2.wav.*.transcript.json")).read_text(encoding="utf-8"))
        assert saved["transcript"]["text"] and saved["options"]["speakers_expected"] == 2


@given(st.lists(st.integers(0, 2), max_size=6), st.integers(0, 4))
@settings(max_examples=8)
def test_identical_recordings_share_one_job(tmp_path_factory, lengths, jobs):
    folder = tmp_path_factory.mktemp("same")
    for i, length in enumerate(lengths):
        (folder / f"{i}.wav").write_bytes(tone(1 + length))
    with Sandbox(seconds=0.01) as box:
        seconds = [t.seconds for _, t in transcribe_all(client_of(box), files(folder), jobs=jobs)]
        assert seconds == [1 + length for length in lengths] and len(box.jobs) == len(set(lengths))


def test_the_number_of_unfinished_jobs_never_exceeds_the_requested_limit(folder):
    running, counts, lock = set(), [], threading.Lock()

    class Counting(Sandbox):
        def create(self, fields, fate):
            with lock:
                running.add(fields["audio_url"])
                counts.append(len(running))
            if len(running) == 2:  # no job finishes before two are running
                self.seconds = 0.02
            return super().create(fields, fate)

        def finish(self, job, hidden):
            with lock:
                running.discard(job["audio_url"])
            super().finish(job, hidden)

    with Counting(seconds=1e6) as box:
        results = list(transcribe_all(client_of(box), files(folder), jobs=2, timeout=20))
        assert [type(result) for _, result in results] == [Transcript] * 6 and max(counts) == 2


def test_a_failure_does_not_stop_the_other_recordings(folder):
    (folder / "3.wav").write_bytes(b"This is a text.")
    (folder / "4.wav").unlink()
    sources = [folder / f"{i}.wav" for i in range(6)] + ["https://x.example/a.mp3"]
    with Sandbox(seconds=0.02) as box, pytest.warns(AudioWarning):
        kinds = [type(result) for _, result in transcribe_all(client_of(box), sources)]
        assert kinds == [
            Transcript,
            Transcript,
            Transcript,
            TranscriptFailed,
            BadInput,
            Transcript,
            Transcript,
        ]
        assert len(box.jobs) == 6
        list(transcribe_all(client_of(box), sources[:4]))
        assert len(box.jobs) == 7, "the failed job is tried again, the completed ones are not"


def test_a_second_run_continues_the_jobs_of_an_interrupted_run(folder):
    ids = []
    with Sandbox(seconds=1e6) as box:
        note = lambda source, job: ids.append(job.id)
        results = list(transcribe_all(client_of(box), files(folder), jobs=6, timeout=0.05, begun=note))
        assert all(isinstance(error, StillProcessing) and error.transcript_id in ids for _, error in results)
        box.seconds = 0.02
        again = [t.id for _, t in transcribe_all(client_of(box), files(folder), jobs=6)]
        assert sorted(again) == sorted(ids) == sorted(box.jobs)


def test_after_the_iterator_is_closed_no_job_starts_and_the_next_run_completes_the_rest(folder):
    ids = []
    with Sandbox(seconds=0.02) as box:
        note = lambda source, job: ids.append(job.id)
        results = transcribe_all(client_of(box), files(folder), jobs=2, begun=note)
        next(results)
        results.close()
        assert len(box.uploads) == len(box.jobs) == len(ids) == 2
        again = [t.seconds for _, t in transcribe_all(client_of(box), files(folder))]
        assert again == [1, 2, 3, 4, 5, 6] and len(box.jobs) == 6 and {*ids} < {*box.jobs}


def test_a_truncated_transcript_file_is_replaced(folder):
    with Sandbox(seconds=0.01) as box:
        list(transcribe_all(client_of(box), files(folder)[:1]))
        next(folder.glob("*.json")).write_text('{"transcript": ')
        ((_, transcript),) = transcribe_all(client_of(box), files(folder)[:1])
        assert transcript.text and len(box.jobs) == 2 and len(list(folder.glob("*.json"))) == 1


@pytest.mark.parametrize(
    "content", ['{"transcript": 5}', "[]", '{"transcript": {"id": 7}}', "[" * 100_000, "\0"]
)
def test_an_invalid_transcript_file_is_ignored(folder, content):
    with Sandbox(seconds=0.01) as box:
        list(transcribe_all(client_of(box), files(folder)[:1]))
        next(folder.glob("*.json")).write_text(content)
        ((_, transcript),) = transcribe_all(client_of(box), files(folder)[:1])
        assert transcript.text and len(box.jobs) == 2


def test_a_job_that_the_service_no_longer_has_is_created_again(folder):
    with Sandbox(seconds=1e6) as box:
        list(transcribe_all(client_of(box), files(folder)[:1], timeout=0.05))
        box.seconds = 0.01
        box.jobs.clear()
        ((_, transcript),) = transcribe_all(client_of(box), files(folder)[:1])
        assert transcript.text and transcript.id in box.jobs
        list(transcribe_all(client_of(box), files(folder)[:1]))
        assert len(box.jobs) == 1


def test_a_job_that_was_deleted_before_it_was_fetched_is_created_again(folder):
    with Sandbox(seconds=0) as box:
        ((_, job),) = transcribe_all(client_of(box), files(folder)[:1], wait=False)
        client_of(box).delete(job.id)
        ((_, transcript),) = transcribe_all(client_of(box), files(folder)[:1])
        assert transcript.id != job.id and transcript.text.startswith("Good morning")
        client_of(box).delete(transcript.id)  # only from the service: the copy on disk stays
        ((_, again),) = transcribe_all(client_of(box), files(folder)[:1])
        assert again.id == transcript.id and again.text == transcript.text and len(box.jobs) == 2


def test_a_job_whose_id_never_arrived_is_found_by_its_upload(folder):
    """No id arrives if the client is killed, or if the answer is lost for good."""
    with Sandbox(seconds=0.01) as box:
        client = client_of(box)
        create = client.create

        def killed(*body, **more):
            create(*body, **more)
            raise SystemExit

        client.create = killed
        with pytest.raises(SystemExit):
            list(transcribe_all(client, files(folder)[:1]))
        for _ in range(2):
            ((_, transcript),) = transcribe_all(client_of(box), files(folder)[:1])
            assert transcript.text and len(box.jobs) == len(box.uploads) == 1
        box.jobs.clear()
        list(transcribe_all(client_of(box), files(folder)[1:2], wait=False))
        assert len(box.jobs) == 1


def test_a_job_that_the_server_has_not_yet_created_is_found_by_the_next_run(folder):
    """Ctrl-C stops the client while a job is being created, and the user repeats the command at once."""

    class Slow(Sandbox):
        def create(self, fields, fate):
            time.sleep(0.1)
            return super().create(fields, fate)

    with Slow(seconds=0) as box:
        client = client_of(box)
        create = client.create

        def interrupted(*body, **more):
            threading.Thread(target=create, args=body, kwargs=more).start()
            raise KeyboardInterrupt

        client.create = interrupted
        with pytest.raises(KeyboardInterrupt):
            list(transcribe_all(client, files(folder)[:1]))
        assert not box.jobs
        ((_, transcript),) = transcribe_all(Client(box.url, pause=0.03, poll=0.005), files(folder)[:1])
        assert transcript.text and len(box.jobs) == len(box.uploads) == 1


def test_each_recording_is_paid_for_once_even_without_waiting(folder):
    with Sandbox(seconds=0.05) as box:
        for _ in range(3):
            ids = [job.id for _, job in transcribe_all(client_of(box), files(folder), wait=False)]
            assert sorted(ids) == sorted(box.jobs) and len(ids) == 6
        transcripts = [transcript for _, transcript in transcribe_all(client_of(box), files(folder))]
        assert [t.id for t in transcripts] == ids and all(t.text for t in transcripts) and len(box.jobs) == 6


TWICE = """
import sys
from audio import Client, transcribe_all
client = Client(sys.argv[1], poll=0.01)
sys.stdin.readline()
print(*(result.id for _, result in transcribe_all(client, sys.argv[2:], jobs=3)))
"""


def test_a_run_waits_while_another_run_uses_its_folder(tmp_path):
    pytest.importorskip("fcntl", reason="no locks on this system")
    entered = threading.Event()

    def enter():
        with locked(tmp_path):
            entered.set()

    other = threading.Thread(target=enter)
    with locked(tmp_path):
        other.start()
        assert not entered.wait(0.3)
    assert entered.wait(30)
    other.join()


@given(st.integers(1, 4), st.booleans())
@settings(max_examples=3)
def test_two_simultaneous_processes_create_each_job_only_once(tmp_path_factory, count, delay):
    folder = tmp_path_factory.mktemp("race")
    for i in range(count):
        (folder / f"{i}.wav").write_bytes(tone(1 + i))

    class Slow(Sandbox):
        def create(self, fields, fate):
            time.sleep(0.1 * delay)
            return super().create(fields, fate)

    with Slow(seconds=0.05) as box:
        command = [sys.executable, "-c", TWICE, box.url, *map(str, files(folder))]
        pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        runs = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes) for _ in "ab"]
        for process in runs:
            process.stdin.write(b"go\n")
            process.stdin.flush()
        first, second = (process.communicate(timeout=60)[0].split() for process in runs)
        assert first == second and len(set(first)) == len(box.jobs) == count
    assert not list(folder.glob(".*")), "no temporary file is left"


def test_identical_recordings_in_two_folders_share_one_job(tmp_path):
    for name in ("m1", "m2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "audio_only.wav").write_bytes(tone(2))
    with Sandbox(seconds=0.01) as box:
        sources = sorted(tmp_path.glob("*/*.wav"))
        ids = [transcript.id for _, transcript in transcribe_all(client_of(box), sources)]
        assert len(set(ids)) == len(box.jobs) == 1


@pytest.mark.parametrize("name", ["a" * 250 + ".wav", "ü" * 125 + ".wav"])
def test_transcripts_of_files_with_long_names_are_kept(tmp_path, name):
    (tmp_path / name).write_bytes(tone(1))
    with Sandbox(seconds=0.01) as box:
        for _ in range(2):
            ((_, transcript),) = transcribe_all(client_of(box), [tmp_path / name])
            assert transcript.text
        assert len(box.jobs) == 1


def test_nothing_is_sent_if_the_transcript_cannot_be_kept(folder, tmp_path_factory, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and access(path, mode))
    with Sandbox(seconds=0.01) as box:
        ((_, error),) = transcribe_all(client_of(box), files(folder)[:1])
        assert isinstance(error, BadInput) and "--keep" in str(error) and not box.uploads
        keep = tmp_path_factory.mktemp("kept")
        for _ in range(2):
            ((_, transcript),) = transcribe_all(client_of(box), files(folder)[:1], keep=keep)
        assert transcript.text and len(box.jobs) == 1 and len(list(keep.iterdir())) == 1


def test_the_transcript_of_a_recording_given_as_bytes_is_kept_if_a_folder_is_given(tmp_path):
    with Sandbox(seconds=0.01) as box:
        for _ in range(2):
            ((_, transcript),) = transcribe_all(client_of(box), [tone(2)], keep=tmp_path)
            assert transcript.text and len(box.jobs) == 1


def test_the_secret_of_a_webhook_is_not_written_to_disk(folder):
    options = {"webhook_url": "http://127.0.0.1:1/x", "webhook_auth_header_name": "X"}
    with Sandbox(seconds=0.01) as box:
        list(transcribe_all(client_of(box), files(folder)[:1], webhook_auth_header_value="s3cr3t", **options))
    saved = next(folder.glob("*.transcript.json")).read_text()
    assert "127.0.0.1" in saved and "s3cr3t" not in saved


def test_options_and_the_timeout_are_checked_before_anything_is_sent(folder):
    with Sandbox() as box:
        for options in ({"timeout": "5"}, {"timeout": float("nan")}, {"topics": "no"}, {"future": {1}}):
            with pytest.raises(BadInput):
                list(transcribe_all(client_of(box), files(folder), **options))
        assert not box.uploads and not list(folder.glob(".*"))


def test_a_full_disk_loses_no_transcript(folder, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("audio.batch.write_file", full)
    with Sandbox(seconds=0.01) as box, pytest.warns(AudioWarning, match="No space left"):
        ((_, transcript),) = transcribe_all(client_of(box), files(folder)[:1])
    assert transcript.status == "completed"
