"""A beat as the platform starts it, over a table with one probe: `python -m … beat`."""

import os
import sys

from samplemind.jobs.periodic import Periodic
from samplemind.jobs.times import Every
from samplemind.settings import Settings
from worker import main


def table(_: Settings) -> tuple[Periodic, ...]:
    period_s = int(os.environ["PROBE_PERIOD_S"])
    return (Periodic("probes.slot", Every(period_s), "A probe.", "default"),)


if __name__ == "__main__":
    main.SCHEDULE = "tests.worker.beat_process:table"
    sys.exit(main.main(sys.argv[1:]))
