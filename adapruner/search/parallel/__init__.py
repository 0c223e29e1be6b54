"""Trials of one study on many workers, with a plan that does not depend on them.

One process leads: the one that runs the search. It holds a lease in the database (`lease`), asks
the sampler for one generation of trials after the other and enqueues them (`generations`), and
evaluates trials like every worker (`queue`). A worker (`worker`) finds what it needs in the study
(`publication`). All use one database (`storage`).

A generation depends on the results of earlier ones alone, taken in the order of the trials. So
neither the number of workers, nor which of them ends first, nor their deaths change a plan.
"""
