//! Pages of Parquet files that are packed with Zstandard.
//!
//! The Parquet crate unpacks them with a library in C. Here its reader takes the pages for unpacked ones,
//! and a decoder in Rust unpacks what it gives.

use std::io::Read;

use bytes::Bytes;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use ruzstd::decoding::StreamingDecoder;

/// Unpacks the pages that another reader finds.
pub(crate) struct ZstdPages<P> {
    pages: P,
    /// Bytes of the unpacked column: no page is larger.
    most: u64,
}

impl<P: PageReader> ZstdPages<P> {
    /// Unpacks `pages` of a column that has at most so many bytes.
    pub(crate) fn new(pages: P, most: u64) -> Self {
        Self { pages, most }
    }

    fn unpack(&self, mut page: Page) -> Result<Page, ParquetError> {
        match &mut page {
            Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => {
                *buf = self.unpack_behind(0, buf)?;
            }
            Page::DataPageV2 {
                buf,
                def_levels_byte_len,
                rep_levels_byte_len,
                is_compressed: is_packed @ true,
                ..
            } => {
                let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
                *buf = self.unpack_behind(usize::try_from(levels)?, buf)?;
                *is_packed = false;
            }
            Page::DataPageV2 { .. } => {}
        }
        Ok(page)
    }

    /// The first `levels` bytes as they are, and the rest unpacked.
    fn unpack_behind(&self, levels: usize, packed: &Bytes) -> Result<Bytes, ParquetError> {
        let broken = |what: String| ParquetError::General(format!("broken Zstandard: {what}"));
        let Some((levels, packed)) = packed.split_at_checked(levels) else {
            return Err(broken("levels longer than their page".to_owned()));
        };
        let mut unpacked = levels.to_vec();
        // A page without values has nothing to unpack.
        if !packed.is_empty() {
            let decoder =
                StreamingDecoder::new(packed).map_err(|error| broken(error.to_string()))?;
            let read = decoder.take(self.most.saturating_add(1)).read_to_end(&mut unpacked);
            let read = read.map_err(|error| broken(error.to_string()))?;
            if read as u64 > self.most {
                return Err(broken(format!("more than the {} bytes of its column", self.most)));
            }
        }
        Ok(unpacked.into())
    }
}

impl<P: PageReader> Iterator for ZstdPages<P> {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl<P: PageReader> PageReader for ZstdPages<P> {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        self.pages.get_next_page()?.map(|page| self.unpack(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.pages.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>, ParquetError> {
        self.pages.take_deferred_dictionary()?.map(|page| self.unpack(page)).transpose()
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.pages.at_record_boundary()
    }
}
