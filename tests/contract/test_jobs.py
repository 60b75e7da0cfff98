"""Every job in the contract is one that somebody does, and what it takes is what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kitaab_jobs
from kitaab_jobs.client import payload
from kitaab_jobs.contract import JOBS, MAX_PAYLOAD_BYTES, QUEUES, Job, Payload, job_named
from kitaab_jobs.errors import BadPayload, UnknownJob

PACKAGE = Path(kitaab_jobs.__file__).parent


class Note(Payload):
    text: str


NOTE = Job("sample.note", "takes a text", Note)

# For each payload that some job takes, arguments that it accepts.
ACCEPTED: dict[str, dict[str, Any]] = {
    "Payload": {},
    "Batch": {"limit": 10},
    "Dispatch": {"limit": 10, "lane": 1},
    "Deliver": {"zone": "Asia/Karachi", "delivery_ids": [1, 2]},
    "Notify": {"notice_ids": [1, 2]},
}


@pytest.fixture(scope="module")
def registered() -> set[str]:
    """The tasks that a worker knows, from a process of its own, since importing it reads the settings."""
    program = "import json, kitaab_jobs.worker as w; print(json.dumps(sorted(w.app.tasks)))"
    env = os.environ | {
        "KITAAB_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "KITAAB_REDIS_URL": "redis://127.0.0.1:1/0",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("job", JOBS.values(), ids=lambda job: job.name)
class TestEveryJob:
    def test_name_is_well_formed(self, job: Job) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*", job.name)
        assert len(job.name) <= 128

    def test_is_found_by_its_name(self, job: Job) -> None:
        assert job_named(job.name) is job

    def test_feature_is_a_package_with_tasks(self, job: Job) -> None:
        assert (PACKAGE / job.feature / "__init__.py").is_file()
        assert (PACKAGE / job.feature / "tasks.py").is_file()

    def test_queue_exists(self, job: Job) -> None:
        assert job.queue in QUEUES

    def test_limits_make_sense(self, job: Job) -> None:
        assert job.max_attempts >= 1
        assert job.time_limit >= 1
        assert job.summary

    def test_worker_has_it(self, job: Job, registered: set[str]) -> None:
        assert job.name in registered

    def test_takes_what_it_says(self, job: Job) -> None:
        assert job.parse(ACCEPTED[job.payload.__name__])

    def test_refuses_an_unknown_field(self, job: Job) -> None:
        with pytest.raises(BadPayload, match=rf"^{re.escape(job.name)}: limti: .*not permitted.*it was 5"):
            job.parse({**ACCEPTED[job.payload.__name__], "limti": 5})

    @pytest.mark.parametrize("args", [[], "limit", 7])
    def test_refuses_what_is_no_object(self, job: Job, args: Any) -> None:
        with pytest.raises(BadPayload, match="the arguments"):
            job.parse(args)


def test_worker_has_no_other_jobs(registered: set[str]) -> None:
    assert {name for name in registered if not name.startswith("celery.")} == set(JOBS)


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"limit": "many"}, "limit"),
        ({"limit": None}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"limit": [1]}, "limit"),
        ({"limit": 0}, "limit"),
        ({"limit": 100_001}, "limit"),
    ],
)
def test_wrong_type_or_size_is_refused_with_the_field(args: dict[str, Any], field: str) -> None:
    with pytest.raises(BadPayload, match=f"progress.refresh: {field}: .*it was"):
        job_named("progress.refresh").parse(args)


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"delivery_ids": [1]}, "zone"),
        ({"zone": 5, "delivery_ids": [1]}, "zone"),
        ({"zone": "UTC", "delivery_ids": []}, "delivery_ids"),
        ({"zone": "UTC", "delivery_ids": ["x"]}, "delivery_ids.0"),
        ({"zone": "UTC", "delivery_ids": list(range(501))}, "delivery_ids"),
    ],
)
def test_nested_fields_are_named(args: dict[str, Any], field: str) -> None:
    with pytest.raises(BadPayload, match=rf"reminders.deliver: {re.escape(field)}: "):
        job_named("reminders.deliver").parse(args)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(BadPayload) as refused:
        job_named("progress.refresh").parse({"limit": "x" * 10_000})
    assert len(str(refused.value)) < 300


def test_no_arguments_mean_the_defaults() -> None:
    assert job_named("progress.refresh").parse(None) == job_named("progress.refresh").parse({"limit": 2000})


def test_payloads_are_frozen() -> None:
    taken = NOTE.parse({"text": "a"})
    with pytest.raises(ValueError, match="frozen"):
        taken.text = "b"  # type: ignore[attr-defined]


def test_unknown_name_is_answered_with_what_may_be_meant() -> None:
    with pytest.raises(UnknownJob) as refused:
        job_named("progress.refesh")
    assert str(refused.value) == "no job is called 'progress.refesh': did you mean progress.refresh?"
    with pytest.raises(UnknownJob) as refused:
        job_named("x")
    assert str(refused.value).startswith("no job is called 'x': the jobs are ")
    assert all(name in str(refused.value) for name in JOBS)


class TestSize:
    def spare(self) -> int:
        return MAX_PAYLOAD_BYTES - len('{"text": ""}')

    def test_64_kib_are_taken(self) -> None:
        assert len(payload(NOTE, {"text": "x" * self.spare()}).encode()) == MAX_PAYLOAD_BYTES

    def test_one_byte_more_is_refused(self) -> None:
        with pytest.raises(
            BadPayload, match=r"sample\.note: the arguments have 65537 bytes, and 65536 are allowed"
        ):
            payload(NOTE, {"text": "x" * (self.spare() + 1)})

    def test_bytes_count_and_not_characters(self) -> None:
        assert payload(NOTE, {"text": "ا" * (self.spare() // 2)})
        with pytest.raises(BadPayload, match="65536 are allowed"):
            payload(NOTE, {"text": "ا" * (self.spare() // 2 + 1)})


class TestText:
    def test_nul_is_refused(self) -> None:
        with pytest.raises(BadPayload, match="NUL"):
            payload(NOTE, {"text": "a\0b"})

    def test_what_only_looks_like_nul_is_taken(self) -> None:
        assert json.loads(payload(NOTE, {"text": r"a\u0000b"})) == {"text": r"a\u0000b"}

    def test_half_of_a_surrogate_pair_is_refused(self) -> None:
        with pytest.raises(BadPayload, match=r"not JSON: .*surrogates"):
            payload(NOTE, {"text": "\ud800"})

    def test_not_a_number_is_refused(self) -> None:
        class Share(Payload):
            part: float

        with pytest.raises(BadPayload, match="not JSON"):
            payload(Job("sample.share", "takes a share", Share), {"part": float("nan")})
