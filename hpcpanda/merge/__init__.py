"""Segments to output files, in event order."""

from hpcpanda.merge.bundles import JobOutputs
from hpcpanda.merge.digest import digest_bytes, digest_columns, digest_file, digest_members, digest_sample
from hpcpanda.merge.manifest import Manifest, load_manifest, manifest_path
from hpcpanda.merge.merging import MERGERS, MergeResult, merge
from hpcpanda.merge.plan import Source, accepted_events
from hpcpanda.merge.reports import reports_path
from hpcpanda.merge.rolling import merge_files
from hpcpanda.merge.view import view_path

__all__ = [
    "MERGERS",
    "JobOutputs",
    "Manifest",
    "MergeResult",
    "Source",
    "accepted_events",
    "digest_bytes",
    "digest_columns",
    "digest_file",
    "digest_members",
    "digest_sample",
    "load_manifest",
    "manifest_path",
    "merge",
    "merge_files",
    "reports_path",
    "view_path",
]
