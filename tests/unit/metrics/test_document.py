from worker.metrics.document import PAGE, render


def test_the_list_of_metrics_is_up_to_date() -> None:
    assert PAGE.read_text() == render(), "docs/metrics.md is stale: run `make docs`"
