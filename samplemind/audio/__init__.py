"""From an audio file to numbers: guards and reading on one side, pure measurement on the other.

Nothing here knows a store, a queue or a setting of the platform.
"""
