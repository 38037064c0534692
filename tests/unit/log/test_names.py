"""What every line about a job names."""

from worker.headers import log_names

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_a_line_names_the_job_its_batch_and_its_trace() -> None:
    found = log_names("a.job", "7", {"batch_id": "b"}, f"00-{TRACE}-b7ad6b7169203331-01")
    assert found == {"job": "a.job", "job_id": "7", "batch_id": "b", "trace_id": TRACE}


def test_what_a_message_does_not_say_is_not_named() -> None:
    assert log_names("a.job", "7", {"batch_id": 5}, None) == {"job": "a.job", "job_id": "7"}
    assert "trace_id" not in log_names("a.job", "7", {}, "no trace")
