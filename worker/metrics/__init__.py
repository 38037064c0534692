"""Figures for Prometheus: what a process counts itself, and what the platform's stores say.

A worker counts in memory that its processes share and serves it beside its health
(`counting`, `cells`); the console's process reads the stores at a pace of its own and serves what
it read on an address of its own (`exporter`, `areas`). Which figures there are stands in
`catalogue`, and docs/metrics.md is made from that. Why it is so is decision 7.

Invariant: a scrape asks nothing of a store and changes nothing. Labels come from closed sets:
names of jobs, queues, stores, states; never an id, an owner or a path.
"""
