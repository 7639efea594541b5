//! Tar archives of pictures and labels. `tar` reads members, `shard_index` keeps where every example
//! lies (`entries`), `shard_source` reads them as a source, `shard_writer` writes them.

pub(crate) mod entries;
pub(crate) mod packing;
pub(crate) mod shard_index;
pub(crate) mod shard_source;
pub(crate) mod shard_writer;
pub(crate) mod tar;
mod whole_file;
