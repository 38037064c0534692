"""The database looks after itself: what is slow, swollen, due, too old or overdue.

Judgements are pure functions over figures that were read before; acts are bounded by lock and
statement timeouts, hold advisory locks, and stop at the end of their window.
"""
