"""A Celery app that knows nothing of the platform but the prefix of its keys."""

import os
from pathlib import Path

from celery import Celery

app = Celery("stock", broker=os.environ["STOCK_BROKER_URL"], set_as_current=False)
app.conf.broker_transport_options = {"global_keyprefix": "sm:"}


@app.task(name="probes.answer")
def answer(name: str) -> None:
    with Path(os.environ["STOCK_FILE"]).open("a") as file:
        file.write(f"{name}\n")
