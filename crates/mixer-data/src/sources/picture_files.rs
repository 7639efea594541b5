//! The picture files below a folder.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::error::DataError;
use crate::sources::passed_over::PassedOver;

/// File name extensions that count as images, in any case. The format itself is taken from the
/// bytes.
pub(crate) const EXTENSIONS: &[&str] =
    &["jpg", "jpeg", "jfif", "jpe", "jfi", "jif", "png", "webp", "bmp", "gif"];

/// Extensions of pictures that cannot be read.
const UNREAD: &[&str] = &[
    "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "heic", "heif", "avif", "jp2", "jxl", "tga", "ico",
    "svg", "psd", "exr", "hdr",
];

/// Contents of a folder, at any depth.
///
/// Hidden files and folders do not count. Links are followed, but not back to a folder that they lie in:
/// its pictures would be there again and again.
#[derive(Default)]
pub(crate) struct PictureFiles {
    /// Paths from the folder, `/`-separated and sorted.
    pub(crate) names: Vec<String>,
    /// Everything else, by its path from the folder above.
    pub(crate) passed_over: PassedOver,
}

impl PictureFiles {
    /// Lists what is below `root/folder`; an empty `folder` is `root` itself.
    pub(crate) fn below(root: &Path, folder: &str) -> Result<Self, DataError> {
        let mut found = Self::default();
        let whole = fs::canonicalize(root).map_err(DataError::io)?;
        let mut walk = Walk { folder, found: &mut found, above: vec![whole] };
        match folder {
            "" => walk.list(root, "")?,
            _ => walk.enter(&root.join(folder), "")?,
        }
        found.names.sort_unstable();
        Ok(found)
    }
}

/// The picture files below a folder, as training takes them: by their endings, at any depth, hidden ones left
/// out, sorted by path; and what else is there.
///
/// # Errors
/// When a folder cannot be listed, or a link leads back to where it lies.
pub fn picture_files(folder: &Path) -> Result<(Vec<PathBuf>, PassedOver), DataError> {
    let PictureFiles { names, passed_over } = PictureFiles::below(folder, "")?;
    Ok((names.iter().map(|name| folder.join(name)).collect(), passed_over))
}

/// The state of a walk.
struct Walk<'a> {
    folder: &'a str,
    found: &'a mut PictureFiles,
    /// The folders above what is listed, without links.
    above: Vec<PathBuf>,
}

impl Walk<'_> {
    /// Lists what is in a folder, which may be a link to one.
    fn enter(&mut self, path: &Path, prefix: &str) -> Result<(), DataError> {
        let whole = fs::canonicalize(path).map_err(DataError::io)?;
        // A folder that is no link lies in the last one, and in none twice.
        if self.above.iter().any(|above| above.starts_with(&whole)) {
            return Err(DataError::LinkLoop { target: whole, path: path.to_path_buf() });
        }
        self.above.push(whole);
        self.list(path, prefix)?;
        self.above.pop();
        Ok(())
    }

    fn list(&mut self, path: &Path, prefix: &str) -> Result<(), DataError> {
        for entry in fs::read_dir(path).map_err(DataError::io)? {
            let entry = entry.map_err(DataError::io)?;
            let file_name = entry.file_name();
            let name = file_name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            let mut kind = entry.file_type().map_err(DataError::io)?;
            if kind.is_symlink()
                && let Ok(target) = fs::metadata(entry.path())
            {
                kind = target.file_type();
            }
            // A link that leads nowhere is a picture that cannot be read.
            let is_file = kind.is_file() || kind.is_symlink();
            let slash = if self.folder.is_empty() { "" } else { "/" };
            let shown = format!("{}{slash}{prefix}{name}", self.folder);
            let passed_over = &mut self.found.passed_over;
            if file_name.to_str().is_none() {
                passed_over.add("whose name is no Unicode", &shown);
            } else if kind.is_dir() {
                self.enter(&entry.path(), &format!("{prefix}{name}/"))?;
            } else if !is_file {
                passed_over.add("that are no plain files", &shown);
            } else if has_image_extension(&name) {
                self.found.names.push(format!("{prefix}{name}"));
            } else {
                passed_over.add_name(&shown);
            }
        }
        Ok(())
    }
}

/// `true` where a file of this name is a picture that can be read.
pub(crate) fn has_image_extension(name: &str) -> bool {
    has_extension(name, EXTENSIONS)
}

/// `true` where a file of this name is a picture, be it one that cannot be read.
pub(crate) fn is_picture_name(name: &str) -> bool {
    has_image_extension(name) || has_extension(name, UNREAD)
}

fn has_extension(name: &str, extensions: &[&str]) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| {
        extensions.iter().any(|known| extension.eq_ignore_ascii_case(known))
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_but_not_in_a_circle() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("train");
        for name in ["ring/1.png", "ring/deep/2.png", "disc/3.png"] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "").unwrap();
        }
        let names = || PictureFiles::below(&root, "ring").map(|found| found.names);
        symlink("../disc", root.join("ring/other")).unwrap();
        symlink("1.png", root.join("ring/one.png")).unwrap();
        assert_eq!(names().unwrap(), ["1.png", "deep/2.png", "one.png", "other/3.png"]);
        for (link, target) in [
            ("ring/self", "."),
            ("ring/up", ".."),
            ("ring/deep/ring", ".."),
            ("ring/further", "../.."),
            ("disc/back", "../ring"),
            ("disc/all", root.to_str().unwrap()),
        ] {
            let path = root.join(link);
            symlink(target, &path).unwrap();
            let message = names().unwrap_err().to_string();
            let name = link.rsplit('/').next().unwrap();
            assert!(message.contains(&format!("/{name}")), "{message}");
            assert!(message.starts_with("found a link to a folder that it lies in"), "{message}");
            fs::remove_file(path).unwrap();
        }
        assert_eq!(names().unwrap().len(), 4);
        // A class that is the folder of all classes.
        symlink(".", root.join("all")).unwrap();
        assert!(PictureFiles::below(&root, "all").is_err());
    }

    #[test]
    fn what_is_no_picture_is_counted_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.JFIF", "a.jpe", "b.Tiff", "c.heic", "sub/d.tiff", ".hidden.tiff"] {
            fs::create_dir_all(folder.path().join("x/sub")).unwrap();
            fs::write(folder.path().join("x").join(name), "").unwrap();
        }
        let odd = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
        fs::write(folder.path().join("x").join(odd), "").unwrap();
        let socket = folder.path().join("x/socket.png");
        let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        symlink("nowhere", folder.path().join("x/lost.png")).unwrap();
        let found = PictureFiles::below(folder.path(), "x").unwrap();
        assert_eq!(found.names, ["a.JFIF", "a.jpe", "lost.png"]);
        assert_eq!(
            found.passed_over.to_string(),
            "5 files: 2 `.tiff` (first: x/b.Tiff), 1 `.heic` (x/c.heic), \
             1 that are no plain files (x/socket.png), 1 whose name is no Unicode (x/caf\u{fffd}.png)"
        );
    }
}
