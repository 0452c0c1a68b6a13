"""Settings of a run: `compose` reads and merges them, `schema` knows what they may hold and checks them."""

from dfdc_video.config.compose import (
    config_hash,
    config_names,
    config_summary,
    dump,
    find_config,
    keyword_arguments,
    load_dump,
    merge,
    merge_overrides,
    parse_overrides,
    read_tree,
    read_yaml,
    resolve,
    to_dict,
    with_bases,
)
from dfdc_video.config.schema import check_arguments, complete, keywords, typed

__all__ = [
    "check_arguments",
    "complete",
    "config_hash",
    "config_names",
    "config_summary",
    "dump",
    "find_config",
    "keyword_arguments",
    "keywords",
    "load_dump",
    "merge",
    "merge_overrides",
    "parse_overrides",
    "read_tree",
    "read_yaml",
    "resolve",
    "to_dict",
    "typed",
    "with_bases",
]
