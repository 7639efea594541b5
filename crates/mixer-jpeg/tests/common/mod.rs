//! Fixtures, and cutting a region out of decoded pixels.

use std::path::PathBuf;

use mixer_jpeg::{Decoder, Picture, Refusal, Region, Scale, Unsupported, read_header};

/// A JPEG and what Pillow makes of it.
pub struct Fixture {
    pub name: String,
    pub jpeg: Vec<u8>,
    pub rgb: Vec<u8>,
    /// Its pixels at a half, a quarter and an eighth of the size.
    pub scaled: Vec<u8>,
    pub width: u32,
    pub height: u32,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A file among the fixtures.
pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

/// All fixtures of which regions are decoded, by name.
pub fn fixtures() -> Vec<Fixture> {
    fixtures_in("")
}

/// All fixtures that are only decoded whole, by name.
pub fn whole_fixtures() -> Vec<Fixture> {
    fixtures_in("whole/")
}

fn fixtures_in(inner: &str) -> Vec<Fixture> {
    let mut fixtures = Vec::new();
    for entry in std::fs::read_dir(folder().join(inner)).unwrap() {
        let file = inner.to_owned() + &entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".jpg") else { continue };
        let size = name.split('-').nth(1).unwrap();
        let (width, height) = size.split_once('x').unwrap();
        fixtures.push(Fixture {
            name: name.to_owned(),
            jpeg: read(&file),
            rgb: read(&format!("{name}.rgb")),
            scaled: read(&format!("{name}.scaled")),
            width: width.parse().unwrap(),
            height: height.parse().unwrap(),
        });
    }
    assert!(fixtures.len() > 40, "the fixtures are there");
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    fixtures
}

impl Fixture {
    pub fn whole(&self) -> Region {
        self.whole_at(Scale::Full)
    }

    /// The region that is all of the picture at a scale.
    pub fn whole_at(&self, scale: Scale) -> Region {
        Region { left: 0, top: 0, width: scale.of(self.width), height: scale.of(self.height) }
    }

    /// Pillow's pixels at every scale.
    pub fn at_scales(&self) -> Vec<(Scale, &[u8])> {
        let mut rest = &self.scaled[..];
        let mut pixels = vec![(Scale::Full, &self.rgb[..])];
        for scale in Scale::ALL.into_iter().skip(1) {
            let Region { width, height, .. } = self.whole_at(scale);
            let (these, behind) = rest.split_at(width as usize * height as usize * 3);
            pixels.push((scale, these));
            rest = behind;
        }
        assert!(rest.is_empty());
        pixels
    }
}

/// The pixels of a region of a picture of `width`.
pub fn cut(rgb: &[u8], width: u32, region: Region) -> Vec<u8> {
    let (left, bytes) = (region.left as usize * 3, region.width as usize * 3);
    rgb.chunks_exact(width as usize * 3)
        .skip(region.top as usize)
        .take(region.height as usize)
        .flat_map(|row| &row[left..left + bytes])
        .copied()
        .collect()
}

/// The whole picture.
pub fn decode(decoder: &mut Decoder, jpeg: &[u8]) -> Result<Vec<u8>, Unsupported> {
    let header = read_header(jpeg)?;
    let mut rgb = Vec::new();
    let whole = Region { left: 0, top: 0, width: header.width, height: header.height };
    decoder.decode_region(jpeg, Scale::Full, whole, &mut rgb)?;
    Ok(rgb)
}

/// The whole picture, by the decoder of whole pictures.
pub fn decode_whole(decoder: &Decoder, jpeg: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut rgb = Vec::new();
    decoder.decode_whole(&Picture::read(jpeg)?, Scale::Full, &mut rgb)?;
    Ok(rgb)
}
