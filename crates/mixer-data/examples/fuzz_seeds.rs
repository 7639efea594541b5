//! Writes the seeds of the fuzz targets: small sound files of every kind that this crate reads.
//!
//! ```sh
//! cargo run --release -p mixer-data --example fuzz_seeds -- crates/mixer-data/fuzz/seeds
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use mixer_data::{
    BuiltinKind, BuiltinSource, BuiltinSplit, DecodeOptions, OnCorrupt, ShardSource,
    ShardWriterConfig, write_shards,
};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let root: PathBuf = std::env::args().nth(1).ok_or("name the folder to write into")?.into();
    let write = |target: &str, name: &str, bytes: &[u8]| -> Outcome<()> {
        let folder = root.join(target);
        fs_err::create_dir_all(&folder)?;
        Ok(fs_err::write(folder.join(name), bytes)?)
    };
    shards(&write)?;
    write("list", "plain.csv", b"a/1.jpg,ant\na/2.jpg,bee\n\"b,3.jpg\",ant\n")?;
    write("list", "header.tsv", b"path\tlabel\nx.png\t0\ny.png\t1\n")?;
    write("list", "quotes.csv", "image,class\r\n\"a \"\"b\"\".jpg\",\"caf\u{e9}\"\r\n".as_bytes())?;
    write("list", "labels.txt", b"3\n1\n2\n")?;
    write("list", "synsets.txt", b"n01440764 tench, Tinca tinca\nn01443537 goldfish\n")?;
    let record = |labels: &[u8]| -> Vec<u8> {
        let pixels = (0..3072u32).map(|at| (at / 7) as u8);
        labels.iter().copied().chain(pixels).collect()
    };
    write("cifar", "ten.bin", &[record(&[3]), record(&[9])].concat())?;
    write("cifar", "hundred.bin", &record(&[19, 99]))?;
    let pictures = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4][..], &[77; 24]].concat();
    let labels = [0, 0, 8, 1, 0, 0, 0, 3, 7, 0, 9];
    for (name, bytes) in [("pictures", &pictures[..]), ("labels", &labels)] {
        write("idx", name, bytes)?;
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(bytes)?;
        write("idx", &format!("{name}.gz"), &packer.finish()?)?;
    }
    write("parquet", "named.parquet", &table(true)?)?;
    write("parquet", "numbered.parquet", &table(false)?)?;
    Ok(())
}

fn shards(write: &impl Fn(&str, &str, &[u8]) -> Outcome<()>) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let source = BuiltinSource::new(BuiltinKind::Shapes, BuiltinSplit::Train, 5, 4, 0)?;
    let config = ShardWriterConfig { examples_per_shard: 3, ..ShardWriterConfig::new("s") };
    write_shards(&source, folder.path(), &config, OnCorrupt::Stop, 1, |_| {})?;
    ShardSource::open(folder.path().join("s-*.tar"), None, DecodeOptions::default())?;
    for entry in fs_err::read_dir(folder.path())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs_err::read(&path)?;
        match extension(&path) {
            "tar" => write("tar", &name, &bytes)?,
            "json" | "txt" => {}
            _ => write("shard_index", &name.replace('*', "all"), &bytes)?,
        }
    }
    Ok(())
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// A table of pictures and labels as those of Hugging Face, in two groups of rows.
fn table(with_names: bool) -> Outcome<Vec<u8>> {
    const SCHEMA: &str = "message schema {
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional int64 label;
    }";
    const FEATURES: &str = r#"{"info": {"features": {
        "image": {"_type": "Image"},
        "label": {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}
    }}}"#;
    let metadata =
        with_names.then(|| vec![KeyValue::new("huggingface".to_owned(), FEATURES.to_owned())]);
    let properties = WriterProperties::builder()
        .set_compression(parquet::basic::Compression::SNAPPY)
        .set_key_value_metadata(metadata)
        .set_data_page_size_limit(200)
        .set_write_batch_size(4)
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    for rows in [9usize, 4] {
        let mut group = writer.next_row_group()?;
        let mut column = group.next_column()?.ok_or("the pictures")?;
        let pictures: Vec<ByteArray> =
            (0..rows).map(|row| vec![row as u8; 50 + row].into()).collect();
        column.typed::<ByteArrayType>().write_batch(&pictures, Some(&vec![2; rows]), None)?;
        column.close()?;
        let mut column = group.next_column()?.ok_or("the paths")?;
        column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![1; rows]), None)?;
        column.close()?;
        let mut column = group.next_column()?.ok_or("the labels")?;
        let labels: Vec<i64> = (0..rows as i64).map(|row| row % 3).collect();
        column.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; rows]), None)?;
        column.close()?;
        group.close()?;
    }
    Ok(writer.into_inner()?)
}
