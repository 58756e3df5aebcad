"""Segments to output files, in event order."""

from hpcpanda.merge.digest import digest_bytes, digest_columns, digest_file, digest_sample
from hpcpanda.merge.manifest import Manifest, load_manifest, manifest_path
from hpcpanda.merge.merging import MERGERS, MergeResult, merge
from hpcpanda.merge.plan import Source, accepted_events
from hpcpanda.merge.view import view_path

__all__ = [
    "MERGERS",
    "Manifest",
    "MergeResult",
    "Source",
    "accepted_events",
    "digest_bytes",
    "digest_columns",
    "digest_file",
    "digest_sample",
    "load_manifest",
    "manifest_path",
    "merge",
    "view_path",
]
