"""A service's queries, asked from a process of its own until its input ends.

A thread beside the work that is measured would share the interpreter's lock with it, and tell of
that. The address stands in FOREGROUND_URL, as it holds a password; the times go to the output.
"""

import json
import os
import select
import sys
import time

import psycopg

PAUSE_S = 0.01
QUESTION = "SELECT title FROM samples WHERE words @@ to_tsquery('dark & kick') LIMIT 20"


def main() -> None:
    times: list[float] = []
    with psycopg.connect(os.environ["FOREGROUND_URL"], autocommit=True) as connection:
        connection.execute(QUESTION).fetchall()
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
            began = time.perf_counter()
            connection.execute(QUESTION).fetchall()
            times.append(time.perf_counter() - began)
    print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
