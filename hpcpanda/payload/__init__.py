"""The contract with user code, its three forms, and the checker.

What user code imports is exported here; :mod:`hpcpanda.payload.forms` runs it,
:mod:`hpcpanda.payload.inputs` counts and cuts input files, :mod:`hpcpanda.payload.check` tries a
payload before it is submitted.
"""

from hpcpanda.events.columns import Items
from hpcpanda.payload.seeds import philox, pythia_seed
from hpcpanda.payload.work import InputSlice, RangeWork

__all__ = ["InputSlice", "Items", "RangeWork", "philox", "pythia_seed"]
