"""What is read of the platform: stores, queues, work, backups, schedule, machine.

Invariant: an area reads and changes nothing; what it could not read, it raises.
"""
